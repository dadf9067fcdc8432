//! The call tree as a `profile.proto`, compressed, for `go tool pprof` and its kin. A sample is a place of the tree
//! with the figures of its own; a part is the outermost function.
//! The messages are those of github.com/google/pprof/blob/main/proto/profile.proto, as far as they are used.

use std::collections::HashMap;
use std::io::Write;

use flate2::{Compression, GzBuilder};
use prost::Message;

use super::view::{self, PartView};
use crate::profile::Counter;
use crate::report::data::{Report, key};
use crate::{Error, Result};

#[derive(Clone, PartialEq, Message)]
struct Profile {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    mapping: Vec<Mapping>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
    #[prost(int64, tag = "9")]
    time_nanos: i64,
    #[prost(int64, tag = "10")]
    duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    period: i64,
    #[prost(int64, repeated, tag = "13")]
    comment: Vec<i64>,
    #[prost(int64, tag = "14")]
    default_sample_type: i64,
}

/// Texts are numbers of places in the string table.
#[derive(Clone, PartialEq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    r#type: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    /// The innermost first.
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    /// One for each sample type.
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct Mapping {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "5")]
    filename: i64,
    #[prost(bool, tag = "7")]
    has_functions: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    mapping_id: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

#[derive(Clone, PartialEq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    #[prost(int64, tag = "3")]
    system_name: i64,
}

pub(super) fn render(report: &Report) -> Result<Vec<u8>> {
    let bytes = profile(report).encode_to_vec();
    // No time of writing: the same report gives the same bytes.
    let mut gzip = GzBuilder::new().mtime(0).write(Vec::new(), Compression::default());
    gzip.write_all(&bytes)
        .and_then(|()| gzip.finish())
        .map_err(|error| Error::Internal(format!("pprof: {error}")))
}

