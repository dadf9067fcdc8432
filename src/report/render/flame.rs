//! The call tree as a flame graph: an SVG picture, whose frames are as wide as their wall time.
//! A part is a frame at the bottom, as wide as its run in the middle; what no method covers is its own.

use inferno::flamegraph::color::{BackgroundColor, Color, PaletteMap};
use inferno::flamegraph::{self, Options};

use super::family;
use super::view::{self, PartView};
use crate::report::data::Report;
use crate::{Error, Result};

/// All times of a picture together: some centuries, and less than what would overflow its sums.
const MOST_NS: u64 = u64::MAX / 2;

const WHITE: Color = Color { r: 255, g: 255, b: 255 };
/// The function of the frame below all others, whose text is "all".
const INFERNO_ROOT: &str = "";
/// Of frames that are no methods.
const PLAIN: Color = Color { r: 226, g: 224, b: 217 };

const EMPTY: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\" \
    width=\"640\" height=\"80\"><text x=\"320\" y=\"45\" text-anchor=\"middle\" font-family=\"sans-serif\">\
    Nothing was recorded.</text></svg>\n";

pub(super) fn render(report: &Report) -> Result<Vec<u8>> {
    let mut left = MOST_NS;
    let stacks: Vec<(String, u64)> = view::parts(report).iter().flat_map(folded).collect();
    let lines: Vec<String> = stacks
        .into_iter()
        .map(|(frames, ns)| {
            let ns = ns.min(left);
            left -= ns;
            format!("{frames} {ns}")
        })
        .collect();
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
    let mut svg = Vec::new();
    flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), &mut svg)
        .map_err(|error| Error::Internal(format!("flame graph: {error}")))?;
    Ok(svg)
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
