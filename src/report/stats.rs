//! The statistics of a comparison: Welch's interval of a ratio from few runs a side, and Holm's correction where
//! many methods are looked at. Times are compared by their logarithms: noise of times is a factor, not a sum.

use crate::sort;

/// The confidence that intervals have: 95 %.
pub const CONFIDENCE: f64 = 0.95;

/// Runs of one side, by the logarithms of a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// How many runs.
    pub runs: usize,
    /// Mean of the logarithms.
    pub mean: f64,
    /// Variance of one run's logarithm, estimated with `runs - 1`; 0 for a single run.
    pub variance: f64,
}

impl Sample {
    /// The logarithms of positive figures, which are known to `step` (the last digit, or a tick of the clock): runs
    /// that agree by chance, or because nothing finer can be told, don't count as free of noise.
    ///
    /// Gives nothing where a figure isn't positive and finite, or where there is none.
    pub fn of_logs(figures: &[f64], step: f64) -> Option<Sample> {
        let runs = figures.len();
        if runs == 0 || !figures.iter().all(|figure| figure.is_finite() && *figure > 0.0) {
            return None;
        }
        let logs = || figures.iter().map(|figure| figure.ln());
        let mean = logs().sum::<f64>() / runs as f64;
        let squares: f64 = logs().map(|log| (log - mean) * (log - mean)).sum();
        // The variance of rounding to a step is step² / 12; relative to the figure, so is that of the logarithm.
        let rounding = (step / mean.exp()).powi(2) / 12.0;
        let variance = if runs > 1 { (squares / (runs - 1) as f64).max(rounding) } else { 0.0 };
        Some(Sample { runs, mean, variance })
    }
}

/// By how much the logarithm of a figure rose, as far as the runs tell.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Difference {
    /// Mean of the later logarithms less the mean of the earlier.
    pub log_ratio: f64,
    /// Standard error of `log_ratio`.
    pub standard_error: f64,
    /// Degrees of freedom of Student's t that goes with it (Welch and Satterthwaite, but no more than
    /// if both sides had as few runs as the one with fewer; 1 for two runs).
    pub freedom: f64,
}

impl Difference {
    /// Welch's comparison: variances need not be alike. A single run a side tells nothing about noise, and gives
    /// nothing.
    pub fn welch(before: &Sample, after: &Sample) -> Option<Difference> {
        if before.runs < 2 || after.runs < 2 {
            return None;
        }
        let [a, b] = [before, after].map(|side| side.variance / side.runs as f64);
        let squared = a + b;
        if squared.is_nan() || squared <= 0.0 {
            return None;
        }
        let share = |part: f64, runs: usize| part * part / (runs - 1) as f64;
        let freedom = squared * squared / (share(a, before.runs) + share(b, after.runs));
        // A few runs against many look more certain than they are where the few happen to agree: no more is claimed
        // than for as few on both sides. Two runs say so little of their noise that the least is claimed, with which
        // the interval holds whatever the noise (Mickey & Brown 1966).
        let fewest = before.runs.min(after.runs);
        let most = if fewest == 2 { 1 } else { 2 * (fewest - 1) };
        Some(Difference {
            log_ratio: after.mean - before.mean,
            standard_error: squared.sqrt(),
            freedom: freedom.min(most as f64),
        })
    }

    /// The interval of the ratio after / before that holds the true one with [`CONFIDENCE`].
    pub fn interval(&self) -> [f64; 2] {
        let reach = t_quantile(0.5 + CONFIDENCE / 2.0, self.freedom) * self.standard_error;
        [(self.log_ratio - reach).exp(), (self.log_ratio + reach).exp()]
    }

    /// How likely a difference from `ratio` at least this large is, up or down, where the true ratio is `ratio`.
    pub fn p(&self, ratio: f64) -> f64 {
        let t = (self.log_ratio - ratio.ln()) / self.standard_error;
        2.0 * t_tail(t.abs(), self.freedom)
    }
}

