//! Reads the machine code of the vector kernels and refuses hot loops that spill registers or call anything.
//! A tile whose sums leave their registers gives right results at a third of the speed, so no other test sees it.
//! Needs `objdump`, x86-64, where the tiles are tuned, and a build without checks, which take registers: it is run by
//! `cargo test --profile bench --test asm -- --include-ignored`.
#![cfg(target_arch = "x86_64")]

use smallmind::isa::{Isa, IsaId, SimdBody};
use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// Functions that enter the tiles; what they call or jump to is read.
const ENTRIES: [&str; 12] = [
    "kernels::matmul::tile::entry",
    "kernels::matmul::lines::entry",
    "kernels::matmul::walk::entry",
    "kernels::bmatmul::pairs::entry",
    "kernels::qmatmul::sweep::line",
    "kernels::qmatmul::sweep::tile",
    "kernels::attention::tiles::scores",
    "kernels::attention::tiles::sums",
    "kernels::backward::attention::tile::product",
    "kernels::recurrence::scan1::entry",
    "kernels::recurrence::scan2::entry",
    "kernels::recurrence::delta::entry",
];
/// Of these, the ones whose constants alone are more than sixteen registers: they compute exponentials and logarithms, or
/// multiply by many factors. A constant on the stack costs as much as elsewhere in memory.
const MANY_CONSTANTS: [&str; 2] = ["kernels::recurrence::scan1::entry", "kernels::matmul::walk::entry"];
/// The multiply-add of pairs.
const PAIRS: &str = "vdpbf16ps";
/// The dot product of four bytes.
const FOURS: &str = "vpdpbusd";
/// What widens half floats and bytes.
const HALVES: &str = "vcvtph2ps";
const BYTES: &str = "vpmovsxbd";
/// From this many multiply-adds on, an innermost loop counts as hot.
const HOT: usize = 4;
/// Displacement of a no-operation that marks the planted kernel's loop.
const MARK: &str = "0x5a5a";

/// An innermost loop: its instructions, and whether a tile's entry leads to its function.
struct Loop {
    tile: bool,
    /// Whether it may read constants from the stack.
    constants: bool,
    code: Vec<String>,
}

impl Loop {
    fn is_hot(&self) -> bool {
        self.code.iter().filter(|i| i.contains("vfmadd") || i.contains(PAIRS) || i.contains(FOURS)).count()
            >= HOT
    }

    fn is_planted(&self) -> bool {
        self.code.iter().any(|i| i.contains(MARK))
    }

    /// Calls, and vectors moved to or from the stack. Reloaded pointers are left alone: a load a step is free.
    fn violations(&self) -> Vec<&str> {
        let vector = |i: &str| ["xmm", "ymm", "zmm"].iter().any(|r| i.contains(r));
        // The first operand is the one that is written.
        let stored = |i: &str| i.split(',').next().is_some_and(|first| first.contains("[rsp"));
        let stores = self.code.iter().any(|i| vector(i) && stored(i));
        let allowed = self.constants && !stores;
        let bad = |i: &&String| i.starts_with("call") || (vector(i) && i.contains("[rsp") && !allowed);
        self.code.iter().filter(bad).map(String::as_str).collect()
    }
}

/// A function that `vectorize` enters, or an entry of a tile: its address, and addresses and instructions.
struct Function {
    address: u64,
    entry: bool,
    constants: bool,
    code: Vec<(u64, String)>,
}

/// The innermost loops of the functions that `vectorize` enters, from a disassembly.
fn loops(listing: impl Iterator<Item = String>) -> Vec<Loop> {
    let mut functions: Vec<Function> = Vec::new();
    let mut wanted = false;
    for line in listing {
        if let Some((address, name)) = line.strip_suffix(">:").and_then(|l| l.split_once(" <")) {
            let [entry, constants] =
                [&ENTRIES[..], &MANY_CONSTANTS].map(|list| list.iter().any(|entry| name.contains(entry)));
            wanted = entry || (name.contains("isa::avx") && name.contains("enter"));
            if wanted {
                let address = u64::from_str_radix(address, 16).unwrap();
                functions.push(Function { address, entry, constants, code: Vec::new() });
            }
        } else if wanted
            && let Some((address, instruction)) = line.trim_start().split_once(":\t")
            && let Ok(address) = u64::from_str_radix(address, 16)
        {
            functions.last_mut().unwrap().code.push((address, instruction.trim().to_string()));
        }
    }
    let targets = |wanted: fn(&Function) -> bool| -> HashSet<u64> {
        let entries = functions.iter().filter(|f| wanted(f));
        entries.flat_map(|f| f.code.iter().filter_map(|(_, i)| target(i))).collect()
    };
    let (tiles, constants) = (targets(|f| f.entry), targets(|f| f.constants));
    let loops = |f: &Function| innermost(&f.code, tiles.contains(&f.address), constants.contains(&f.address));
    functions.iter().flat_map(loops).collect()
}

/// Where a jump or call goes, if that is a place and not a register.
fn target(instruction: &str) -> Option<u64> {
    let operand = instruction.strip_prefix("call").or(instruction.strip_prefix('j'))?.split_whitespace();
    operand.filter_map(|word| u64::from_str_radix(word, 16).ok()).next_back()
}

