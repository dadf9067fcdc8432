//! The colours of methods: methods of the same kind of work have the same colour in every picture.

use serde::Serialize;

use crate::profile::Zone;

/// A kind of work: a class of the page's style sheet, its name, and its colour on white. Colours follow
/// Okabe and Ito's palette, which colour-blind readers can tell apart.
#[derive(Clone, Copy, Serialize)]
pub(super) struct Family {
    pub class: &'static str,
    pub name: &'static str,
    pub colour: [u8; 3],
}

const fn family(class: &'static str, name: &'static str, colour: u32) -> Family {
    let [_, red, green, blue] = colour.to_be_bytes();
    Family { class, name, colour: [red, green, blue] }
}

const PRODUCT: Family = family("product", "products", 0x0072b2);
const ATTENTION: Family = family("attention", "attention, softmax", 0xd55e00);
const NORM: Family = family("norm", "norms", 0x009e73);
const POINTWISE: Family = family("pointwise", "elementwise", 0xc0659b);
const DATA: Family = family("data", "loading, moving", 0xd79700);
const CHOICE: Family = family("choice", "text, sampling", 0x56b4e9);
const WAIT: Family = family("wait", "waiting", 0x9aa1ab);
const OTHER: Family = family("other", "other", 0x8390a2);

/// Every family, as the legend shows them.
pub(super) const LEGEND: [Family; 8] = [PRODUCT, ATTENTION, NORM, POINTWISE, DATA, CHOICE, WAIT, OTHER];

/// Parts of names and their kinds of work; the first that is found counts.
const PARTS: [(&str, Family); 30] = [
    ("attention", ATTENTION),
    ("softmax", ATTENTION),
    ("matmul", PRODUCT),
    ("linear", PRODUCT),
    ("gemm", PRODUCT),
    ("backward", PRODUCT),
    ("norm", NORM),
    ("gelu", POINTWISE),
    ("silu", POINTWISE),
    ("swiglu", POINTWISE),
    ("relu", POINTWISE),
    ("elementwise", POINTWISE),
    ("tensoradd", POINTWISE),
    ("tensormul", POINTWISE),
    ("broadcast", POINTWISE),
    ("reduce", POINTWISE),
    ("embed", DATA),
    ("quantize", DATA),
    ("rope", DATA),
    ("kv.", DATA),
    ("load", DATA),
    ("creat", DATA),
    ("transpose", DATA),
    ("convert", DATA),
    ("prepare", DATA),
    ("sample", CHOICE),
    ("temperature", CHOICE),
    ("tokenize", CHOICE),
    ("chat", CHOICE),
    ("callback", CHOICE),
];

/// Whether a method is the wait for other threads.
pub(super) fn is_wait(name: &str) -> bool {
    name == Zone::Barrier.name()
}

/// The family of a method.
pub(super) fn of(name: &str) -> Family {
    // Enough of a name to know it by.
    let name: String = name.chars().take(64).collect::<String>().to_lowercase();
    match name.as_str() {
        name if is_wait(name) => WAIT,
        "add" | "mul" => POINTWISE,
        name => PARTS.iter().find(|(part, _)| name.contains(part)).map_or(OTHER, |&(_, family)| family),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_and_workloads_have_their_family() {
        for (name, class) in [
            ("linear.qkv", "product"),
            ("MatMul_512x512", "product"),
            ("Softmax_Iteration", "attention"),
            ("layer_norm", "norm"),
            ("GELU_1000", "pointwise"),
            ("add", "pointwise"),
            ("ModelCreation", "data"),
            ("kv.store", "data"),
            ("MultinomialSample", "choice"),
            ("barrier", "wait"),
            ("Model_Small_GenerateToken", "other"),
            ("", "other"),
        ] {
            assert_eq!(of(name).class, class, "{name}");
        }
    }
}