/// Holm's correction: as many values as came, none lower than it was. A set of comparisons that is judged by the
/// corrected values being under 0.05 holds a wrong verdict in at most 5 % of cases, however they hang together.
pub fn holm(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    sort::by(&mut order, |&a, &b| values[a].total_cmp(&values[b]));
    let mut corrected = vec![0.0; values.len()];
    let mut highest: f64 = 0.0;
    for (place, &index) in order.iter().enumerate() {
        highest = highest.max(values[index] * (values.len() - place) as f64).min(1.0);
        corrected[index] = highest;
    }
    corrected
}

/// The value that Student's t with so many degrees of freedom stays below with probability `p`.
pub fn t_quantile(p: f64, freedom: f64) -> f64 {
    if p < 0.5 {
        return -t_quantile(1.0 - p, freedom);
    }
    let tail = 1.0 - p;
    let mut high: f64 = 1.0;
    while t_tail(high, freedom) > tail && high < f64::MAX / 4.0 {
        high *= 2.0;
    }
    let mut low = 0.0;
    // Halving 100 times leaves nothing of an interval but neighbouring numbers.
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        if t_tail(middle, freedom) > tail { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// The probability that Student's t is above `t`, which is not negative.
fn t_tail(t: f64, freedom: f64) -> f64 {
    0.5 * incomplete_beta(freedom / (freedom + t * t), 0.5 * freedom, 0.5)
}

/// The regularised incomplete beta function I_x(a, b), by its continued fraction (Abramowitz & Stegun 26.5.8),
/// which is worked off from the front as Lentz does.
fn incomplete_beta(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    // The fraction converges fast on this side only.
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(1.0 - x, b, a);
    }
    let factor = (ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (-x).ln_1p()).exp() / a;
    let away_from_zero = |value: f64| if value.abs() < 1e-300 { 1e-300 } else { value };
    let (mut c, mut d) = (1.0, 1.0 / away_from_zero(1.0 - (a + b) * x / (a + 1.0)));
    let mut fraction = d;
    for m in 1..1000 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let before = fraction;
        for step in [even, odd] {
            d = 1.0 / away_from_zero(1.0 + step * d);
            c = away_from_zero(1.0 + step / c);
            fraction *= c * d;
        }
        if (fraction / before - 1.0).abs() < 1e-15 {
            break;
        }
    }
    factor * fraction
}

/// The logarithm of the gamma function for positive arguments: Stirling's series, from where it is exact.
fn ln_gamma(x: f64) -> f64 {
    let mut shifted = x;
    let mut product = 1.0;
    while shifted < 10.0 {
        product *= shifted;
        shifted += 1.0;
    }
    let inverse = 1.0 / (shifted * shifted);
    let series = (1.0 / 12.0
        - inverse * (1.0 / 360.0 - inverse * (1.0 / 1260.0 - inverse * (1.0 / 1680.0 - inverse / 1188.0))))
        / shifted;
    (shifted - 0.5) * shifted.ln() - shifted + 0.5 * (2.0 * std::f64::consts::PI).ln() + series - product.ln()
}

#[cfg(test)]
mod tests {
    use rand_core::{RngCore, SeedableRng};
    use rand_pcg::Pcg64;

    use super::*;

    #[test]
    fn quantiles_are_those_of_published_tables() {
        // Two-sided 95 % and 99 %, one-sided 99.95 %; 1 and 2 degrees of freedom also in closed form.
        let table = [
            (0.975, 1.0, 12.706_204_736_174_694),
            (0.975, 2.0, 4.302_652_729_749_464),
            (0.975, 3.0, 3.182_446_305_283_708),
            (0.975, 4.0, 2.776_445_105_197_793),
            (0.975, 5.0, 2.570_581_835_636_314),
            (0.975, 8.0, 2.306_004_135_033_371),
            (0.975, 10.0, 2.228_138_851_964_939),
            (0.975, 18.0, 2.100_922_040_240_96),
            (0.975, 30.0, 2.042_272_456_301_237),
            (0.975, 1e6, 1.959_966_356_809_1),
            (0.995, 4.0, 4.604_094_871_349_993),
            (0.9995, 8.0, 5.041_305_433_373_362),
            (0.9995, 2.0, 31.599_054_576_443_6),
        ];
        for (p, freedom, expected) in table {
            let found = t_quantile(p, freedom);
            assert!((found / expected - 1.0).abs() < 1e-8, "{p} {freedom}: {found} for {expected}");
            assert!((t_quantile(1.0 - p, freedom) / -expected - 1.0).abs() < 1e-8);
        }
        for p in [0.6, 0.9, 0.99, 0.9999] {
            let one: f64 = (std::f64::consts::PI * (p - 0.5)).tan();
            assert!((t_quantile(p, 1.0) / one - 1.0).abs() < 1e-9);
            let two = (2.0 * p - 1.0) / (2.0 * p * (1.0 - p)).sqrt();
            assert!((t_quantile(p, 2.0) / two - 1.0).abs() < 1e-9);
        }
        assert!(t_quantile(0.5, 7.0).abs() < 1e-12);
    }

