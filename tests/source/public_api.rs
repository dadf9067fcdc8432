//! The library's public items, as a committed list: a change of the API shows as a change of `docs/public-api.txt`.
//! `SMALLMIND_UPDATE_API=1 cargo test --test source` writes the list anew. It is read from the source, without the
//! compiler, with all features; the C functions have a list of their own, the header.

mod tree;

use std::collections::{BTreeMap, BTreeSet};

use quote::{ToTokens, quote};
use syn::{Attribute, Fields, ImplItem, Item, Signature, TraitItem, Visibility};

use super::{path, read};
use tree::{Crate, Path, Target};

/// The list, and what the list is checked for.
#[derive(Default)]
struct Api {
    lines: BTreeSet<String>,
    /// Public types by the path of their definition.
    types: BTreeMap<Path, String>,
    /// Public types that implement `Debug`.
    debug: BTreeSet<Path>,
}

/// Tokens as people write them.
fn text(tokens: &impl ToTokens) -> String {
    let mut text = tokens.to_token_stream().to_string();
    for (from, to) in [
        (" :: ", "::"),
        (" < ", "<"),
        ("< ", "<"),
        (" > ", "> "),
        (" >", ">"),
        (" , ", ", "),
        (" ,", ","),
        (" ;", ";"),
        (" : ", ": "),
        ("& ", "&"),
        ("( ", "("),
        (" (", "("),
        (" )", ")"),
        ("[ ", "["),
        (" ]", "]"),
        (" ?", "?"),
        ("* const", "*const"),
        ("* mut", "*mut"),
        (":: <", "::<"),
        ("> (", ">("),
        ("- >", "->"),
        (",)", ")"),
        ("..= ", "..="),
    ] {
        text = text.replace(from, to);
    }
    text.replace("->", " -> ").replace("  ", " ")
}

fn signature(signature: &Signature) -> String {
    text(signature)
}

/// Whether an attribute says so in its list: `#[doc(hidden)]`, `#[derive(Debug)]`.
fn says(attributes: &[Attribute], name: &str, word: &str) -> bool {
    attributes.iter().filter(|attribute| attribute.path().is_ident(name)).any(|attribute| {
        let tokens = attribute.meta.to_token_stream().to_string();
        tokens.split(|c: char| !c.is_alphanumeric() && c != '_').skip(1).any(|found| found == word)
    })
}

fn hidden(attributes: &[Attribute]) -> bool {
    says(attributes, "doc", "hidden")
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

/// ` (non_exhaustive)` where it is.
fn open(attributes: &[Attribute]) -> &'static str {
    let open = attributes.iter().any(|attribute| attribute.path().is_ident("non_exhaustive"));
    if open { " (non_exhaustive)" } else { "" }
}

impl Api {
    fn of(source: &Crate) -> Api {
        let mut api = Api::default();
        api.module(source, &Vec::new(), "smallmind");
        api.implementations(source);
        api
    }

    fn line(&mut self, line: String) {
        self.lines.insert(line);
    }

    /// All items that the module at `at` makes public, under the name `public`.
    fn module(&mut self, source: &Crate, at: &Path, public: &str) {
        for item in source.items(at) {
            match item {
                Item::Mod(module) if is_public(&module.vis) && !hidden(&module.attrs) => {
                    let name = module.ident.to_string();
                    // The C ABI's list is the header.
                    if public == "smallmind" && name == "ffi" {
                        continue;
                    }
                    let inner = [at.as_slice(), std::slice::from_ref(&name)].concat();
                    self.module(source, &inner, &format!("{public}::{name}"));
                }
                Item::Use(used) if is_public(&used.vis) && !hidden(&used.attrs) => {
                    for (name, target) in source.reexports(at, &used.tree) {
                        self.reexport(source, &format!("{public}::{name}"), target);
                    }
                }
                item => self.item(at, item, &format!("{public}::{}", tree::name(item).unwrap_or_default())),
            }
        }
    }

