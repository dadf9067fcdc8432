//! Whether a model fits into this machine and how fast it would run at most, before it is loaded: each token reads the
//! weights once, so the speed of memory bounds that of decoding.

use std::time::Instant;

use serde_json::{Value as Json, json};
use smallmind::format::Description;
use smallmind::format::gguf::Gguf;
use smallmind::memory::total_memory;
use smallmind::model::needs::Needs;
use smallmind::threads;

/// Bytes that each thread reads: together more than caches hold.
const BYTES: usize = 64 << 20;
/// Readings, of which the fastest counts.
const READINGS: usize = 3;
/// The context that is spoken of, where the model goes so far.
const CONTEXT: u64 = 4096;
/// Bits of a cached element by default.
const CACHE_BITS: u64 = 16;

/// What the model in a file takes here.
pub struct Estimate {
    needs: Needs,
    context: u64,
    cache_bytes: Option<u64>,
    memory: Option<u64>,
    /// Bytes a second that all threads read together; `None` where memory for the measurement is short.
    bandwidth: Option<f64>,
}

impl Estimate {
    pub fn of(gguf: &Gguf, description: &Description) -> Estimate {
        let needs = Needs::of(gguf);
        let context = description.context_length.unwrap_or(CONTEXT).min(CONTEXT);
        let cache_bytes = needs.cache_bytes(context, CACHE_BITS);
        Estimate { cache_bytes, context, memory: total_memory(), bandwidth: bandwidth(), needs }
    }

    /// Bytes of weights and cache.
    fn total(&self) -> u64 {
        let kept = self.cache_bytes.unwrap_or(0).saturating_add(self.needs.state_bytes);
        self.needs.weight_bytes.saturating_add(kept)
    }

    /// Whether these bytes are there at all; `None` where the system doesn't say.
    fn fits(&self) -> Option<bool> {
        Some(self.total() <= self.memory?)
    }

    /// Most tokens a second, at the beginning of a text.
    fn rate(&self) -> Option<f64> {
        self.bandwidth
            .filter(|_| self.needs.token_bytes > 0)
            .map(|speed| speed / self.needs.token_bytes as f64)
    }

    /// The lines of a summary.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let read = amount(self.needs.token_bytes);
        let mut lines =
            vec![("weights", format!("{}; a token reads {read}", amount(self.needs.weight_bytes)))];
        if let Some(bytes) = self.cache_bytes {
            lines.push(("cache", format!("{} at {} positions, in f16", amount(bytes), self.context)));
        }
        if self.needs.state_bytes > 0 {
            lines.push((
                "state",
                format!("{} of recurrent layers, at any position", amount(self.needs.state_bytes)),
            ));
        }
        let room = match (self.fits(), self.memory) {
            (Some(true), Some(memory)) => format!("fits into the {} of this machine", amount(memory)),
            (Some(false), Some(memory)) => format!(
                "doesn't fit: {} are needed, this machine has {}",
                amount(self.total()),
                amount(memory)
            ),
            _ => "the memory of this machine is unknown".to_owned(),
        };
        lines.push(("memory", room));
        if let (Some(rate), Some(bandwidth), Some(true) | None) = (self.rate(), self.bandwidth, self.fits()) {
            let (speed, threads) = (bandwidth / 1e9, threads::available());
            lines.push((
                "speed",
                format!(
                    "at most about {} tokens/s (an estimate: {speed:.1} GB/s, as {threads} threads read memory just now)",
                    two_digits(rate)
                ),
            ));
        }
        lines
    }

    /// The same as JSON.
    pub fn json(&self) -> Json {
        json!({
            "weight_bytes": self.needs.weight_bytes,
            "token_bytes": self.needs.token_bytes,
            "context": self.context,
            "cache_bytes": self.cache_bytes,
            "state_bytes": self.needs.state_bytes,
            "memory_bytes": self.memory,
            "fits": self.fits(),
            "bandwidth": self.bandwidth,
            "most_tokens_per_second": self.rate(),
        })
    }
}

fn amount(bytes: u64) -> String {
    let bytes = bytes as f64;
    match bytes {
        ..1e6 => format!("{:.1} kB", bytes / 1e3),
        ..1e9 => format!("{:.1} MB", bytes / 1e6),
        _ => format!("{:.1} GB", bytes / 1e9),
    }
}

/// A number with two digits that count.
fn two_digits(x: f64) -> String {
    match x {
        ..10.0 => format!("{x:.1}"),
        ..100.0 => format!("{x:.0}"),
        _ => {
            let unit = 10f64.powi(x.log10().floor() as i32 - 1);
            format!("{:.0}", (x / unit).round() * unit)
        }
    }
}

/// Bytes a second that all threads read from memory together.
fn bandwidth() -> Option<f64> {
    let words = BYTES / size_of::<u64>();
    let mut all = Vec::new();
    let threads = threads::available();
    all.try_reserve_exact(threads.checked_mul(words)?).ok()?;
    all.resize(threads * words, 1u64);
    let seconds = (0..READINGS).map(|_| {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for share in all.chunks(words) {
                scope.spawn(|| std::hint::black_box(sum(share)));
            }
        });
        start.elapsed().as_secs_f64()
    });
    let fastest = seconds.fold(f64::INFINITY, f64::min);
    Some((threads * BYTES) as f64 / fastest)
}

/// The sum, by several additions at a time: reading is slower.
fn sum(words: &[u64]) -> u64 {
    let mut lanes = [0u64; 16];
    for words in words.chunks_exact(lanes.len()) {
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane = lane.wrapping_add(*word);
        }
    }
    lanes.into_iter().fold(0, u64::wrapping_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_short() {
        assert_eq!(
            [amount(1500), amount(98_100_000), amount(16_000_000_000)],
            ["1.5 kB", "98.1 MB", "16.0 GB"]
        );
        assert_eq!(
            [two_digits(3.12), two_digits(42.4), two_digits(183.0), two_digits(12_345.0)],
            ["3.1", "42", "180", "12000"]
        );
    }

    #[test]
    fn memory_has_a_speed() {
        let speed = bandwidth().unwrap();
        assert!((1e7..1e13).contains(&speed), "{speed}");
    }
}
