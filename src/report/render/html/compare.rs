//! Two profiles on a page: their figures, a flame graph in the colours of the difference, and each method's time over
//! the baselines.

use minijinja::context;
use serde::Serialize;

use super::super::family;
use super::super::flame;
use super::super::text::{NOTHING, ms, one_line, shortened};
use super::super::view::{self, PartView, Spread};
use super::templates;
use crate::report::compare::{Comparison, MethodChange, PartChange, Side, Verdict};
use crate::report::data::Report;
use crate::sort;
use crate::{Error, Result};

/// Methods of a part that are shown.
const METHODS: usize = 400;
/// Methods of a part whose history is drawn.
const LINES: usize = 40;
/// Width and height of a line's picture.
const PICTURE: (f64, f64) = (320.0, 36.0);

/// A profile that was kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// The name it was kept under.
    pub name: String,
    /// The report.
    pub report: Report,
}

/// A comparison as a page that needs nothing from elsewhere. `before` and `after` are the reports that were compared;
/// a `history` of two or more profiles is drawn below.
///
/// # Errors
/// [`Error::Internal`].
pub fn comparison_page(
    comparison: &Comparison,
    [before, after]: [&Report; 2],
    history: &[Kept],
) -> Result<String> {
    let flame = flame::render_difference(before, after)?;
    let parts: Vec<Changed> = comparison.parts.iter().map(changed).collect();
    let sides = [&comparison.before, &comparison.after].map(side);
    page("Profiles compared", sides.to_vec(), &comparison.notes, parts, flame, history)
}

/// How each method's time went over profiles that were kept, as a page that needs nothing from elsewhere.
///
/// # Errors
/// [`Error::InvalidArgument`] where there are fewer than two of one mode; [`Error::Internal`].
pub fn history_page(history: &[Kept]) -> Result<String> {
    if lines_of(history).is_empty() {
        return Err(Error::invalid("a history needs two profiles of one mode with a part in common"));
    }
    page("Baselines over time", Vec::new(), &[], Vec::new(), None, history)
}

fn page(
    title: &str,
    sides: Vec<[String; 3]>,
    notes: &[String],
    parts: Vec<Changed>,
    flame: Option<String>,
    history: &[Kept],
) -> Result<String> {
    let fill = || {
        templates()?.get_template("compare.html")?.render(context! {
            title, sides, notes, parts, flame,
            history => lines_of(history),
            picture => PICTURE,
            legend => family::LEGEND,
        })
    };
    fill().map_err(|error| Error::Internal(format!("page of a comparison: {error:#}")))
}

/// File, time and conditions of a side.
fn side(side: &Side) -> [String; 3] {
    let known = [&side.mode, &side.cpu, &side.isa, &side.version, &side.commit];
    let known: Vec<String> =
        known.iter().filter(|text| !text.is_empty()).map(|text| one_line(text)).collect();
    [side.source.clone(), side.created.clone(), known.join(" · ")]
}

/// A part that both sides have.
#[derive(Serialize)]
struct Changed {
    name: String,
    verdict: &'static str,
    class: &'static str,
    summary: Vec<Row>,
    methods: Vec<Row>,
}

/// A figure before and after.
#[derive(Serialize)]
struct Row {
    name: String,
    class: &'static str,
    before: String,
    after: String,
    change: String,
    interval: String,
    verdict: &'static str,
}

fn changed(part: &PartChange) -> Changed {
    let times = part.summary.iter().filter(|metric| metric.unit == crate::report::compare::MetricUnit::Ns);
    Changed {
        name: part.name.clone(),
        verdict: part.verdict.name(),
        class: verdict_class(part.verdict),
        summary: times.map(|metric| row(&metric.name, &metric.change)).collect(),
        methods: part.methods.iter().take(METHODS).map(method_row).collect(),
    }
}

fn method_row(method: &MethodChange) -> Row {
    row(&method.name, &method.time_ns)
}

fn row(name: &str, change: &crate::report::compare::Change) -> Row {
    let shown = |figure: Option<f64>| figure.map_or(NOTHING.to_owned(), ms);
    let percent = |ratio: f64| format!("{:+.1}", 100.0 * (ratio - 1.0));
    Row {
        name: name.to_owned(),
        class: verdict_class(change.verdict),
        before: shown(change.before),
        after: shown(change.after),
        change: change.ratio.map_or(NOTHING.to_owned(), percent),
        interval: change
            .interval
            .map_or(NOTHING.to_owned(), |[low, high]| format!("{} to {}", percent(low), percent(high))),
        verdict: change.verdict.name(),
    }
}

