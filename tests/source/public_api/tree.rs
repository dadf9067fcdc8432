//! A crate's modules as syntax trees, and where a name in one of them leads.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path as File;

use syn::{Attribute, Item, Type, UseTree};

use crate::parse;

/// A module or an item, as words from the crate's root.
pub type Path = Vec<String>;

/// The modules of a crate, without those for tests.
pub struct Crate {
    modules: BTreeMap<Path, Vec<Item>>,
}

/// Where a re-export leads.
pub enum Target<'a> {
    Module(Path),
    /// Items of one name (a function and a module may share one), and the module that defines them.
    Items(Path, Vec<&'a Item>),
    Foreign(String),
}

/// The name that an item defines.
pub fn name(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(x) => &x.ident,
        Item::Enum(x) => &x.ident,
        Item::Fn(x) => &x.sig.ident,
        Item::Mod(x) => &x.ident,
        Item::Static(x) => &x.ident,
        Item::Struct(x) => &x.ident,
        Item::Trait(x) => &x.ident,
        Item::Type(x) => &x.ident,
        Item::Union(x) => &x.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Ident>().is_ok_and(|condition| condition == "test")
    })
}

impl Crate {
    /// The crate whose root is that file.
    pub fn read(root: &File) -> Crate {
        let mut modules = BTreeMap::new();
        let folder = root.parent().expect("a file in a folder");
        add(&mut modules, Vec::new(), parse(root).items, Some(folder));
        Crate { modules }
    }

    /// A crate of one piece.
    pub fn inline(tokens: proc_macro2::TokenStream) -> Crate {
        let mut modules = BTreeMap::new();
        add(&mut modules, Vec::new(), syn::parse2::<syn::File>(tokens).unwrap().items, None);
        Crate { modules }
    }

    /// A module's items.
    pub fn items(&self, at: &Path) -> impl Iterator<Item = &Item> {
        self.modules.get(at).into_iter().flatten()
    }

    /// All items with their modules.
    pub fn all(&self) -> impl Iterator<Item = (&Path, &Item)> {
        self.modules.iter().flat_map(|(at, items)| items.iter().map(move |item| (at, item)))
    }

    /// The names that a `use` in the module at `at` gives, and where each leads.
    pub fn reexports(&self, at: &Path, tree: &UseTree) -> Vec<(String, Target<'_>)> {
        let mut leaves = Vec::new();
        leaves_of(tree, &mut Vec::new(), &mut leaves);
        let mut found = Vec::new();
        for (words, name) in leaves {
            let Some(absolute) = self.absolute(at, &words) else {
                found.push((name, Target::Foreign(words.join("::"))));
                continue;
            };
            if name != "*" {
                found.push((name, self.target(&absolute)));
                continue;
            }
            for item in self.items(&absolute) {
                if let Some(name) = self::name(item) {
                    let target = [absolute.as_slice(), std::slice::from_ref(&name)].concat();
                    found.push((name, self.target(&target)));
                } else if let Item::Use(used) = item
                    && matches!(used.vis, syn::Visibility::Public(_))
                {
                    found.extend(self.reexports(&absolute, &used.tree));
                }
            }
        }
        found
    }

    /// The type that an `impl` in the module at `at` is for, by the path of its definition.
    pub fn self_type(&self, at: &Path, of: &Type) -> Option<Path> {
        let Type::Path(of) = of else { return None };
        let words: Path = of.path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.definition(at, &words, &mut BTreeSet::new())
    }

