//! Reads the machine code of the vector kernels and refuses calls out of them, in the build that tests run on. There, as in
//! a user's own build, nothing inlines a function later that wasn't marked for it: a kernel would call it for each vector,
//! without the level's instructions, at a tenth of the speed. Needs `objdump`, and x86-64.
#![cfg(target_arch = "x86_64")]

use object::{Object, ObjectSymbol, RelocationTarget, SymbolKind};
use smallmind::isa::{Isa, IsaId, SimdBody};
use std::collections::{BTreeSet, HashMap};
use std::process::Command;

/// What kernels may call: the ends of checks, copies of memory, functions of whole calls, not of vectors.
const ALLOWED: [&str; 21] = [
    "panic",
    "precondition_check",
    "unwrap_failed",
    "expect_failed",
    "slice_index_fail",
    "copy_from_slice_impl",
    "index_mut",
    "align_offset",
    "read_unaligned",
    "write_unaligned",
    "is_aligned_to",
    "Unwind_Resume",
    "fmt",
    "memcpy",
    "memset",
    "memmove",
    "drop_in_place",
    // Where a head's keys begin, for each token; the next run of a key's elements.
    "recurrence5delta7columns",
    "iter..adapters..map..Map",
    // Where a span of values' elements begins and ends, for all positions.
    "layout6Layout11value_spans",
    // Has the level's instructions, and loads two vectors.
    "isa..avx512..X512$LT$_$GT$$u20$as$u20$smallmind..isa..Isa$GT$7columns",
];
/// In the name of the planted kernel's function.
const PLANTED: &str = "not_inlined";

/// Calls a function for a vector.
struct Planted;

impl SimdBody for Planted {
    type Output = f32;
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> f32 {
        isa.sum_lanes(not_inlined(isa, isa.splat(std::hint::black_box(1.0))))
    }
}

#[inline(never)]
fn not_inlined<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    isa.add(x, x)
}

/// Functions of this program by their addresses, and what the loader writes at an address, where that is one of them.
struct Program {
    functions: HashMap<u64, String>,
    slots: HashMap<u64, u64>,
}

impl Program {
    fn read() -> Self {
        let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        let functions = file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text);
        let functions =
            functions.map(|symbol| (symbol.address(), symbol.name().unwrap().to_string())).collect();
        let relocations = file.dynamic_relocations().unwrap();
        let slots = relocations
            .filter(|(_, relocation)| relocation.target() == RelocationTarget::Absolute)
            .map(|(at, relocation)| (at, relocation.addend() as u64))
            .collect();
        Self { functions, slots }
    }

    /// The function that an instruction calls, or whose address it loads.
    fn target(&self, instruction: &str) -> Option<&str> {
        let hex = |text: &str| u64::from_str_radix(text.split_whitespace().next()?, 16).ok();
        let address = if let Some((_, slot)) = instruction.split_once("# ") {
            self.slots.get(&hex(slot)?).copied()?
        } else {
            hex(instruction.strip_prefix("call")?)?
        };
        self.functions.get(&address).map(String::as_str)
    }
}

#[test]
fn kernels_call_no_function_for_each_vector() {
    // Both reach the kernels, so that they are linked into this test's own binary.
    assert!(!smallmind::kernels::enumerate().is_empty());
    for isa in IsaId::available() {
        assert!(isa.run(Planted).unwrap().is_finite());
    }
    let program = Program::read();
    let listing = Command::new("objdump")
        .args(["-d", "--no-show-raw-insn", "-M", "intel"])
        .arg(std::env::current_exe().unwrap())
        .output()
        .expect("objdump (binutils) is needed to read the kernels' code");
    let (mut called, mut kernels, mut inside) = (BTreeSet::new(), 0, false);
    for line in String::from_utf8_lossy(&listing.stdout).lines() {
        if let Some((_, name)) = line.strip_suffix(">:").and_then(|line| line.split_once(" <")) {
            inside = name.contains("3isa") && name.contains("5enter") || name.contains("10enter_vnni");
            kernels += usize::from(inside);
        } else if inside && let Some((_, instruction)) = line.split_once(":\t") {
            called.extend(program.target(instruction));
        }
    }
    assert!(kernels >= 400, "only {kernels} kernels were found");
    assert!(called.iter().any(|name| name.contains(PLANTED)), "the planted call went unseen");
    let refused: Vec<&&str> = called
        .iter()
        .filter(|name| !name.contains(PLANTED) && !ALLOWED.iter().any(|allowed| name.contains(allowed)))
        .collect();
    assert!(refused.is_empty(), "kernels call {refused:#?}");
}
