//! The call tree as a flame graph: an SVG picture, whose frames are as wide as their wall time; of one report, or of
//! two, in the colours of the difference.
//! A part is a frame at the bottom, as wide as its run in the middle; time that no method covers is its own.

use inferno::differential;
use inferno::flamegraph::color::{BackgroundColor, Color, PaletteMap};
use inferno::flamegraph::{self, Options};

use super::family;
use super::view::{self, PartView};
use crate::report::data::Report;
use crate::{Error, Result};

/// All times of a picture together: some centuries, and less than what would overflow its sums.
const MOST_NS: u64 = u64::MAX / 2;

const SCRIPT_END: &str = "</script>";
const WHITE: Color = Color { r: 255, g: 255, b: 255 };
/// The function of the frame below all others, whose text is "all".
const INFERNO_ROOT: &str = "";
/// Of frames that are no methods.
const PLAIN: Color = Color { r: 226, g: 224, b: 217 };

const EMPTY: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\" \
    width=\"640\" height=\"80\"><text x=\"320\" y=\"45\" text-anchor=\"middle\" font-family=\"sans-serif\">\
    Nothing was recorded.</text></svg>\n";

pub(super) fn render(report: &Report) -> Result<Vec<u8>> {
    let lines = lines(report, |_| true);
    if lines.is_empty() {
        return Ok(EMPTY.into());
    }
    let mut options = Options::default();
    options.title = format!("smallmind profile: {}", frame(&report.mode));
    options.subtitle = Some("time outside of what was called, in µs; click a frame to zoom".to_string());
    options.count_name = "µs".to_string();
    // Counts are nanoseconds: rounding each to microseconds would lose the short ones.
    options.factor = 0.001;
    let mut colours = colours(report);
    options.palette_map = Some(&mut colours);
    options.bgcolors = Some(BackgroundColor::Flat(WHITE));
    options.deterministic = true;
    draw(&mut options, &lines)
}

/// Two reports in one picture, as wide as the later one: red took longer than in the earlier one, blue less long, and
/// the stronger the colour the more. Only parts that both have; none where they have no call tree. Without a script, so
/// that it can stand in a page.
pub(in crate::report) fn render_difference(before: &Report, after: &Report) -> Result<Option<String>> {
    let has = |report: &Report, name: &str| report.parts.iter().any(|part| part.name == name);
    let sides = [lines(before, |name| has(after, name)), lines(after, |name| has(before, name))];
    if sides.iter().any(Vec::is_empty) {
        return Ok(None);
    }
    let [before, after] = sides.map(|lines| lines.join("\n"));
    let mut folded = Vec::new();
    differential::from_readers(
        differential::Options::default(),
        before.as_bytes(),
        after.as_bytes(),
        &mut folded,
    )
    .map_err(failed)?;
    let folded =
        String::from_utf8(folded).map_err(|error| Error::Internal(format!("flame graph: {error}")))?;
    let mut options = Options::default();
    options.title = "Where time was lost (red) and won (blue)".to_string();
    options.count_name = "µs".to_string();
    options.factor = 0.001;
    options.bgcolors = Some(BackgroundColor::Flat(WHITE));
    options.deterministic = true;
    options.no_javascript = true;
    let lines: Vec<String> = folded.lines().map(str::to_owned).collect();
    let svg = String::from_utf8_lossy(&draw(&mut options, &lines)?).into_owned();
    // Behind its prologue, which is for a file of its own, and without the variables of the script that it lacks.
    let Some(start) = svg.find("<svg") else { return Ok(None) };
    let svg = &svg[start..];
    Ok(Some(match (svg.find("<script"), svg.find(SCRIPT_END)) {
        (Some(from), Some(to)) if from < to => [&svg[..from], &svg[to + SCRIPT_END.len()..]].concat(),
        _ => svg.to_owned(),
    }))
}

fn draw(options: &mut Options<'_>, lines: &[String]) -> Result<Vec<u8>> {
    let mut svg = Vec::new();
    flamegraph::from_lines(options, lines.iter().map(String::as_str), &mut svg).map_err(failed)?;
    Ok(svg)
}

fn failed(error: std::io::Error) -> Error {
    Error::Internal(format!("flame graph: {error}"))
}

/// A line for each place with time of its own, in the parts of these names: its frames, and nanoseconds.
fn lines(report: &Report, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let mut left = MOST_NS;
    let parts = view::parts(report);
    let stacks = parts.iter().filter(|part| wanted(&part.part.name)).flat_map(folded);
    let line = |(frames, ns): (String, u64)| {
        let ns = ns.min(left);
        left -= ns;
        format!("{frames} {ns}")
    };
    stacks.map(line).collect()
}

/// Colours of all frames: pale ones of their families, for black text on them.
fn colours(report: &Report) -> PaletteMap {
    let pale = |colour: u8| colour / 2 + 127;
    let mut map = PaletteMap::default();
    let runs = report.parts.iter().flat_map(|part| &part.runs);
    for method in runs.flat_map(|run| &run.tree) {
        let [r, g, b] = family::of(&method.name).colour.map(pale);
        map.insert(frame(&method.name), Color { r, g, b });
    }
    for part in &report.parts {
        map.insert(frame(&part.name), PLAIN);
    }
    map.insert(INFERNO_ROOT, PLAIN);
    map
}

/// Each place with time of its own: its frames from the bottom, and nanoseconds.
fn folded(part: &PartView<'_>) -> Vec<(String, u64)> {
    let root = frame(&part.part.name);
    let tree = &part.tree;
    let outside = part.middle.wall_ns.saturating_sub(tree.roots_ns());
    let own = (outside > 0).then(|| (root.clone(), outside));
    let places = (0..tree.nodes.len()).filter(|&place| tree.nodes[place].self_ns > 0).map(|place| {
        let frames: Vec<String> = tree.path(place).into_iter().map(frame).collect();
        (format!("{root};{}", frames.join(";")), tree.nodes[place].self_ns)
    });
    own.into_iter().chain(places).collect()
}

/// A name that is one frame: a semicolon would make two of it, and an empty one none.
fn frame(name: &str) -> String {
    let name = super::text::one_line(name).replace(';', ",");
    if name.trim().is_empty() { "(no name)".to_string() } else { name }
}
