//! The colours of methods: what does the same kind of work has the same colour in every picture.

use serde::Serialize;

use crate::profile::Zone;

/// A kind of work: a class of the style sheet, and what it is called.
#[derive(Clone, Copy, Serialize)]
pub(super) struct Family {
    pub class: &'static str,
    pub name: &'static str,
}

const fn family(class: &'static str, name: &'static str) -> Family {
    Family { class, name }
}

const PRODUCT: Family = family("product", "products");
const ATTENTION: Family = family("attention", "attention, softmax");
const NORM: Family = family("norm", "norms");
const POINTWISE: Family = family("pointwise", "elementwise");
const DATA: Family = family("data", "loading, moving");
const CHOICE: Family = family("choice", "text, sampling");
const WAIT: Family = family("wait", "waiting");
const OTHER: Family = family("other", "other");

/// Every family, as the legend shows them.
pub(super) const LEGEND: [Family; 8] = [PRODUCT, ATTENTION, NORM, POINTWISE, DATA, CHOICE, WAIT, OTHER];

/// Parts of names and what they stand for; the first that is found counts.
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