    fn reexport(&mut self, source: &Crate, public: &str, target: Target) {
        match target {
            Target::Module(at) => self.module(source, &at, public),
            Target::Items(at, items) => {
                for item in items {
                    self.item(&at, item, public);
                }
            }
            Target::Foreign(path) => self.line(format!("pub use {path} as {public}")),
        }
    }

    /// One public item of the module at `at`.
    fn item(&mut self, at: &Path, item: &Item, public: &str) {
        let Some(name) = tree::name(item) else { return };
        let defined = [at.as_slice(), &[name]].concat();
        match item {
            Item::Struct(x) if is_public(&x.vis) && !hidden(&x.attrs) => {
                self.line(format!("pub struct {public}{}{}", text(&x.generics), open(&x.attrs)));
                self.fields(public, &x.fields);
                self.public_type(defined, public, &x.attrs);
            }
            Item::Enum(x) if is_public(&x.vis) && !hidden(&x.attrs) => {
                self.line(format!("pub enum {public}{}{}", text(&x.generics), open(&x.attrs)));
                for variant in &x.variants {
                    let fields = &variant.fields;
                    self.line(format!("{public}::{}{}", variant.ident, text(fields).replace("{ ", " { ")));
                }
                self.public_type(defined, public, &x.attrs);
            }
            Item::Trait(x) if is_public(&x.vis) && !hidden(&x.attrs) => {
                let (generics, supertraits) = (&x.generics, &x.supertraits);
                self.line(format!("pub trait {public}{}: {}", text(generics), text(supertraits)));
                for item in &x.items {
                    match item {
                        TraitItem::Fn(f) => self.line(format!("{public}::{}", signature(&f.sig))),
                        TraitItem::Const(c) => self.line(format!("{public}::{}: {}", c.ident, text(&c.ty))),
                        TraitItem::Type(t) => self.line(format!("{public}::{}", t.ident)),
                        _ => {}
                    }
                }
            }
            Item::Fn(x) if is_public(&x.vis) && !hidden(&x.attrs) => {
                self.line(format!("pub {public}: {}", signature(&x.sig)));
            }
            Item::Const(x) if is_public(&x.vis) && !hidden(&x.attrs) => {
                self.line(format!("pub const {public}: {}", text(&x.ty)));
            }
            Item::Static(x) if is_public(&x.vis) && !hidden(&x.attrs) => {
                self.line(format!("pub static {public}: {}", text(&x.ty)));
            }
            Item::Type(x) if is_public(&x.vis) && !hidden(&x.attrs) => {
                self.line(format!("pub type {public}{} = {}", text(&x.generics), text(&x.ty)));
            }
            _ => {}
        }
    }

    fn fields(&mut self, public: &str, fields: &Fields) {
        for (i, field) in fields.iter().enumerate().filter(|(_, field)| is_public(&field.vis)) {
            let name = field.ident.as_ref().map_or(i.to_string(), ToString::to_string);
            self.line(format!("{public}.{name}: {}", text(&field.ty)));
        }
    }