    fn target(&self, absolute: &Path) -> Target<'_> {
        if self.modules.contains_key(absolute) {
            return Target::Module(absolute.clone());
        }
        let Some((_, module)) = absolute.split_last() else { return Target::Module(Vec::new()) };
        let defined = self.definition(&module.to_vec(), &absolute[module.len()..], &mut BTreeSet::new());
        let Some(defined) = defined else { return Target::Foreign(absolute.join("::")) };
        let (name, module) = defined.split_last().expect("a name");
        let module = module.to_vec();
        let items = self.items(&module).filter(|item| self::name(item).as_ref() == Some(name)).collect();
        Target::Items(module, items)
    }

    /// The words of a path in the module at `at` as words from the root; `None` if they lead out of the crate.
    fn absolute(&self, at: &Path, words: &[String]) -> Option<Path> {
        let (mut base, mut rest) = (at.clone(), words);
        match rest.first().map(String::as_str) {
            Some("crate") => (base, rest) = (Vec::new(), &rest[1..]),
            Some("self") => rest = &rest[1..],
            Some("super") => {
                while rest.first().is_some_and(|word| word == "super") {
                    base.pop();
                    rest = &rest[1..];
                }
            }
            Some(first) => {
                let own = self.items(at).any(|item| self::name(item).as_deref() == Some(first));
                if !own {
                    return None;
                }
            }
            None => return None,
        }
        Some([base.as_slice(), rest].concat())
    }

    /// Where the item that `words` name in the module at `at` is defined.
    fn definition(&self, at: &Path, words: &[String], seen: &mut BTreeSet<(Path, Path)>) -> Option<Path> {
        if !seen.insert((at.clone(), words.to_vec())) {
            return None;
        }
        let (name, before) = words.split_last()?;
        if !before.is_empty() {
            let module = self.absolute(at, before)?;
            return self.definition(&module, std::slice::from_ref(name), seen);
        }
        if self.items(at).any(|item| self::name(item).as_ref() == Some(name)) {
            return Some([at.as_slice(), std::slice::from_ref(name)].concat());
        }
        for item in self.items(at) {
            let Item::Use(used) = item else { continue };
            let mut leaves = Vec::new();
            leaves_of(&used.tree, &mut Vec::new(), &mut leaves);
            for (mut path, given) in leaves {
                if given == "*" {
                    path.push(name.clone());
                } else if given != *name {
                    continue;
                }
                let Some(absolute) = self.absolute(at, &path) else { continue };
                let Some((name, module)) = absolute.split_last() else { continue };
                if let Some(found) = self.definition(&module.to_vec(), std::slice::from_ref(name), seen) {
                    return Some(found);
                }
            }
        }
        None
    }
}

/// Each leaf of a `use` as the words of its path and the name that it gives; `*` for all names of a module.
fn leaves_of(tree: &UseTree, before: &mut Path, leaves: &mut Vec<(Path, String)>) {
    match tree {
        UseTree::Path(path) => {
            before.push(path.ident.to_string());
            leaves_of(&path.tree, before, leaves);
            before.pop();
        }
        UseTree::Name(name) if name.ident == "self" => {
            leaves.push((before.clone(), before.last().cloned().unwrap_or_default()));
        }
        UseTree::Name(name) => {
            leaves.push(([before.as_slice(), &[name.ident.to_string()]].concat(), name.ident.to_string()));
        }
        UseTree::Rename(name) => {
            leaves.push(([before.as_slice(), &[name.ident.to_string()]].concat(), name.rename.to_string()));
        }
        UseTree::Glob(_) => leaves.push((before.clone(), "*".to_owned())),
        UseTree::Group(group) => {
            for tree in &group.items {
                leaves_of(tree, before, leaves);
            }
        }
    }
}

/// Adds a module and those inside it; `folder` holds the files of those that aren't inline.
fn add(modules: &mut BTreeMap<Path, Vec<Item>>, at: Path, items: Vec<Item>, folder: Option<&File>) {
    for item in &items {
        let Item::Mod(module) = item else { continue };
        if is_test(&module.attrs) {
            continue;
        }
        let name = module.ident.to_string();
        let inner = [at.as_slice(), std::slice::from_ref(&name)].concat();
        let inner_folder = folder.map(|folder| folder.join(&name));
        if let Some((_, content)) = &module.content {
            add(modules, inner, content.clone(), inner_folder.as_deref());
        } else if let Some(folder) = folder {
            let (file, nested) = (folder.join(format!("{name}.rs")), folder.join(&name).join("mod.rs"));
            let file = if file.exists() { file } else { nested };
            add(modules, inner, parse(&file).items, inner_folder.as_deref());
        }
    }
    let kept = items.into_iter().filter(|item| !matches!(item, Item::Mod(module) if is_test(&module.attrs)));
    modules.insert(at, kept.collect());
}