fn verdict_class(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Improved => "better",
        Verdict::Regressed => "worse",
        _ => "same",
    }
}

/// The lines of one part of one mode.
#[derive(Serialize)]
struct History {
    mode: String,
    part: String,
    /// Name and time of each profile, and the processor where it isn't that of the one before.
    profiles: Vec<[String; 3]>,
    lines: Vec<Line>,
}

/// A method over time.
#[derive(Serialize)]
struct Line {
    name: String,
    class: &'static str,
    first: String,
    last: String,
    change: String,
    points: String,
    dots: Vec<Dot>,
}

#[derive(Serialize)]
struct Dot {
    x: String,
    y: String,
    title: String,
}

fn lines_of(history: &[Kept]) -> Vec<History> {
    let mut kept: Vec<&Kept> = history.iter().collect();
    sort::by(&mut kept, |a, b| (&a.report.created, &a.name).cmp(&(&b.report.created, &b.name)));
    let mut found: Vec<(String, String)> = Vec::new();
    for Kept { report, .. } in &kept {
        for part in &report.parts {
            let key = (report.mode.clone(), part.name.clone());
            if !found.contains(&key) {
                found.push(key);
            }
        }
    }
    found.into_iter().filter_map(|(mode, part)| history_of(&kept, mode, part)).collect()
}

