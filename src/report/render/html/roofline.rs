//! The roofline: each op a dot at its operations a byte and operations a second, below what the memory and the
//! arithmetic of the machine allow. Both axes are logarithmic; a dot's area is its time.

use serde::Serialize;

use super::super::family;
use super::super::ops::Op;
use super::super::text::{duration, percent, short};
use super::super::view::PartView;
use super::tooltip;
use crate::report::data::{Limits, MemoryLevel};

/// Dots drawn: the ops that took most time.
const MOST_DOTS: usize = 60;

/// Sizes of a drawing, in its own units.
pub(super) struct Size {
    pub class: &'static str,
    pub width: f64,
    pub height: f64,
    /// Radius of the op that took most time.
    pub largest: f64,
    /// Dots with a name beside them.
    pub names: usize,
    /// Characters of such a name.
    pub letters: usize,
}

/// One drawing for wide windows and one for narrow ones: text must not shrink with the window.
pub(super) const SIZES: [Size; 2] = [
    Size { class: "wide", width: 1080.0, height: 480.0, largest: 20.0, names: 14, letters: 34 },
    Size { class: "narrow", width: 360.0, height: 380.0, largest: 13.0, names: 7, letters: 18 },
];

const MARGIN: [f64; 4] = [18.0, 14.0, 40.0, 46.0];
/// Height of a line of text, and width of a letter.
const LINE: f64 = 13.0;
const LETTER: f64 = 6.3;
/// From a slope to the middle of the letters above it.
const ABOVE: f64 = 9.0;

/// The picture.
#[derive(Serialize)]
pub(in super::super) struct Roofline {
    class: &'static str,
    width: f64,
    height: f64,
    frame: Frame,
    across: Vec<Mark>,
    upwards: Vec<Mark>,
    roofs: Vec<Roof>,
    dots: Vec<Dot>,
}

