//! The curve of losses as an SVG picture: two polylines and their axes, on a background that follows the viewer's light
//! or dark scheme.

use std::fmt::Write;

use super::losses::Point;

/// The picture, and the plot within it.
const SIZE: (f64, f64) = (720.0, 400.0);
const PLOT: (f64, f64, f64, f64) = (64.0, 40.0, 696.0, 352.0);
/// Most points of a line; more are averaged in runs.
const POINTS: usize = 600;
/// Ticks of an axis, about.
const TICKS: f64 = 6.0;

const STYLE: &str = "\
text{font:12px sans-serif;fill:#333}.ground{fill:#fff}.grid{stroke:#ddd}.axis{stroke:#666}\
polyline{fill:none;stroke-width:1.5}.training{stroke:#0969da}.validation{stroke:#bc4c00}circle.validation{fill:#bc4c00}\
@media(prefers-color-scheme:dark){text{fill:#ddd}.ground{fill:#0d1117}.grid{stroke:#333}.axis{stroke:#999}\
.training{stroke:#58a6ff}.validation{stroke:#f0883e}circle.validation{fill:#f0883e}}";

/// An axis: values from `low` to `high`, and where these are in the picture.
struct Axis {
    low: f64,
    high: f64,
    /// The distance of ticks.
    tick: f64,
    from: f64,
    to: f64,
}

impl Axis {
    /// An axis for values, with whole ticks at both ends.
    fn new(values: impl Iterator<Item = f64>, (from, to): (f64, f64)) -> Axis {
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), x| (l.min(x), h.max(x)));
        if low > high {
            return Axis { low: 0.0, high: 1.0, tick: 1.0, from, to };
        }
        let high = if high > low { high } else { low + 1.0 };
        let tick = tick(high - low);
        Axis { low: (low / tick).floor() * tick, high: (high / tick).ceil() * tick, tick, from, to }
    }

    fn place(&self, x: f64) -> f64 {
        self.from + (x - self.low) / (self.high - self.low) * (self.to - self.from)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> + '_ {
        let count = ((self.high - self.low) / self.tick).round() as usize;
        (0..=count).map(move |i| self.low + i as f64 * self.tick)
    }
}

/// The distance of ticks over a length: 1, 2 or 5 times a power of ten.
fn tick(length: f64) -> f64 {
    let rough = length / TICKS;
    let power = 10f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0].into_iter().map(|x| x * power).find(|&x| x >= rough).unwrap_or(10.0 * power)
}

/// At most [`POINTS`] points: the means of runs.
fn thinned(points: &[Point]) -> Vec<(f64, f64)> {
    let mean = |run: &[Point]| {
        let count = run.len() as f64;
        let (x, y) = run.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0 as f64, y + point.1));
        (x / count, y / count)
    };
    points.chunks(points.len().div_ceil(POINTS).max(1)).map(mean).collect()
}

/// The picture of both curves.
pub fn svg(training: &[Point], validation: &[Point]) -> String {
    let (training, validation) = (thinned(training), thinned(validation));
    let all = || training.iter().chain(&validation);
    let (left, top, right, bottom) = PLOT;
    let x = Axis::new(all().map(|point| point.0).chain([0.0]), (left, right));
    let y = Axis::new(all().map(|point| point.1), (bottom, top));
    let (width, height) = SIZE;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" role=\"img\" aria-label=\"losses by step\">\n<style>{STYLE}</style>\n\
         <rect class=\"ground\" width=\"{width}\" height=\"{height}\"/>\n"
    );
    // Writing into a String never fails.
    let _ = axes(&mut svg, &x, &y);
    let _ = line(&mut svg, "training", &training, (&x, &y), left);
    if !validation.is_empty() {
        let _ = line(&mut svg, "validation", &validation, (&x, &y), left + 130.0);
    }
    svg.push_str("</svg>\n");
    svg
}

/// Ticks with their numbers, and the axes.
fn axes(svg: &mut String, x: &Axis, y: &Axis) -> std::fmt::Result {
    let (left, top, right, bottom) = PLOT;
    for value in y.ticks() {
        let at = y.place(value);
        writeln!(svg, "<path class=\"grid\" d=\"M{left} {at:.1}H{right}\"/>")?;
        let number = short(value);
        writeln!(
            svg,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{number}</text>",
            left - 8.0,
            at + 4.0
        )?;
    }
    for value in x.ticks() {
        let (at, number) = (x.place(value), short(value));
        writeln!(svg, "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{number}</text>", bottom + 18.0)?;
    }
    writeln!(svg, "<path class=\"axis\" fill=\"none\" d=\"M{left} {top}V{bottom}H{right}\"/>")?;
    writeln!(svg, "<text x=\"{right}\" y=\"{}\" text-anchor=\"end\">step</text>", bottom + 38.0)
}

/// A number without the zeros at its end.
fn short(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').replace("-0", "0")
}

/// A line with its name above the plot.
fn line(
    svg: &mut String,
    name: &str,
    points: &[(f64, f64)],
    (x, y): (&Axis, &Axis),
    at: f64,
) -> std::fmt::Result {
    let places: Vec<_> =
        points.iter().map(|&(a, b)| format!("{:.1},{:.1}", x.place(a), y.place(b))).collect();
    writeln!(svg, "<polyline class=\"{name}\" points=\"{}\"/>", places.join(" "))?;
    writeln!(svg, "<path class=\"{name}\" stroke-width=\"3\" d=\"M{at} 22h20\"/>")?;
    let last = points.last().map(|point| format!(" {:.3}", point.1)).unwrap_or_default();
    writeln!(svg, "<text x=\"{}\" y=\"26\">{name}{last}</text>", at + 26.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_hold_all_values() {
        let axis = Axis::new([1.3, 4.2].into_iter(), (0.0, 100.0));
        assert_eq!(
            axis.ticks().map(short).collect::<Vec<_>>(),
            ["1", "1.5", "2", "2.5", "3", "3.5", "4", "4.5"]
        );
        assert!(axis.place(1.3) > 0.0 && axis.place(4.2) < 100.0);
        for values in [&[][..], &[2.0], &[0.0, 0.0], &[1e-9, 2e-9], &[5.0, 1e12]] {
            let axis = Axis::new(values.iter().copied(), (0.0, 1.0));
            assert!(axis.low < axis.high && (2..12).contains(&axis.ticks().count()), "{values:?}");
        }
    }

    #[test]
    fn lines_lie_in_the_plot() {
        let training: Vec<Point> = (1..5000).map(|step| (step, 5.0 / (step as f64).sqrt())).collect();
        let svg = svg(&training, &[(0, 5.5), (4999, 0.1)]);
        let lines: Vec<_> = svg.lines().filter(|line| line.starts_with("<polyline")).collect();
        assert_eq!(lines.len(), 2);
        for line in lines {
            let points = line.split('"').nth(3).unwrap();
            assert!(points.split(' ').count() <= POINTS);
            for point in points.split(' ') {
                let (x, y) = point.split_once(',').unwrap();
                let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
                assert!((PLOT.0..=PLOT.2).contains(&x) && (PLOT.1..=PLOT.3).contains(&y), "{point}");
            }
        }
        quick_xml::Reader::from_str(&svg).read_event().unwrap();
    }
}
