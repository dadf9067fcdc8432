//! What the models of `tests/goldens/gguf` are lowered to, as committed texts: a change of lowering shows as a change
//! of these. To write them anew: `SMALLMIND_UPDATE_PLANS=1 cargo test --test suite plans`.

use crate::common::{golden_path, tiny_model};
use smallmind::format::gguf::Gguf;
use smallmind::kernels::qmatmul::Activations;
use smallmind::model::{LoadParams, Model, read_graph};
use smallmind::runtime::{Context, ContextParams, lower};

/// Every file that is a model.
const MODELS: [&str; 12] = [
    "untied-mixed",
    "untied-every-quant",
    "tied-rope-freqs",
    "untied-linear-rope",
    "gpt-untied",
    "gpt-tied-quant",
    "qwen2-tied",
    "qwen2-quant",
    "qwen3-untied",
    "qwen3-tied-quant",
    "hybrid-quant",
    "short-conv",
];

/// The plan's text, from the file's header alone.
fn plan(name: &str, activations: Activations) -> String {
    let gguf = Gguf::open_path(tiny_model(name)).unwrap();
    let (_, graph) = read_graph(&gguf).unwrap();
    lower(&graph, activations, graph.logits.unwrap()).unwrap().text(&graph)
}

/// Lines from the first to the last that differ, marked as in a patch; `None` where there are none.
fn difference(committed: &str, now: &str) -> Option<String> {
    const SHOWN: usize = 12;
    if committed == now {
        return None;
    }
    let (old, new): (Vec<_>, Vec<_>) = (committed.lines().collect(), now.lines().collect());
    let head = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[head..], &new[head..]);
    let tail = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
    let part = |lines: &[&str], mark: &str| -> String {
        lines[..lines.len() - tail].iter().take(SHOWN).map(|line| format!("{mark}{line}\n")).collect()
    };
    Some(format!("from line {} on:\n{}{}", head + 1, part(old, "-"), part(new, "+")))
}

#[test]
fn plans_are_the_committed_ones() {
    let all = MODELS.map(|name| (name, Activations::Bits16, name.to_owned()));
    let eight = ("untied-mixed", Activations::Bits8, "untied-mixed-8bit".to_owned());
    let mut changed = String::new();
    for (name, activations, golden) in all.into_iter().chain([eight]) {
        let (now, path) = (plan(name, activations), golden_path(&format!("plans/{golden}.txt")));
        if std::env::var_os("SMALLMIND_UPDATE_PLANS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &now).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        if let Some(difference) = difference(&committed, &now) {
            changed.push_str(&format!("tests/goldens/plans/{golden}.txt, {difference}"));
        }
    }
    assert!(
        changed.is_empty(),
        "{changed}If that is as it should be: SMALLMIND_UPDATE_PLANS=1 cargo test --test suite plans"
    );
}

#[test]
fn a_changed_line_is_shown() {
    assert_eq!(difference("a\nb\n", "a\nb\n"), None);
    assert_eq!(difference("a\nb\n", "a\nc\nd\n").unwrap(), "from line 2 on:\n-b\n+c\n+d\n");
    assert_eq!(difference("a\nb\nc\n", "a\nd\nc\n").unwrap(), "from line 2 on:\n-b\n+d\n");
    assert_eq!(difference("", "a\n").unwrap(), "from line 1 on:\n+a\n");
    assert!(difference("a", "a\n").is_some());
}

/// What the header alone gives is what a loaded model runs.
#[test]
fn a_context_runs_the_plan_of_the_header() {
    for name in MODELS {
        for activations in Activations::ALL {
            let params = LoadParams::default().with_activations(activations);
            let model = Model::open(&tiny_model(name), &params).unwrap();
            let context =
                Context::new(model, &ContextParams::default().with_n_ctx(8).with_threads(1)).unwrap();
            let text = context.plan().text(context.model().graph());
            assert_eq!(text, plan(name, activations), "{name}, {activations:?}");
        }
    }
}

/// Rows of quantised products are shorter with 8 bits, and nothing else is another: the first line says which it is.
#[test]
fn plans_depend_on_activations() {
    let [sixteen, adaptive, eight] = Activations::ALL.map(|activations| plan("qwen2-quant", activations));
    let (title, rest) = sixteen.split_once('\n').unwrap();
    assert!(title.starts_with("plan of qwen2 with 16-bit activations: "), "{title}");
    assert!(adaptive.split_once('\n').unwrap().1 == rest && adaptive != sixteen);
    let (sixteen, eight): (Vec<_>, Vec<_>) = (sixteen.lines().collect(), eight.lines().collect());
    assert_eq!(sixteen.len(), eight.len());
    let others: Vec<_> = sixteen.iter().zip(&eight).skip(1).filter(|(a, b)| a != b).collect();
    assert!(
        !others.is_empty() && others.iter().all(|(a, b)| a.contains(" bytes × ") && b.contains(" bytes × "))
    );
}