    fn public_type(&mut self, defined: Path, public: &str, attributes: &[Attribute]) {
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("derive")) {
            let derived = attribute.meta.to_token_stream().to_string();
            let (_, list) = derived.split_once('(').unwrap_or_default();
            for name in list.trim_end_matches(')').split(',').map(str::trim).filter(|name| !name.is_empty()) {
                self.line(format!("impl {} for {public}", name.replace(' ', "")));
            }
        }
        if says(attributes, "derive", "Debug") {
            self.debug.insert(defined.clone());
        }
        self.types.entry(defined).or_insert_with(|| public.to_owned());
    }

    /// Methods, and traits, of public types, wherever in the crate they are implemented.
    fn implementations(&mut self, source: &Crate) {
        for (at, item) in source.all() {
            let Item::Impl(block) = item else { continue };
            let Some(defined) = source.self_type(at, &block.self_ty) else { continue };
            let Some(public) = self.types.get(&defined).cloned() else { continue };
            if let Some((_, name, _)) = &block.trait_ {
                if name.segments.last().is_some_and(|last| last.ident == "Debug") {
                    self.debug.insert(defined);
                }
                self.line(format!("impl {} for {public}", text(name)));
                continue;
            }
            for item in &block.items {
                match item {
                    ImplItem::Fn(f) if is_public(&f.vis) && !hidden(&f.attrs) => {
                        self.line(format!("{public}::{}", signature(&f.sig)));
                    }
                    ImplItem::Const(c) if is_public(&c.vis) && !hidden(&c.attrs) => {
                        self.line(format!("{public}::{}: {}", c.ident, text(&c.ty)));
                    }
                    _ => {}
                }
            }
        }
    }
}

#[test]
fn the_public_items_are_those_of_the_list() {
    let api = Api::of(&Crate::read(&path("src/lib.rs")));
    let now: String = api.lines.iter().map(|line| format!("{line}\n")).collect();
    assert!(api.lines.len() > 300, "{} public items", api.lines.len());
    let file = path("docs/public-api.txt");
    if std::env::var_os("SMALLMIND_UPDATE_API").is_some() {
        return std::fs::write(file, now).unwrap();
    }
    let listed = read(&file);
    let (old, new): (BTreeSet<_>, BTreeSet<_>) = (listed.lines().collect(), now.lines().collect());
    let gone = old.difference(&new).map(|line| format!("- {line}\n"));
    let come = new.difference(&old).map(|line| format!("+ {line}\n"));
    let changes: String = gone.chain(come).collect();
    assert!(changes.is_empty(), "SMALLMIND_UPDATE_API=1 cargo test --test source takes these in:\n{changes}");
}

#[test]
fn every_public_type_can_be_printed() {
    let api = Api::of(&Crate::read(&path("src/lib.rs")));
    let silent: Vec<_> =
        api.types.iter().filter(|(at, _)| !api.debug.contains(*at)).map(|(_, public)| public).collect();
    assert!(silent.is_empty(), "without Debug: {silent:#?}");
}

/// A small crate: what must be in its list, and what must not.
#[test]
fn items_are_found_through_reexports_and_not_through_private_doors() {
    let source = Crate::inline(quote! {
        mod inner {
            pub struct Shown { pub a: u32, b: u32 }
            pub struct Kept;
            mod deep { use super::Shown; impl Shown { pub fn far(&self) -> u32 { 0 } fn own(&self) {} } }
        }
        pub mod outer {
            pub use super::inner::Shown as Renamed;
            #[doc(hidden)] pub fn hidden() {}
            pub(crate) fn ours() {}
            #[cfg(test)] mod tests { pub fn test() {} }
            #[derive(Clone, Debug)] #[non_exhaustive] pub enum E { A(u8), B { x: i32 } }
        }
        pub use outer::*;
    });
    let api = Api::of(&source);
    let lines: Vec<_> = api.lines.iter().map(String::as_str).collect();
    assert_eq!(
        lines,
        [
            "impl Clone for smallmind::E",
            "impl Clone for smallmind::outer::E",
            "impl Debug for smallmind::E",
            "impl Debug for smallmind::outer::E",
            "pub enum smallmind::E (non_exhaustive)",
            "pub enum smallmind::outer::E (non_exhaustive)",
            "pub struct smallmind::Renamed",
            "pub struct smallmind::outer::Renamed",
            "smallmind::E::A(u8)",
            "smallmind::E::B { x: i32 }",
            "smallmind::Renamed.a: u32",
            "smallmind::outer::E::A(u8)",
            "smallmind::outer::E::B { x: i32 }",
            "smallmind::outer::Renamed.a: u32",
            "smallmind::outer::Renamed::fn far(&self) -> u32",
        ]
    );
}