    #[test]
    fn between_whole_degrees_of_freedom_the_density_integrates_to_the_quantile() {
        for freedom in [1.5f64, 2.5, 3.7, 11.2] {
            let scale = (ln_gamma(0.5 * (freedom + 1.0)) - ln_gamma(0.5 * freedom)).exp()
                / (freedom * std::f64::consts::PI).sqrt();
            let density = |t: f64| scale * (1.0 + t * t / freedom).powf(-0.5 * (freedom + 1.0));
            let quantile = t_quantile(0.975, freedom);
            let (steps, width) = (20_000, quantile / 20_000.0);
            // Simpson's rule over the upper half of the interval.
            let weight = |step| {
                if step == 0 || step == steps {
                    1.0
                } else if step % 2 == 1 {
                    4.0
                } else {
                    2.0
                }
            };
            let area: f64 = (0..=steps).map(|step| weight(step) * density(step as f64 * width)).sum();
            assert!((2.0 * area * width / 3.0 - 0.95).abs() < 1e-9, "{freedom}");
        }
    }

    #[test]
    fn the_gamma_function_has_its_known_values() {
        let mut factorial = 1.0;
        for n in 1..20 {
            assert!((ln_gamma(f64::from(n)) - f64::ln(factorial)).abs() < 1e-12, "{n}");
            factorial *= f64::from(n);
        }
        assert!((ln_gamma(0.5) - std::f64::consts::PI.sqrt().ln()).abs() < 1e-12);
    }

