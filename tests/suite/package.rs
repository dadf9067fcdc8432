//! The shipped library keeps its promises to a linker: an soname, nothing exported but the header's functions,
//! never unloaded, no text relocations, link-time optimisation. Each check is also fed a library that breaks
//! the promise, and must notice.
#![cfg(target_os = "linux")]

use crate::shipped;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use object::elf;
use object::read::archive::ArchiveFile;
use object::read::elf::{Dyn, ElfFile64, FileHeader};
use object::{Endianness, Object, ObjectSymbol};

/// What is wrong with a library; nothing, if it is empty.
type Faults = Vec<String>;

/// The dynamic section of a shared library.
struct Dynamic {
    soname: Option<String>,
    never_unloaded: bool,
    text_relocations: bool,
}

fn dynamic(library: &[u8]) -> Dynamic {
    let header = elf::FileHeader64::<Endianness>::parse(library).expect("an ELF file of 64 bits");
    let endian = header.endian().expect("a byte order");
    let sections = header.sections(endian, library).expect("sections");
    let (entries, strings) =
        sections.dynamic(endian, library).expect("a readable section").expect("a dynamic section");
    let strings = sections.strings(endian, library, strings).expect("its strings");
    let mut dynamic = Dynamic { soname: None, never_unloaded: false, text_relocations: false };
    for entry in entries {
        let value = entry.d_val(endian);
        match entry.d_tag(endian) {
            elf::DT_SONAME => {
                let name = entry.string(endian, strings).expect("the soname");
                dynamic.soname = Some(String::from_utf8_lossy(name).into_owned());
            }
            elf::DT_FLAGS_1 => dynamic.never_unloaded = value & elf::DF_1_NODELETE.0 != 0,
            elf::DT_FLAGS => dynamic.text_relocations |= value & elf::DF_TEXTREL.0 != 0,
            elf::DT_TEXTREL => dynamic.text_relocations = true,
            _ => {}
        }
    }
    dynamic
}

/// Names that the library gives to others.
fn exports(library: &[u8]) -> BTreeSet<String> {
    let file = ElfFile64::<Endianness>::parse(library).expect("an ELF file of 64 bits");
    let defined = file.dynamic_symbols().filter(|s| s.is_definition() && (s.is_global() || s.is_weak()));
    defined.map(|s| s.name().expect("a name").to_owned()).collect()
}

/// Functions that the header declares: an `sm_` name before a parenthesis, outside comments.
fn declared(header: &str) -> BTreeSet<String> {
    let code = header.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()));
    let before = code.filter(|line| !line.starts_with("typedef")).filter_map(|line| line.split_once('('));
    let names = before.filter_map(|(left, _)| left.rsplit([' ', '*']).next());
    names.filter(|name| name.starts_with("sm_")).map(str::to_owned).collect()
}

fn soname_faults(library: &[u8]) -> Faults {
    let expected = format!("libsmallmind.so.{}", env!("CARGO_PKG_VERSION_MAJOR"));
    match dynamic(library).soname {
        Some(name) if name == expected => vec![],
        other => vec![format!("the soname is {other:?}, not {expected}")],
    }
}

fn export_faults(library: &[u8], header: &str) -> Faults {
    let (exported, declared) = (exports(library), declared(header));
    let foreign = exported.difference(&declared).map(|name| format!("{name} is exported, not declared"));
    let missing = declared.difference(&exported).map(|name| format!("{name} is declared, not exported"));
    foreign.chain(missing).collect()
}

fn unload_faults(library: &[u8]) -> Faults {
    if dynamic(library).never_unloaded {
        return vec![];
    }
    vec!["dlclose would unload it: it was linked without -z nodelete".to_owned()]
}

fn relocation_faults(library: &[u8]) -> Faults {
    if dynamic(library).text_relocations {
        return vec!["it has relocations in its code".to_owned()];
    }
    vec![]
}

/// Functions of the header that a static library lacks.
fn archive_faults(archive: &[u8], header: &str) -> Faults {
    let file = ArchiveFile::parse(archive).expect("an archive");
    let names: BTreeSet<String> = file
        .symbols()
        .expect("a readable symbol table")
        .expect("a symbol table")
        .map(|symbol| String::from_utf8_lossy(symbol.expect("a symbol").name()).into_owned())
        .collect();
    let missing = declared(header).into_iter().filter(|name| !names.contains(name));
    missing.map(|name| format!("{name} is declared, not in the archive")).collect()
}

/// Objects of single dependencies in a static library: with link-time optimisation they are all in one.
fn optimisation_faults(archive: &[u8]) -> Faults {
    let file = ArchiveFile::parse(archive).expect("an archive");
    let members = file.members().map(|m| String::from_utf8_lossy(m.expect("a member").name()).into_owned());
    let dependency = |name: &String| {
        ["minijinja-", "rayon-", "rayon_core-", "serde_json-", "tokenizers-"]
            .iter()
            .any(|crate_name| name.starts_with(crate_name))
    };
    members.filter(dependency).map(|name| format!("{name} stands by itself: no LTO")).collect()
}