#[derive(Clone, Copy, Serialize)]
struct Frame {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

#[derive(Serialize)]
struct Mark {
    at: String,
    label: String,
}

#[derive(Serialize)]
struct Roof {
    points: String,
    label: String,
    x: String,
    y: String,
    turn: String,
    anchor: &'static str,
}

#[derive(Serialize)]
struct Dot {
    x: String,
    y: String,
    r: String,
    class: &'static str,
    title: String,
    label: Option<Label>,
}

#[derive(Serialize)]
struct Label {
    text: String,
    x: String,
    y: String,
    anchor: &'static str,
}

/// None where no op declared both operations and bytes.
pub(super) fn of(
    part: &PartView<'_>,
    ops: &[Op<'_>],
    limits: Option<&Limits>,
    size: &Size,
) -> Option<Roofline> {
    let ops: Vec<(&Op<'_>, f64)> = ops
        .iter()
        .filter(|op| op.node.flops > 0)
        .filter_map(|op| Some((op, op.node.intensity()?)))
        .take(MOST_DOTS)
        .collect();
    let axes = Axes::new(&ops, limits, size)?;
    let mut taken = Boxes::default();
    let places = places(&ops, &axes, size);
    places.iter().for_each(|[x, y, r]| taken.add(x - r, y - r, x + r, y + r));
    let roofs = limits.map_or(Vec::new(), |limits| roofs(limits, &axes, &mut taken));
    let dots = dots(part, &ops, &places, &axes, size, &mut taken);
    Some(Roofline {
        class: size.class,
        width: size.width,
        height: size.height,
        frame: axes.frame,
        across: axes.marks(axes.x, size.width < 600.0, |value| axes.at_x(value)),
        upwards: axes.marks(axes.y, false, |value| axes.at_y(value)),
        roofs,
        dots,
    })
}

fn number(value: f64) -> String {
    format!("{value:.1}")
}

/// Ranges as powers of ten, and where they lie.
struct Axes {
    x: [f64; 2],
    y: [f64; 2],
    frame: Frame,
}

impl Axes {
    fn new(ops: &[(&Op<'_>, f64)], limits: Option<&Limits>, size: &Size) -> Option<Axes> {
        let peak = limits.map(|limits| limits.fma_gflops).filter(|&peak| peak > 0.0);
        let ridges = limits.into_iter().flat_map(|limits| &limits.levels).filter(|level| level.gbps > 0.0);
        let ridges = ridges.filter_map(|level| peak.map(|peak| peak / level.gbps));
        let x = range(ops.iter().map(|(_, intensity)| *intensity).chain(ridges), 0.35)?;
        let y = range(ops.iter().map(|(op, _)| op.node.gflops()).chain(peak), 0.3)?;
        // At least two powers of ten upwards, or the slopes look like walls.
        let y = [y[0].min(y[1] - 2.0), y[1]];
        let [top, right, bottom, left] = MARGIN;
        let frame = Frame { left, right: size.width - right, top, bottom: size.height - bottom };
        Some(Axes { x, y, frame })
    }

    fn at_x(&self, value: f64) -> f64 {
        let part = (value.log10() - self.x[0]) / (self.x[1] - self.x[0]);
        self.frame.left + part.clamp(0.0, 1.0) * (self.frame.right - self.frame.left)
    }

    fn at_y(&self, value: f64) -> f64 {
        let part = (value.log10() - self.y[0]) / (self.y[1] - self.y[0]);
        self.frame.bottom - part.clamp(0.0, 1.0) * (self.frame.bottom - self.frame.top)
    }

    /// Marks at powers of ten, between them at 2 and 5 where there is room.
    fn marks(&self, range: [f64; 2], narrow: bool, at: impl Fn(f64) -> f64) -> Vec<Mark> {
        let decades = range[1] - range[0];
        let steps: &[f64] = if decades > 3.2 || narrow && decades > 1.8 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let powers = range[0].floor() as i32..=range[1].ceil() as i32;
        let values = powers.flat_map(|power| steps.iter().map(move |step| step * 10f64.powi(power)));
        let inside = values.filter(|value| (range[0]..=range[1]).contains(&value.log10()));
        inside.map(|value| Mark { at: number(at(value)), label: plain(value) }).collect()
    }
}

/// A round number without needless zeros.
fn plain(value: f64) -> String {
    let digits = (-value.log10().floor()).clamp(0.0, 12.0) as usize;
    format!("{value:.digits$}")
}

/// The powers of ten that hold all values, with a margin; none where there are no values.
fn range(values: impl Iterator<Item = f64>, margin: f64) -> Option<[f64; 2]> {
    let powers: Vec<f64> = values.filter(|value| *value > 0.0).map(f64::log10).collect();
    let low = powers.iter().copied().reduce(f64::min)?;
    let high = powers.iter().copied().reduce(f64::max)?;
    Some([low - margin, high + margin])
}

fn roofs(limits: &Limits, axes: &Axes, taken: &mut Boxes) -> Vec<Roof> {
    let usable: Vec<&MemoryLevel> = limits.levels.iter().filter(|level| level.gbps > 0.0).collect();
    let frame = axes.frame;
    if limits.fma_gflops <= 0.0 {
        return Vec::new();
    }
    let mut roofs: Vec<Roof> = Vec::new();
    let flat = axes.at_y(limits.fma_gflops);
    let first_ridge = usable.iter().map(|level| limits.fma_gflops / level.gbps).reduce(f64::min);
    let from = first_ridge.map_or(frame.left, |ridge| axes.at_x(ridge));
    let label = format!("{} GFLOPS", short(limits.fma_gflops));
    taken.add(frame.right - label.len() as f64 * LETTER, flat - 5.0 - LINE, frame.right, flat - 2.0);
    taken.add(from, flat - 2.0, frame.right, flat + 2.0);
    roofs.push(Roof {
        points: format!("{},{} {},{}", number(from), number(flat), number(frame.right), number(flat)),
        label,
        x: number(frame.right),
        y: number(flat - 6.0),
        turn: "0".to_string(),
        anchor: "end",
    });
    let across = (frame.right - frame.left) / (axes.x[1] - axes.x[0]);
    let up = (frame.bottom - frame.top) / (axes.y[1] - axes.y[0]);
    let turn = -up.atan2(across).to_degrees();
    for level in usable {
        let from = 10f64.powf(axes.x[0]).max(10f64.powf(axes.y[0]) / level.gbps);
        let ridge = limits.fma_gflops / level.gbps;
        if ridge <= from {
            continue;
        }
        let start = [axes.at_x(from), axes.at_y(from * level.gbps)];
        let end = [axes.at_x(ridge), flat];
        // The name alone where there is no room for the speed.
        let names = [format!("{} {} GB/s", level.name, short(level.gbps)), level.name.clone()];
        let fits = |name: String| Some((along_slope(start, end, name.chars().count(), taken)?, name));
        let (place, label) = names.into_iter().find_map(fits).unwrap_or_default();
        roofs.push(Roof {
            points: format!(
                "{},{} {},{}",
                number(start[0]),
                number(start[1]),
                number(end[0]),
                number(end[1])
            ),
            label,
            x: number(place[0]),
            y: number(place[1] - 5.0),
            turn: number(turn),
            anchor: "start",
        });
    }
    roofs
}

/// Where along a slope a name of so many letters hides nothing; its letters are then taken.
fn along_slope(start: [f64; 2], end: [f64; 2], letters: usize, taken: &mut Boxes) -> Option<[f64; 2]> {
    let (dx, dy) = (end[0] - start[0], end[1] - start[1]);
    let length = dx.hypot(dy);
    let name = letters as f64 * LETTER;
    let boxes = |begin: f64| {
        (0..=letters).map(move |letter| {
            let along = (begin + letter as f64 * LETTER) / length;
            // Letters stand upright on the slope: their middles lie off it, at a right angle.
            let x = start[0] + along * dx + ABOVE * dy / length;
            let y = start[1] + along * dy - ABOVE * dx / length;
            [x - ABOVE / 2.0, y - ABOVE / 2.0, x + ABOVE / 2.0, y + ABOVE / 2.0]
        })
    };
    let mut begin = 8.0;
    while begin + name < length {
        if boxes(begin).all(|space| taken.free(space)) {
            boxes(begin).for_each(|[left, top, right, bottom]| taken.add(left, top, right, bottom));
            return Some([start[0] + begin / length * dx, start[1] + begin / length * dy]);
        }
        begin += LINE;
    }
    None
}

/// What is drawn already.
#[derive(Default)]
struct Boxes {
    taken: Vec<[f64; 4]>,
}

impl Boxes {
    fn add(&mut self, left: f64, top: f64, right: f64, bottom: f64) {
        self.taken.push([left, top, right, bottom]);
    }

    fn free(&self, [left, top, right, bottom]: [f64; 4]) -> bool {
        self.taken.iter().all(|&[l, t, r, b]| right <= l || r <= left || bottom <= t || b <= top)
    }
}

/// Middle and radius of each op's dot.
fn places(ops: &[(&Op<'_>, f64)], axes: &Axes, size: &Size) -> Vec<[f64; 3]> {
    let longest = ops.iter().map(|(op, _)| op.node.total_ns).max().unwrap_or(1).max(1) as f64;
    let place = |&(op, intensity): &(&Op<'_>, f64)| {
        let radius = size.largest * (op.node.total_ns as f64 / longest).sqrt();
        [axes.at_x(intensity), axes.at_y(op.node.gflops()), radius.max(3.0)]
    };
    ops.iter().map(place).collect()
}

fn dots(
    part: &PartView<'_>,
    ops: &[(&Op<'_>, f64)],
    places: &[[f64; 3]],
    axes: &Axes,
    size: &Size,
    taken: &mut Boxes,
) -> Vec<Dot> {
    let mut named = 0;
    let dot = |((op, _), &place): (&(&Op<'_>, f64), &[f64; 3])| {
        let label = if named < size.names { label(&op.label, place, axes, size, taken) } else { None };
        named += usize::from(label.is_some());
        let [x, y, r] = place.map(number);
        Dot { x, y, r, class: family::of(&op.node.name).class, title: title(part, op), label }
    };
    ops.iter().zip(places).map(dot).collect()
}

/// A name beside a dot: right, left, above or below, where nothing else stands.
fn label(name: &str, [x, y, r]: [f64; 3], axes: &Axes, size: &Size, taken: &mut Boxes) -> Option<Label> {
    let mut text: String = name.chars().take(size.letters).collect();
    if text.len() < name.len() {
        text.push('…');
    }
    let width = text.chars().count() as f64 * LETTER;
    let tries = [
        (x + r + 4.0, y + 4.0, "start"),
        (x - r - 4.0, y + 4.0, "end"),
        (x, y - r - 4.0, "middle"),
        (x, y + r + LINE, "middle"),
    ];
    for (at_x, at_y, anchor) in tries {
        let left = match anchor {
            "start" => at_x,
            "end" => at_x - width,
            _ => at_x - width / 2.0,
        };
        let space = [left, at_y - LINE + 2.0, left + width, at_y + 3.0];
        let frame = axes.frame;
        let inside = space[0] >= frame.left && space[2] <= frame.right && space[1] >= frame.top;
        if inside && space[3] <= frame.bottom && taken.free(space) {
            taken.add(space[0], space[1], space[2], space[3]);
            return Some(Label { text, x: number(at_x), y: number(at_y), anchor });
        }
    }
    None
}

fn title(part: &PartView<'_>, op: &Op<'_>) -> String {
    let mut facts = vec![
        ("where", part.tree.path(op.place).join(" › ")),
        ("time", duration(op.node.total_ns as f64)),
        ("GFLOPS", short(op.node.gflops())),
        ("GB/s", short(op.node.gbps())),
        ("operations a byte", op.node.intensity().map_or(String::new(), short)),
    ];
    if let Some(roof) = &op.roof {
        facts.push(("of what is possible", format!("{} % ({})", percent(roof.share), roof.name)));
    }
    tooltip(&op.label, &facts)
}

#[cfg(test)]
mod tests {
    use super::super::super::{ops, sample, view};
    use super::*;

    #[test]
    fn dots_lie_below_their_roofs_and_names_apart() {
        let report = sample::report();
        let parts = view::parts(&report);
        let ops = ops::of(&parts[0], &report.machine);
        for size in &SIZES {
            let plot = of(&parts[0], &ops, report.machine.limits.as_ref(), size).unwrap();
            let value = |text: &str| text.parse::<f64>().unwrap();
            let peak = value(plot.roofs[0].points.split([',', ' ']).nth(1).unwrap());
            assert!(plot.dots.iter().all(|dot| value(&dot.y) >= peak));
            assert_eq!(plot.roofs.len(), 5);
            let labels: Vec<&Label> = plot.dots.iter().filter_map(|dot| dot.label.as_ref()).collect();
            assert!(labels.len() >= 4, "{}", labels.len());
            let largest = plot.dots.iter().map(|dot| value(&dot.r)).fold(0.0, f64::max);
            assert_eq!(largest, size.largest);
        }
    }

    #[test]
    fn round_numbers_have_no_needless_zeros() {
        assert_eq!([0.01, 0.5, 1.0, 20.0, 1e6].map(plain), ["0.01", "0.5", "1", "20", "1000000"]);
    }
}
