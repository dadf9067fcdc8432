//! No module of the library uses a module that stands above it or beside it. The floors are those of the table in
//! `docs/DESIGN.md`: the test reads them there, so the page can't say anything else.

use std::collections::BTreeMap;
use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

use super::{parse, path, read};

/// Items at the crate's root, which every floor may use.
const ROOT: [&str; 2] = ["Error", "Result"];

/// The floor of each module.
type Floors = BTreeMap<String, usize>;

/// Rows of the table: `| 3 | `kernels/` | … |`. A module is a word in backticks with a slash behind it, or a file.
fn floors(page: &str) -> Floors {
    let mut floors = Floors::new();
    for line in page.lines() {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let Some(floor) = cells.next().and_then(|number| number.parse().ok()) else { continue };
        for word in cells.next().unwrap_or("").split('`').skip(1).step_by(2) {
            floors.insert(word.trim_end_matches('/').trim_end_matches(".rs").to_owned(), floor);
        }
    }
    floors
}

/// The first words behind `crate::` (and behind as many `super::` as lead to the root) in one file.
struct Uses {
    /// How many `super` lead from the file's own module to the crate's root.
    depth: usize,
    /// Modules inside the file around what is visited.
    inner: usize,
    found: Vec<(String, usize)>,
}

impl Uses {
    fn of(file: &syn::File, depth: usize) -> Vec<(String, usize)> {
        let mut uses = Uses { depth, inner: 0, found: Vec::new() };
        uses.visit_file(file);
        uses.found
    }

    fn add(&mut self, name: &syn::Ident) {
        self.found.push((name.to_string(), name.span().start().line));
    }

    /// All first names of a tree that stands at the crate's root.
    fn root_names(&mut self, tree: &syn::UseTree) {
        match tree {
            syn::UseTree::Path(path) => self.add(&path.ident),
            syn::UseTree::Name(name) => self.add(&name.ident),
            syn::UseTree::Rename(name) => self.add(&name.ident),
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.root_names(tree)),
            syn::UseTree::Glob(_) => {}
        }
    }

    /// Macros' arguments aren't parsed: their tokens are searched for `crate :: name`.
    fn tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        for (i, token) in tokens.iter().enumerate() {
            match token {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Ident(ident) if ident == "crate" => {
                    if let Some(TokenTree::Ident(name)) = tokens.get(i + 3) {
                        self.add(name);
                    }
                }
                _ => {}
            }
        }
    }
}

impl<'ast> Visit<'ast> for Uses {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let (mut tree, mut supers) = (&item.tree, 0);
        while let syn::UseTree::Path(path) = tree {
            if path.ident == "super" {
                supers += 1;
                tree = &path.tree;
                if supers == self.depth + self.inner {
                    return self.root_names(tree);
                }
            } else if path.ident == "crate" {
                return self.root_names(&path.tree);
            } else {
                return;
            }
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let mut segments = path.segments.iter();
        if segments.next().is_some_and(|first| first.ident == "crate")
            && let Some(name) = segments.next()
        {
            self.add(&name.ident);
        }
        let supers = path.segments.iter().take_while(|segment| segment.ident == "super").count();
        if supers > 0
            && supers == self.depth + self.inner
            && let Some(name) = path.segments.iter().nth(supers)
        {
            self.add(&name.ident);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.tokens(call.tokens.clone());
        visit::visit_macro(self, call);
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        self.inner += usize::from(module.content.is_some());
        visit::visit_item_mod(self, module);
        self.inner -= usize::from(module.content.is_some());
    }
}

/// The module path of a file below `src`, as words.
fn module_of(file: &Path) -> Vec<String> {
    let mut words: Vec<_> =
        file.with_extension("").iter().map(|word| word.to_string_lossy().into_owned()).collect();
    if words.last().is_some_and(|last| last == "mod") {
        words.pop();
    }
    words
}

/// What is wrong with one file's uses; nothing, if it is empty.
fn faults(floors: &Floors, file: &str, source: &syn::File) -> Vec<String> {
    let module = module_of(Path::new(file));
    let own = &module[0];
    let Some(floor) = floors.get(own) else {
        return vec![format!("{file}: `{own}` stands on no floor of docs/DESIGN.md")];
    };
    let mut faults = Vec::new();
    for (name, line) in Uses::of(source, module.len()) {
        if name == *own || ROOT.contains(&name.as_str()) {
            continue;
        }
        match floors.get(&name) {
            Some(other) if other < floor => {}
            Some(other) => faults.push(format!("{file}:{line}: floor {floor} uses `{name}`, floor {other}")),
            None => faults.push(format!("{file}:{line}: `{name}` stands on no floor of docs/DESIGN.md")),
        }
    }
    faults
}

/// Every Rust file below `src`, by its path from there.
fn files(folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap().path();
        if entry.is_dir() {
            files(&entry, found);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            found.push(entry.strip_prefix(path("src")).unwrap().display().to_string());
        }
    }
}

#[test]
fn no_module_uses_what_stands_above_it() {
    let floors = floors(&read(&path("docs/DESIGN.md")));
    assert!(floors.len() > 12, "docs/DESIGN.md has the table of floors: {floors:?}");
    let mut all = Vec::new();
    files(&path("src"), &mut all);
    all.sort();
    let mut seen = 0;
    let mut found = Vec::new();
    for file in all.iter().filter(|file| *file != "lib.rs") {
        let source = parse(&path("src").join(file));
        found.extend(faults(&floors, file, &source));
        seen += 1;
    }
    assert!(seen > 100, "{seen} files");
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn every_way_of_going_up_is_seen() {
    let floors = floors("| 2 | `kernels/` | |\n| 1 | `isa/`, `error.rs` | |\n");
    let faults = |source: &str| faults(&floors, "isa/deep/mod.rs", &syn::parse_file(source).unwrap()).len();
    for fine in [
        "use crate::isa::x; use crate::{Error, isa::y, Result};",
        "use super::x; fn f() { super::super::isa::g() }",
        "/// [`crate::kernels`]\nfn f() {}",
    ] {
        assert_eq!(faults(fine), 0, "{fine}");
    }
    for wrong in [
        "use crate::kernels::x;",
        "pub use crate::{isa, kernels as k};",
        "fn f() { let x = crate::kernels::x(); }",
        "fn f(x: &crate::kernels::X) {}",
        "fn f() { assert_eq!(crate::kernels::x(), 1); }",
        "use super::super::kernels;",
        "fn f() { super::super::kernels::x() }",
        "mod tests { use super::super::super::kernels::x; }",
        "use crate::error::Error;",
        "use crate::elsewhere::x;",
    ] {
        assert_eq!(faults(wrong), 1, "{wrong}");
    }
}