/// Functions that the tests with bad arguments don't mention.
fn untested(header: &str, tests: &str) -> Faults {
    let calls = |name: &str| tests.contains(&format!("{name}("));
    declared(header).into_iter().filter(|name| !calls(name)).collect()
}

fn header() -> String {
    read_text("include/smallmind.h")
}

fn read_text(path: &str) -> String {
    fs::read_to_string(Path::new(shipped::ROOT).join(path)).expect(path)
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_shared_library_is_as_promised() {
    let library = read(&shipped::library().join("libsmallmind.so"));
    let mut faults = soname_faults(&library);
    faults.extend(export_faults(&library, &header()));
    faults.extend(unload_faults(&library));
    faults.extend(relocation_faults(&library));
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn the_static_library_is_as_promised() {
    let archive = read(&shipped::library().join("libsmallmind.a"));
    let mut faults = archive_faults(&archive, &header());
    faults.extend(optimisation_faults(&archive));
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn every_function_is_tested_with_bad_arguments() {
    let tests = [
        "bad_arguments.c",
        "bad_kernels.c",
        "bad_rows.c",
        "products.c",
        "bf16.c",
        "profile.c",
        "embedder.c",
        "trainer.c",
        "server.c",
        "shift.c",
        "logprobs.c",
    ]
    .map(|name| read_text(&format!("c-tests/{name}")))
    .concat();
    let faults = untested(&header(), &tests);
    assert!(faults.is_empty(), "not in c-tests: {faults:?}");
}

/// A shared library of the planted source, linked with these flags.
fn planted(source: &str, flags: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let (code, library) = (folder.path().join("planted.c"), folder.path().join("planted.so"));
    fs::write(&code, source).expect("written");
    shipped::run(
        shipped::compiler(false).args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&code).args(flags),
    );
    read(&library)
}

#[test]
fn planted_faults_of_shared_libraries_are_noticed() {
    let header = "int sm_one(void);\nint sm_two(int a,\n           int b);\n";
    let good = "int sm_one(void) { return 1; } int sm_two(int a, int b) { return a + b; }";
    let soname = format!("-Wl,-soname,libsmallmind.so.{}", env!("CARGO_PKG_VERSION_MAJOR"));
    let flags = [soname.as_str(), "-Wl,-z,nodelete"];
    let library = planted(good, &flags);
    assert_eq!(soname_faults(&library), Faults::new());
    assert_eq!(unload_faults(&library), Faults::new());
    assert_eq!(relocation_faults(&library), Faults::new());
    assert_eq!(export_faults(&library, header), Faults::new());

    let bare = planted(good, &[]);
    assert_eq!(soname_faults(&bare).len(), 1);
    assert_eq!(unload_faults(&bare).len(), 1);
    assert_eq!(soname_faults(&planted(good, &["-Wl,-soname,libsmallmind.so"])).len(), 1);

    let foreign = planted(&format!("{good} int helper(void) {{ return 0; }}"), &flags);
    assert_eq!(export_faults(&foreign, header), ["helper is exported, not declared"]);
    let weak = planted(&format!("{good} __attribute__((weak)) int soft(void) {{ return 0; }}"), &flags);
    assert_eq!(export_faults(&weak, header), ["soft is exported, not declared"]);
    let missing = planted("int sm_one(void) { return 1; }", &flags);
    assert_eq!(export_faults(&missing, header), ["sm_two is declared, not exported"]);

    let relocated = "int sm_one(void) { return 1; } __asm__(\".text\\n.quad sm_one\\n\");";
    assert_eq!(relocation_faults(&planted(relocated, &["-Wl,-z,notext"])).len(), 1);
}

#[test]
fn planted_faults_of_static_libraries_are_noticed() {
    let folder = tempfile::tempdir().expect("a folder");
    let code = folder.path().join("planted.c");
    fs::write(&code, "int sm_one(void) { return 1; }").expect("written");
    let object = folder.path().join("tokenizers-0123.tokenizers.rcgu.o");
    shipped::run(shipped::compiler(false).arg("-c").arg(&code).arg("-o").arg(&object));
    let archive = folder.path().join("planted.a");
    shipped::run(std::process::Command::new("ar").arg("rcs").arg(&archive).arg(&object));
    let archive = read(&archive);
    assert_eq!(archive_faults(&archive, "int sm_one(void);\n"), Faults::new());
    assert_eq!(archive_faults(&archive, "int sm_two(void);\n"), ["sm_two is declared, not in the archive"]);
    assert_eq!(optimisation_faults(&archive).len(), 1);
}

#[test]
fn an_untested_function_is_noticed() {
    let header = "// sm_none(x) in a comment\nsm_status sm_one(void);\nconst char *sm_two(int32_t x);\n\
                  typedef void (*sm_callback)(void);\n    size_t sm_field(void);\n";
    assert_eq!(declared(header), ["sm_one", "sm_two"].map(str::to_owned).into());
    assert_eq!(untested(header, "sm_one(); sm_two_more();"), ["sm_two"]);
}
