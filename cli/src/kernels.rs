//! `smallmind kernels`: the kernels of this build, which of them this CPU runs, and why one is chosen before others.

use smallmind::Result;
use smallmind::isa::IsaId;
use smallmind::kernels::{self, KernelInfo, KernelSet};
use smallmind::report::choice::{choices, tile_name};

use crate::args::Kernels;
use crate::output::print;

pub fn run(args: &Kernels) -> Result<()> {
    let chosen = KernelSet::default_set()?;
    let here: Vec<_> = IsaId::available().map(IsaId::name).collect();
    let in_use = chosen.isa().name();
    let mut text =
        format!("this CPU runs {}; in use: {in_use} (SMALLMIND_ISA chooses another)\n\n", here.join(", "));
    text.push_str(&match args.why {
        true => reasons(chosen.isa()),
        false => table(&kernels::enumerate()),
    });
    print(&text)
}

/// A line for each op and type, a column for each level that this build knows: the register tile, or only
/// that there is a kernel.
fn table(kernels: &[KernelInfo]) -> String {
    let levels: Vec<_> = IsaId::ALL.into_iter().filter(|&isa| kernels.iter().any(|k| k.isa == isa)).collect();
    let mut text = format!("{:<16} {:<6}", "op", "type");
    levels.iter().for_each(|isa| text.push_str(&format!(" {:>12}", isa.name())));
    text.push('\n');
    let mut ops: Vec<(&str, &str)> = Vec::new();
    for kernel in kernels {
        if !ops.contains(&(kernel.op, kernel.dtype)) {
            ops.push((kernel.op, kernel.dtype));
        }
    }
    for (op, dtype) in ops {
        text.push_str(&format!("{op:<16} {dtype:<6}"));
        for &isa in &levels {
            let of_level = |k: &&KernelInfo| k.op == op && k.dtype == dtype && k.isa == isa;
            let cell = match kernels.iter().find(of_level) {
                Some(KernelInfo { mr: 1, nr: 1, .. }) => "yes".to_owned(),
                Some(KernelInfo { mr, nr, .. }) => format!("{mr}x{nr}"),
                None => String::new(),
            };
            text.push_str(&format!(" {cell:>12}"));
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

/// A line for each kernel: whether it is chosen, and why.
fn reasons(used: IsaId) -> String {
    let mut text = format!("{:<16} {:<24} why\n", "op", "kernel");
    for choice in choices(used) {
        let (op, name, reason) = (choice.kernel.op, tile_name(&choice.kernel), choice.reason);
        text.push_str(&format!("{op:<16} {name:<24} {reason}\n"));
    }
    text
}