    #[test]
    fn welch_agrees_with_a_worked_example() {
        // ln of 100, 102, 104 and of 110, 111, 115: by hand with t(0.975; 3.81) from tables.
        let before = Sample::of_logs(&[100.0, 102.0, 104.0], 0.0).unwrap();
        let after = Sample::of_logs(&[110.0, 111.0, 115.0], 0.0).unwrap();
        let difference = Difference::welch(&before, &after).unwrap();
        let ratio = (110.0f64 * 111.0 * 115.0 / (100.0 * 102.0 * 104.0)).cbrt();
        assert!((difference.log_ratio.exp() - ratio).abs() < 1e-12);
        let variances = [before.variance, after.variance].map(|variance| variance / 3.0);
        let squared = variances[0] + variances[1];
        assert!((difference.standard_error - squared.sqrt()).abs() < 1e-15);
        let freedom = squared.powi(2) / (variances[0].powi(2) / 2.0 + variances[1].powi(2) / 2.0);
        assert!((difference.freedom - freedom).abs() < 1e-9 && (3.5..4.0).contains(&freedom));
        let [low, high] = difference.interval();
        assert!(low < ratio && ratio < high && (low * high / (ratio * ratio) - 1.0).abs() < 1e-12);
        // At the end of the interval, p is what lies outside.
        assert!((difference.p(low) - 0.05).abs() < 1e-9 && (difference.p(high) - 0.05).abs() < 1e-9);
        assert!((difference.p(ratio) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn what_tells_nothing_gives_nothing() {
        let one = Sample::of_logs(&[5.0], 1.0).unwrap();
        let many = Sample::of_logs(&[5.0, 6.0, 7.0], 1.0).unwrap();
        assert_eq!(Difference::welch(&one, &many), None);
        assert_eq!(Difference::welch(&many, &one), None);
        for bad in [&[][..], &[1.0, 0.0], &[1.0, -1.0], &[f64::NAN], &[f64::INFINITY, 1.0]] {
            assert_eq!(Sample::of_logs(bad, 1.0), None);
        }
    }

    #[test]
    fn runs_that_agree_are_as_noisy_as_the_clock_is_coarse() {
        let side = |figure: f64| Sample::of_logs(&[figure; 3], 1.0).unwrap();
        // 10 ns and 11 ns on a clock of 1 ns: one tick is no proof.
        let ticks = Difference::welch(&side(10.0), &side(11.0)).unwrap();
        let [low, high] = ticks.interval();
        assert!(low > 1.0 && high > 1.16, "{low} {high}");
        let far = Difference::welch(&side(1e6), &side(1.1e6)).unwrap();
        assert!((far.interval()[0] - 1.1).abs() < 1e-5);
        let same = Difference::welch(&side(1e6), &side(1e6)).unwrap();
        assert_eq!(same.p(1.0), 1.0);
    }

    #[test]
    fn holm_corrects_as_worked_by_hand() {
        let corrected = holm(&[0.01, 0.04, 0.03, 0.005]);
        for (found, expected) in corrected.iter().zip([0.03, 0.06, 0.06, 0.02]) {
            assert!((found - expected).abs() < 1e-12, "{corrected:?}");
        }
        assert_eq!(holm(&[0.9, 0.8]), [1.0, 1.0]);
        assert!(holm(&[]).is_empty());
    }

    /// Normal noise by Box and Muller.
    fn normal(random: &mut Pcg64) -> f64 {
        let mut uniform = || (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        (-2.0 * (1.0 - uniform()).ln()).sqrt() * (2.0 * std::f64::consts::PI * uniform()).cos()
    }

    /// Share of comparisons whose interval excludes no change, and share that excludes the true ratio.
    fn excluded(runs: [usize; 2], noise: [f64; 2], ratio: f64, seed: u64) -> [f64; 2] {
        const TRIALS: usize = 2000;
        let mut random = Pcg64::seed_from_u64(seed);
        let mut counts = [0usize; 2];
        for _ in 0..TRIALS {
            let mut side = |runs: usize, noise: f64, time: f64| {
                let times: Vec<f64> = (0..runs).map(|_| time * (noise * normal(&mut random)).exp()).collect();
                Sample::of_logs(&times, 1.0).unwrap()
            };
            let before = side(runs[0], noise[0], 1e6);
            let after = side(runs[1], noise[1], 1e6 * ratio);
            let [low, high] = Difference::welch(&before, &after).unwrap().interval();
            counts[0] += usize::from(low > 1.0 || high < 1.0);
            counts[1] += usize::from(low > ratio || high < ratio);
        }
        counts.map(|count| count as f64 / TRIALS as f64)
    }

    #[test]
    fn no_change_is_excluded_in_at_most_five_percent() {
        // Two standard deviations of a share of 5 % among 2000 are 1 %.
        for (seed, runs) in [(1, [3, 3]), (2, [5, 5]), (3, [10, 10]), (4, [3, 10]), (5, [10, 2])] {
            for noise in [[0.02, 0.02], [0.2, 0.2], [0.01, 0.05]] {
                let [wrong, _] = excluded(runs, noise, 1.0, seed);
                println!("{runs:?} runs, noise {noise:?}: {:.1} % excluded", 100.0 * wrong);
                assert!(wrong <= 0.065, "{runs:?} {noise:?}: {wrong}");
                // Nor are they much wider than said, but where the sides differ in runs.
                assert!(wrong >= 0.02 || runs[0] != runs[1], "{runs:?} {noise:?}: {wrong}");
            }
        }
    }

    #[test]
    fn a_tenth_is_found_at_one_percent_of_noise() {
        for (runs, least) in [(3, 0.99), (5, 0.999), (10, 0.999)] {
            for ratio in [1.1, 1.0 / 1.1] {
                let [found, wrong] = excluded([runs, runs], [0.01, 0.01], ratio, 7);
                assert!(found >= least, "{runs} runs: {found}");
                assert!(wrong <= 0.065, "{runs} runs: {wrong}");
            }
        }
    }
}