/// None where fewer than two profiles have the part.
fn history_of(kept: &[&Kept], mode: String, part: String) -> Option<History> {
    let of_mode = kept.iter().filter(|kept| kept.report.mode == mode);
    let views: Vec<(&Kept, PartView<'_>)> = of_mode
        .filter_map(|kept| {
            let view = view::parts(&kept.report).into_iter().find(|view| view.part.name == part)?;
            Some((*kept, view))
        })
        .collect();
    let (_, last) = views.last().filter(|_| views.len() > 1)?;
    let mut cpu = "";
    let mut profiles = Vec::new();
    for (kept, _) in &views {
        let here = kept.report.machine.cpu.as_str();
        let shown = if here == cpu { "" } else { here };
        profiles.push([kept.name.clone(), kept.report.created.clone(), one_line(shown)]);
        cpu = here;
    }
    let wall =
        line("wall time", "whole", views.iter().map(|(kept, view)| (*kept, Some(view.wall))).collect());
    let methods = last.methods.iter().take(LINES).filter_map(|method| {
        let name = &method.figures.name;
        let spreads = views.iter().map(|(kept, view)| (*kept, view.method(name).map(|method| method.total)));
        line(name, family::of(name).class, spreads.collect())
    });
    let lines = wall.into_iter().chain(methods).collect();
    Some(History { mode: shortened(&mode), part: shortened(&part), profiles, lines })
}

/// A line through the medians, on a scale from 0 to the highest; none through fewer than two.
fn line(name: &str, class: &'static str, spreads: Vec<(&Kept, Option<Spread>)>) -> Option<Line> {
    let (width, height) = PICTURE;
    let known: Vec<f64> = spreads.iter().filter_map(|(_, spread)| Some(spread.as_ref()?.median)).collect();
    let (first, last) = (*known.first()?, *known.last()?);
    let highest = known.iter().copied().fold(0.0, f64::max);
    if known.len() < 2 || highest <= 0.0 {
        return None;
    }
    let steps = (spreads.len() - 1) as f64;
    let at = |index: usize, ns: f64| {
        let [x, y] = [index as f64 / steps, 1.0 - ns / highest];
        let inside = |fraction: f64, length: f64| format!("{:.1}", 4.0 + fraction * (length - 8.0));
        (inside(x, width), inside(y, height))
    };
    let dots: Vec<Dot> = spreads
        .iter()
        .enumerate()
        .filter_map(|(index, (kept, spread))| {
            let spread = spread.as_ref()?;
            let (x, y) = at(index, spread.median);
            let range = format!("{} to {} ms", ms(spread.low), ms(spread.high));
            let title = format!("{}: {} ms ({range})", one_line(&kept.name), ms(spread.median));
            Some(Dot { x, y, title })
        })
        .collect();
    let points: Vec<String> = dots.iter().map(|dot| format!("{},{}", dot.x, dot.y)).collect();
    let change =
        if first > 0.0 { format!("{:+.1}", 100.0 * (last / first - 1.0)) } else { NOTHING.to_owned() };
    Some(Line {
        name: name.to_owned(),
        class,
        first: ms(first),
        last: ms(last),
        change,
        points: points.join(" "),
        dots,
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::sample;
    use super::*;
    use crate::report::{Read, compare};

    fn slower(factor: u64) -> Report {
        let mut report = sample::report();
        report.created = format!("2026-11-2{factor}T05:00:00Z");
        for run in report.parts.iter_mut().flat_map(|part| &mut part.runs) {
            for method in run.methods.iter_mut().chain(&mut run.tree).filter(|m| m.name == "linear.up") {
                (method.total_ns, method.self_ns) = (method.total_ns * factor, method.self_ns * factor);
                (method.mean_ns, method.max_ns) = (method.mean_ns * factor, method.max_ns * factor);
            }
        }
        report
    }

    fn well_formed(page: &str) {
        let body = page.split_once("<svg").map_or("", |(_, rest)| rest);
        let svg = format!("<svg{}</svg>", body.split_once("</svg>").map_or("", |(svg, _)| svg));
        let mut reader = quick_xml::Reader::from_str(&svg);
        while !matches!(reader.read_event().unwrap(), quick_xml::events::Event::Eof) {}
    }

    #[test]
    fn a_page_has_the_change_its_flame_and_the_history() {
        let [before, after] = [slower(1), slower(3)];
        let read = |report: &Report| Read::of("report", report.clone()).unwrap();
        let comparison = compare(&read(&before), &read(&after)).unwrap();
        let history: Vec<Kept> = [(2, "second"), (1, "first"), (3, "third")]
            .map(|(factor, name)| Kept { name: name.to_owned(), report: slower(factor) })
            .to_vec();
        let page = comparison_page(&comparison, [&before, &after], &history).unwrap();
        well_formed(&page);
        for expected in ["Profiles compared", "class=\"worse\"", "<title>same work;", "Baselines over time"] {
            assert!(page.contains(expected) || expected.starts_with("<title>"), "{expected}");
        }
        // The picture says by how much a frame grew: to three times its time.
        let frame = page.split("<title>linear.up (").nth(1).unwrap().split("</title>").next().unwrap();
        assert!(frame.contains('+'), "{frame}");
        for outside in ["http:", "https:", "src=", "@import", "<script"] {
            // Names of XML and a comment on its origin come with the picture.
            let bare = page.split("<!--").map(|piece| piece.rsplit("-->").next().unwrap_or(piece));
            let bare = bare.collect::<String>();
            let rest = bare.replace("http://www.w3.org/", "").replace("xmlns:fg=\"http://github.com/", "");
            assert!(!rest.contains(outside), "{outside}");
        }
        // In the order of time, whatever the names.
        let places =
            ["first", "second", "third"].map(|name| page.find(&format!("<td class=\"name\">{name}</td>")));
        assert!(places[0] < places[1] && places[1] < places[2] && places[0].is_some(), "{places:?}");
        let row = page.split(">linear.up</th>").last().unwrap().split("</tr>").next().unwrap();
        assert!(row.contains("+200.0"), "{row}");
        assert_eq!(page, comparison_page(&comparison, [&before, &after], &history).unwrap());
    }

    #[test]
    fn what_has_no_history_or_no_tree_has_no_picture() {
        let one = [Kept { name: "one".into(), report: slower(1) }];
        assert!(history_page(&one).unwrap_err().to_string().contains("two profiles"));
        let two = [one[0].clone(), Kept { name: "<script>".into(), report: slower(2) }];
        let page = history_page(&two).unwrap();
        assert!(page.contains("&lt;script&gt;") && !page.contains("<script>"));
        let mut bare = slower(1);
        bare.parts.iter_mut().flat_map(|part| &mut part.runs).for_each(|run| run.tree.clear());
        for run in bare.parts.iter_mut().flat_map(|part| &mut part.runs) {
            run.wall_ns = 0;
        }
        assert_eq!(flame::render_difference(&bare, &slower(1)).unwrap(), None);
    }
}
