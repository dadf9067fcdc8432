//! A report as one page that needs nothing from elsewhere: its pictures, tables, style and script stand in it.
//! Rust works out every place and every number; the template only sets them, and escapes all texts.

pub(in crate::report) mod compare;
mod icicle;
mod roofline;
mod sections;
mod threads;
mod timeline;

use minijinja::{Environment, UndefinedBehavior, Value, context, default_auto_escape_callback, filters};

use super::view;
use super::{counts, family, models, text};
use crate::report::data::Report;
use crate::{Error, Result};

/// The name decides about escaping: values are escaped in templates whose names end in `.html`.
const TEMPLATES: [(&str, &str); 5] = [
    ("page.html", include_str!("page.html")),
    ("part.html", include_str!("part.html")),
    ("compare.html", include_str!("compare.html")),
    ("page.css", include_str!("page.css")),
    ("page.js", include_str!("page.js")),
];

pub(super) fn render(report: &Report) -> Result<String> {
    fill(report).map_err(|error| Error::Internal(format!("report page: {error:#}")))
}

/// All templates. They have the filters and tests that they use and no others: each takes room in the shipped library.
fn templates() -> Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::empty();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(default_auto_escape_callback);
    environment.add_filter("join", filters::join);
    environment.add_filter("length", filters::length);
    environment.add_filter("safe", filters::safe);
    environment.add_test("none", |value: &Value| value.is_none());
    for (name, source) in TEMPLATES {
        environment.add_template(name, source)?;
    }
    Ok(environment)
}

fn fill(report: &Report) -> Result<String, minijinja::Error> {
    let environment = templates()?;
    let parts = view::parts(report);
    let rates = models::rates(report, &parts);
    let sections: Vec<_> = parts.iter().map(|part| sections::part(report, part, &rates)).collect();
    environment.get_template("page.html")?.render(context! {
        report => context! {
            mode => text::shortened(&report.mode),
            created => report.created.replace('T', " ").replace('Z', " UTC"),
        },
        machine => sections::machine(&report.machine),
        specs => sections::specs(report),
        rates => sections::rates(report, &parts, &rates),
        legend => family::LEGEND,
        parts => sections,
        todo => sections::todo(report, &parts, &rates),
        count_heads => counts::HEADS,
        missing => counts::missing(report.counting.as_ref()),
    })
}

/// A place or a length in percent of a picture, without an exponent.
fn place(fraction: f64) -> String {
    format!("{:.3}", 100.0 * fraction.clamp(0.0, 1.0))
}

/// The tooltip of a method: its name, then its figures.
fn tooltip(name: &str, facts: &[(&str, String)]) -> String {
    let mut lines = vec![text::one_line(name)];
    lines.extend(facts.iter().map(|(what, value)| format!("{what}: {value}")));
    lines.join("\n")
}