fn profile(report: &Report) -> Profile {
    let mut writer = Writer::default();
    writer.text("");
    let kinds = [("calls", "count"), ("time", "nanoseconds"), ("alloc_space", "bytes"), ("flops", "count")];
    let parts = view::parts(report);
    // Other tools show a type whose samples are all 0 like any other: only known counters get one.
    let is_counted = |counter: &Counter| {
        let nodes = || parts.iter().flat_map(|part| part.tree.nodes);
        nodes().filter_map(|node| node.counters.as_ref()).any(|counters| counters.get(*counter).is_some())
    };
    writer.counters = Counter::ALL.into_iter().filter(is_counted).collect();
    let counted: Vec<String> = writer.counters.iter().map(|counter| key(*counter)).collect();
    let sample_type: Vec<ValueType> = kinds
        .into_iter()
        .chain(counted.iter().map(|name| (name.as_str(), "count")))
        .map(|(kind, unit): (&str, &str)| ValueType { r#type: writer.text(kind), unit: writer.text(unit) })
        .collect();
    let mapping = Mapping { id: 1, filename: writer.text("smallmind"), has_functions: true };
    let comment = vec![writer.text(&format!("smallmind profile: {}", report.mode))];
    parts.iter().for_each(|part| writer.part(part));
    let duration = parts.iter().fold(0, |sum: u64, part| sum.saturating_add(part.middle.wall_ns));
    Profile {
        period_type: Some(sample_type[1].clone()),
        default_sample_type: sample_type[1].r#type,
        sample_type,
        sample: writer.samples,
        mapping: vec![mapping],
        location: writer.locations,
        function: writer.functions,
        string_table: writer.texts,
        time_nanos: nanoseconds_since_1970(&report.created).unwrap_or(0),
        duration_nanos: figure(duration),
        period: 1,
        comment,
    }
}

#[derive(Default)]
struct Writer {
    texts: Vec<String>,
    known_texts: HashMap<String, i64>,
    known_functions: HashMap<i64, u64>,
    functions: Vec<Function>,
    locations: Vec<Location>,
    samples: Vec<Sample>,
    /// Those with a sample type, behind the four that there always are.
    counters: Vec<Counter>,
}

impl Writer {
    /// The number of a text.
    fn text(&mut self, text: &str) -> i64 {
        if let Some(&known) = self.known_texts.get(text) {
            return known;
        }
        let number = self.texts.len() as i64;
        self.texts.push(text.to_string());
        self.known_texts.insert(text.to_string(), number);
        number
    }

    /// The location that stands for a function, which is made where there is none.
    fn location(&mut self, name: &str) -> u64 {
        let name = self.text(name);
        if let Some(&known) = self.known_functions.get(&name) {
            return known;
        }
        let id = self.functions.len() as u64 + 1;
        self.functions.push(Function { id, name, system_name: name });
        self.locations.push(Location { id, mapping_id: 1, line: vec![Line { function_id: id }] });
        self.known_functions.insert(name, id);
        id
    }

    fn part(&mut self, part: &PartView<'_>) {
        let root = self.location(&part.part.name);
        let (tree, run) = (&part.tree, part.middle);
        let allocated =
            tree.roots().fold(0, |sum: u64, root| sum.saturating_add(tree.nodes[root].alloc_bytes));
        let outside = run.wall_ns.saturating_sub(tree.roots_ns());
        let own = [0, outside, run.alloc_bytes.saturating_sub(allocated), 0];
        let counted: Vec<Vec<u64>> = self.counters.iter().map(|counter| tree.own_counts(*counter)).collect();
        self.sample(vec![root], own.into_iter().chain(counted.iter().map(|_| 0)).collect());
        for (place, node) in tree.nodes.iter().enumerate() {
            let mut stack: Vec<u64> =
                tree.way_up(place).map(|place| self.location(&tree.nodes[place].name)).collect();
            stack.push(root);
            let own = [node.calls, node.self_ns, node.self_alloc_bytes, tree.own_flops(place)];
            self.sample(stack, own.into_iter().chain(counted.iter().map(|own| own[place])).collect());
        }
    }

    /// A sample, unless nothing was measured.
    fn sample(&mut self, location_id: Vec<u64>, value: Vec<u64>) {
        if value.iter().any(|&figure| figure > 0) {
            self.samples.push(Sample { location_id, value: value.into_iter().map(figure).collect() });
        }
    }
}

fn figure(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A moment such as "2026-01-31T12:00:00Z"; none where it is another text, or too far away.
fn nanoseconds_since_1970(moment: &str) -> Option<i64> {
    let (date, time) = moment.strip_suffix('Z')?.split_once('T')?;
    let numbers = |text: &str, between: char| -> Option<[i64; 3]> {
        let fields: Vec<i64> = text.split(between).map(|field| field.parse().ok()).collect::<Option<_>>()?;
        fields.try_into().ok()
    };
    let [year, month, day] = numbers(date, '-')?;
    let (whole, _) = time.split_once('.').unwrap_or((time, ""));
    let [hour, minute, second] = numbers(whole, ':')?;
    let sound = (1970..2262).contains(&year) && (1..13).contains(&month) && (1..32).contains(&day);
    let sound = sound && (0..24).contains(&hour) && (0..60).contains(&minute) && (0..61).contains(&second);
    // Years begin in March, so that a leap day is a year's last (Hinnant's days_from_civil).
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    sound.then(|| (((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::super::sample::report;
    use super::*;

    fn decoded(report: &Report) -> Profile {
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(&render(report).unwrap()[..]).read_to_end(&mut bytes).unwrap();
        Profile::decode(&bytes[..]).unwrap()
    }

    #[test]
    fn samples_add_up_to_what_was_measured() {
        let report = report();
        let profile = decoded(&report);
        let parts = view::parts(&report);
        let sum = |kind: usize| profile.sample.iter().map(|sample| sample.value[kind]).sum::<i64>() as u64;
        let over = |figure: &dyn Fn(&PartView<'_>) -> u64| parts.iter().map(figure).sum::<u64>();
        assert_eq!(sum(0), over(&|part| part.tree.nodes.iter().map(|node| node.calls).sum()));
        assert_eq!(sum(1), over(&|part| part.middle.wall_ns));
        assert_eq!(sum(2), over(&|part| part.middle.alloc_bytes));
        assert_eq!(sum(3), over(&|part| part.flops()));
        assert_eq!(profile.duration_nanos as u64, sum(1));
        // What was counted in roots is that of their parts and of all below.
        let faults = |part: &PartView<'_>| {
            let roots = part.tree.roots().map(|root| part.tree.nodes[root].counters.as_ref().unwrap());
            roots.map(|counters| counters.get(Counter::MinorFaults).unwrap()).sum()
        };
        assert_eq!(sum(4), over(&faults));
        let name = |number: i64| profile.string_table[number as usize].as_str();
        let types: Vec<_> =
            profile.sample_type.iter().map(|kind| (name(kind.r#type), name(kind.unit))).collect();
        assert_eq!(types[1], ("time", "nanoseconds"));
        assert_eq!((types[4], types.len()), (("minor_page_faults", "count"), 12));
        assert_eq!(name(profile.default_sample_type), "time");
        assert_eq!(name(0), "");
        let deepest = profile.sample.iter().max_by_key(|sample| sample.location_id.len()).unwrap();
        let stack: Vec<_> =
            deepest.location_id.iter().map(|&id| name(profile.function[id as usize - 1].name)).collect();
        assert_eq!(stack.last(), Some(&"with cache"));
        assert_eq!(stack[0], "barrier");
    }

    #[test]
    fn the_same_report_gives_the_same_bytes() {
        assert_eq!(render(&report()).unwrap(), render(&report()).unwrap());
    }

    #[test]
    fn moments_are_counted_from_1970() {
        assert_eq!(nanoseconds_since_1970("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(nanoseconds_since_1970("2024-02-29T12:34:56Z"), Some(1_709_210_096_000_000_000));
        assert_eq!(nanoseconds_since_1970("2026-11-21T05:00:00.5Z"), Some(1_795_237_200_000_000_000));
        for wrong in ["", "now", "2026-13-01T00:00:00Z", "2026-01-01", "9999999-01-01T00:00:00Z"] {
            assert_eq!(nanoseconds_since_1970(wrong), None, "{wrong}");
        }
    }
}