/// Spans from a backward jump's target to the jump, without another jump inside. Where four bytes are multiplied, one may
/// go forward: a block has a way with low bytes and one without.
fn innermost(code: &[(u64, String)], tile: bool, constants: bool) -> Vec<Loop> {
    let mut found = Vec::new();
    for (end, (address, instruction)) in code.iter().enumerate() {
        let jump = instruction.starts_with('j').then(|| target(instruction)).flatten();
        let Some(begin) = jump.filter(|t| t <= address).and_then(|t| code.iter().position(|(a, _)| *a == t))
        else {
            continue;
        };
        let fours = code[begin..end].iter().any(|(_, i)| i.contains(FOURS));
        let is_back = |(at, i): &(u64, String)| target(i).is_none_or(|t| t <= *at);
        if !code[begin..end].iter().any(|line| line.1.starts_with('j') && (!fours || is_back(line))) {
            found.push(Loop {
                tile,
                constants,
                code: code[begin..=end].iter().map(|(_, i)| i.clone()).collect(),
            });
        }
    }
    found
}

/// More sums than there are registers, so that the loop must spill; and the mark.
struct Planted;

impl SimdBody for Planted {
    type Output = f32;
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> f32 {
        let factor = isa.splat(std::hint::black_box(0.5));
        let mut sums = [[isa.zero(); 10]; 4];
        for _ in 0..std::hint::black_box(3) {
            // SAFETY: a no-operation.
            unsafe {
                std::arch::asm!("nop word ptr [rax + rax + 0x5a5a]", options(nomem, nostack, preserves_flags))
            };
            for sums in &mut sums {
                for sum in sums {
                    *sum = isa.mul_add(*sum, factor, factor);
                }
            }
        }
        let mut total = isa.zero();
        for sum in sums.into_iter().flatten() {
            total = isa.add(total, sum);
        }
        isa.sum_lanes(total)
    }
}

#[test]
#[ignore = "reads the code of a build without checks: --profile bench"]
fn hot_loops_keep_their_vectors_in_registers_and_call_nothing() {
    // Both reach the kernels, so that they are linked into this test's own binary.
    assert!(!smallmind::kernels::enumerate().is_empty());
    for isa in IsaId::available() {
        assert!(isa.run(Planted).unwrap().is_finite());
    }

    let mut objdump = Command::new("objdump")
        .args(["-d", "-C", "--no-show-raw-insn", "-M", "intel"])
        .arg(std::env::current_exe().unwrap())
        .stdout(Stdio::piped())
        .spawn()
        .expect("objdump (binutils) is needed to read the kernels' code");
    let lines = BufReader::new(objdump.stdout.take().unwrap()).lines().map(|line| line.unwrap());
    let loops: Vec<Loop> = loops(lines).into_iter().filter(Loop::is_hot).collect();
    assert!(objdump.wait().unwrap().success());

    assert!(
        loops.iter().any(|l| l.is_planted() && !l.violations().is_empty()),
        "the planted spill went unseen"
    );
    // Two levels; matmul's three types of weights, for each some nine tiles (some have the same code); attention's
    // two products over three types of caches, for each some twenty, many of them with a loop that asks ahead.
    // Products of four bytes are held to it with 512 bits. Elsewhere they take several instructions, which then bind, or
    // have sixteen registers for sums of both kinds, one of which may move.
    let moving = ["vpmaddubsw", "vpmaddwd", "vpdpbusd ymm", "vpdpbusd\tymm"];
    let exempt = |i: &String| moving.iter().any(|instruction| i.contains(instruction));
    let tiles: Vec<&Loop> = loops.iter().filter(|l| l.tile && !l.code.iter().any(exempt)).collect();
    assert!(tiles.len() >= 400, "only {} tiles were found", tiles.len());
    for (instruction, least) in [(PAIRS, 9), (FOURS, 30), (HALVES, 60), (BYTES, 40)] {
        let found = tiles.iter().filter(|tile| tile.code.iter().any(|i| i.contains(instruction))).count();
        assert!(found >= least, "only {found} tiles with {instruction} were found");
    }
    for tile in tiles {
        let violations = tile.violations();
        assert!(violations.is_empty(), "{violations:?} in\n{}", tile.code.join("\n"));
    }
}

#[test]
fn the_reader_tells_spills_and_calls_from_clean_loops() {
    let listing = |entry: &str, inner: &str| {
        let multiply_adds = "  10:\tvfmadd231ps zmm0,zmm1,zmm2\n".repeat(HOT);
        format!(
            "0008 <x::{}>:\n  08:\tjmp    f <x>\n000f <x::isa::avx512::enter>:\n  0f:\tnop\n{multiply_adds}{inner}  20:\tjne    10 <x+0x10>\n  22:\tret\n",
            entry
        )
    };
    let read = |text: String| loops(text.lines().map(String::from).collect::<Vec<_>>().into_iter());
    for (inner, bad) in [
        ("  18:\tadd    rax,0x4\n", 0),
        ("  18:\tmov    rax,QWORD PTR [rsp+0x8]\n", 0),
        ("  18:\tvmovaps ZMMWORD PTR [rsp+0x80],zmm11\n", 1),
        ("  18:\tvmovups ymm3,YMMWORD PTR [rsp-0x40]\n", 1),
        ("  18:\tvmovups ymm3,YMMWORD PTR [rbp-0x40]\n", 0),
        ("  18:\tcall   1234 <memcpy>\n", 1),
    ] {
        let loops = read(listing(ENTRIES[0], inner));
        assert_eq!(loops.len(), 1);
        assert!(loops[0].is_hot() && loops[0].tile);
        assert_eq!(loops[0].violations().len(), bad, "{inner}");
    }
    // Constants, and what is read again after it was written.
    let (constant, spilled) =
        ("  18:\tvandps ymm3,ymm4,YMMWORD PTR [rsp+0x40]\n", "  1a:\tvmovaps YMMWORD PTR [rsp+0x40],ymm3\n");
    for (inner, bad) in [(constant.to_owned(), 0), ([constant, spilled].concat(), 2)] {
        assert_eq!(read(listing(MANY_CONSTANTS[0], &inner))[0].violations().len(), bad, "{inner}");
    }
}
