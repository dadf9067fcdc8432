//! The modes of `smallmind profile`, by the built command line: which methods there are, how often they were called,
//! how many operations they declare by a count of hand, that tokens allocate nothing, and that times add up.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use smallmind::profile::Zone;
use smallmind::report::Report;
use smallmind::report::data::{Method, Part, Run};

/// 288 tokens, 128 positions, random weights.
const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/goldens/gguf/untied-mixed.gguf");

fn smallmind(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_smallmind"));
    command.args(args).stdin(Stdio::null());
    command.output().unwrap()
}

fn profile(args: &[&str]) -> Report {
    let output = smallmind(&[&["profile"], args, &["--json", "--quiet"]].concat());
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Report = serde_json::from_slice(&output.stdout).unwrap();
    for part in &report.parts {
        for run in &part.runs {
            assert_eq!((run.dropped, run.unbalanced), (0, 0));
            assert_times_add_up(part, run);
        }
    }
    report
}

/// Self times over the tree are the wall time, but for 2 %. In much less than a millisecond, switching recording on
/// and off is more than that.
fn assert_times_add_up(part: &Part, run: &Run) {
    if run.wall_ns < 1_000_000 {
        return;
    }
    let own: u64 = run.tree.iter().map(|method| method.self_ns).sum();
    let off = own.abs_diff(run.wall_ns) as f64 / run.wall_ns as f64;
    assert!(off < 0.02, "{}: self times of {own} ns in {} ns of wall time", part.name, run.wall_ns);
}

fn part<'a>(report: &'a Report, name: &str) -> &'a Part {
    report.parts.iter().find(|part| part.name == name).unwrap_or_else(|| panic!("no part {name}"))
}

fn method<'a>(run: &'a Run, name: &str) -> &'a Method {
    run.methods.iter().find(|method| method.name == name).unwrap_or_else(|| panic!("no method {name}"))
}

/// Calls of the methods that aren't the library's own.
fn calls(run: &Run) -> BTreeMap<&str, u64> {
    let own = |method: &&Method| Zone::ALL.iter().all(|zone| zone.name() != method.name);
    run.methods.iter().filter(own).map(|method| (method.name.as_str(), method.calls)).collect()
}

/// A model of the predecessor's benchmarks.
struct Gpt {
    vocab: u64,
    dim: u64,
    layers: u64,
}

const SMALL: Gpt = Gpt { vocab: 256, dim: 128, layers: 2 };
const MEDIUM: Gpt = Gpt { vocab: 512, dim: 256, layers: 4 };

impl Gpt {
    /// Operations of a pass over `rows` positions after `past`, with logits at the last `outputs` of them.
    fn pass(&self, past: u64, rows: u64, outputs: u64) -> u64 {
        let Gpt { vocab, dim, layers } = *self;
        // A position sees itself and what is before it.
        let seen: u64 = (past + 1..=past + rows).sum();
        // Queries, keys, values; the attention's output; the MLP up and down, four times as wide.
        let products = 2 * rows * (dim * 3 * dim + dim * dim + dim * 4 * dim + 4 * dim * dim);
        // Scores, and the sum of values.
        let attention = 2 * (2 * seen * dim);
        // Eight an element: two LayerNorms, and GELU of what is four times as wide.
        let elementwise = 8 * rows * (2 * dim + 4 * dim);
        // Positions added to embeddings, the last norm, the head.
        let ends = rows * dim + outputs * (8 * dim + 2 * dim * vocab);
        layers * (products + attention + elementwise) + ends
    }

    /// A text with everything done again for each token.
    fn same_work(&self, prompt: u64, tokens: u64) -> u64 {
        (prompt..prompt + tokens).map(|rows| self.pass(0, rows, rows)).sum()
    }

    /// The same with a cache.
    fn with_cache(&self, prompt: u64, tokens: u64) -> u64 {
        let steps = prompt..prompt + tokens - 1;
        self.pass(0, prompt, 1) + steps.map(|past| self.pass(past, 1, 1)).sum::<u64>()
    }
}

#[test]
fn the_hand_count_is_the_known_one() {
    assert_eq!((10..35).sum::<u64>(), 550);
    // About 0.48 and 3.66 GFLOP.
    assert_eq!((SMALL.same_work(10, 25) + 5_000_000) / 10_000_000, 48);
    assert_eq!((MEDIUM.same_work(10, 25) + 5_000_000) / 10_000_000, 366);
}

#[test]
fn enhanced_has_29_methods() {
    let report = profile(&["enhanced", "--runs", "2"]);
    assert_eq!((report.mode.as_str(), report.parts.len()), ("enhanced", 2));
    let models = [
        ("Model_Small_Creation", 1),
        ("Model_Small_Inference", 1),
        ("Model_Small_GenerateToken", 25),
        ("Model_Small_Forward", 25),
        ("Model_Medium_Creation", 1),
        ("Model_Medium_Inference", 1),
        ("Model_Medium_GenerateToken", 25),
        ("Model_Medium_Forward", 25),
    ];
    let kernels = [
        ("MatMul_64x64", 1),
        ("MatMul_128x128", 1),
        ("MatMul_256x256", 1),
        ("MatMul_512x512", 1),
        ("MatMul_Iteration", 12),
        ("GELU_1000", 1),
        ("GELU_10000", 1),
        ("GELU_100000", 1),
        ("GELU_1000000", 1),
        ("GELU_Iteration", 20),
        ("Softmax_256", 1),
        ("Softmax_512", 1),
        ("Softmax_1024", 1),
        ("Softmax_2048", 1),
        ("Softmax_Iteration", 20),
        ("TensorAdd_10000", 1),
        ("TensorAdd_Iteration", 10),
        ("TensorMul_10000", 1),
        ("TensorMul_Iteration", 10),
        ("BroadcastAdd_100x100", 1),
        ("BroadcastAdd_Iteration", 10),
    ];
    assert_eq!(models.len() + kernels.len(), 29);
    let (same, cached) = (part(&report, "same work"), part(&report, "with cache"));
    assert_eq!((same.runs.len(), cached.runs.len()), (2, 2));
    for run in &same.runs {
        assert_eq!(calls(run), models.into_iter().chain(kernels).collect());
        for (name, gpt) in [("Small", &SMALL), ("Medium", &MEDIUM)] {
            let text = method(run, &format!("Model_{name}_Inference"));
            assert_eq!(text.flops, gpt.same_work(10, 25), "{name}");
            assert_eq!((text.alloc_bytes, text.alloc_count), (0, 0), "{name}");
        }
        // With the warm-up that the predecessor's methods hold too.
        for size in [64, 128, 256, 512u64] {
            let product = method(run, &format!("MatMul_{size}x{size}"));
            assert_eq!(product.flops, 4 * 2 * size * size * size);
            assert_eq!(product.bytes, 4 * 3 * 4 * size * size);
        }
        assert_eq!(method(run, "GELU_1000000").flops, 6 * 8 * 1_000_000);
        assert_eq!(method(run, "Softmax_2048").flops, 6 * 5 * 2048);
        assert_eq!(method(run, "TensorAdd_10000").bytes, 10 * 12 * 10_000);
        let without = kernels.iter().map(|(name, _)| method(run, name)).find(|m| m.alloc_count > 0);
        assert_eq!(without, None, "kernels allocate nothing");
    }
    for run in &cached.runs {
        assert_eq!(calls(run), models.into_iter().collect());
        for (name, gpt) in [("Small", &SMALL), ("Medium", &MEDIUM)] {
            let text = method(run, &format!("Model_{name}_Inference"));
            assert_eq!(text.flops, gpt.with_cache(10, 25), "{name}");
            assert_eq!((text.alloc_bytes, text.alloc_count), (0, 0), "{name}");
        }
    }
    let specs = report.models.iter().map(|m| (m.name.as_str(), m.parameters, m.tensors, m.tokens.clone()));
    let expected = [("Small", 470_528, 29, vec![25, 25]), ("Medium", 3_454_464, 53, vec![25, 25])];
    assert_eq!(specs.collect::<Vec<_>>(), expected);
    // One token on the first run's timeline.
    for part in &report.parts {
        let tokens =
            |run: &Run| run.timeline.iter().filter(|e| e.name == "Model_Medium_GenerateToken").count();
        assert_eq!(part.runs.iter().map(tokens).collect::<Vec<_>>(), [1, 0], "{}", part.name);
    }
}

#[test]
fn standard_has_10_methods() {
    let report = profile(&["standard"]);
    let expected = [
        ("ModelCreation", 1),
        ("BuilderSetup", 1),
        ("InferenceComplete", 3),
        ("PrepareInput", 3),
        ("GenerateToken", 150),
        ("ForwardPass", 150),
        ("SampleToken", 150),
        ("ApplyTemperature", 150),
        ("Softmax", 150),
        ("MultinomialSample", 150),
    ];
    let parts = [("same work", SMALL.same_work(10, 50)), ("with cache", SMALL.with_cache(10, 50))];
    for (name, flops) in parts {
        let [run] = &part(&report, name).runs[..] else { panic!("one run") };
        assert_eq!(calls(run), expected.into_iter().collect(), "{name}");
        assert_eq!(method(run, "ForwardPass").flops, 3 * flops, "{name}");
        // Temperature, softmax and the draw: one, five and one for each of 256 logits.
        assert_eq!(method(run, "SampleToken").flops, 150 * 7 * 256, "{name}");
        assert_eq!(method(run, "InferenceComplete").alloc_count, 0, "{name}");
    }
    assert_eq!(report.models[0].tokens, [150, 150]);
}

#[test]
fn deep_has_8_methods() {
    let report = profile(&["deep"]);
    let models = [
        ("Transformer_ModelCreation", 1),
        ("Inference", 3),
        ("GenerateToken", 150),
        ("Transformer_Forward", 150),
    ];
    let products =
        [("MatMul_128x128", 1), ("MatMul_256x256", 1), ("MatMul_512x512", 1), ("MatMul_Iteration", 9)];
    let [same] = &part(&report, "same work").runs[..] else { panic!("one run") };
    let [cached] = &part(&report, "with cache").runs[..] else { panic!("one run") };
    assert_eq!(calls(same), models.into_iter().chain(products).collect());
    assert_eq!(calls(cached), models.into_iter().collect());
    assert_eq!(method(same, "Transformer_Forward").flops, 3 * MEDIUM.same_work(32, 50));
    assert_eq!(method(cached, "Transformer_Forward").flops, 3 * MEDIUM.with_cache(32, 50));
    assert_eq!(method(same, "MatMul_512x512").flops, 3 * 2 * 512 * 512 * 512);
    for run in [same, cached] {
        assert_eq!(method(run, "Inference").alloc_count, 0);
    }
}

#[test]
fn reused_memory_is_not_allocated_again() {
    let report = profile(&["alloc", "--threads", "2"]);
    let iterations = [
        ("matmul", "MatMulBackward_Iteration", 100, 3 * 2 * 128 * 128 * 256),
        ("training, same work", "Training_Step", 50, 2 * 32 * 256 * (256 + 3 * 32)),
        ("training, whole", "Training_WholeStep", 50, 2 * 32 * 256 * (3 * 256 + 3 * 32)),
    ];
    for (name, iteration, count, flops) in iterations {
        let run = &part(&report, name).runs[0];
        let iteration = method(run, iteration);
        assert_eq!((iteration.calls, iteration.flops), (count, count * flops), "{name}");
        assert_eq!((iteration.alloc_bytes, iteration.alloc_count), (0, 0), "{name}");
    }

    let report = profile(&["memory"]);
    let run = &part(&report, "memory").runs[0];
    let figures = [
        ("Tensor_New", 1000, 0, 1000 * 4 * 512),
        ("Tensor_Reused", 0, 0, 1000 * 4 * 512),
        ("Add_New", 1000, 1000 * 512, 1000 * 12 * 512),
        ("Add_Given", 0, 1000 * 512, 1000 * 12 * 512),
        ("LayerNorm_32x512", 0, 1000 * 8 * 32 * 512, 1000 * 8 * 32 * 512),
    ];
    for (name, allocations, flops, bytes) in figures {
        let method = method(run, name);
        assert_eq!((method.calls, method.flops, method.bytes), (1, flops, bytes), "{name}");
        assert_eq!((method.alloc_count, method.alloc_bytes), (allocations, allocations * 4 * 512), "{name}");
    }
}

#[test]
fn steps_of_training_name_their_parts_and_allocate_nothing() {
    let args = [
        "train",
        "--random",
        "64,16,32,2,2",
        "--batch",
        "2",
        "--steps",
        "3",
        "--runs",
        "2",
        "--threads",
        "2",
    ];
    let report = profile(&args);
    let run = &part(&report, "training").runs[1];
    let step = method(run, "train.step");
    assert_eq!((step.calls, step.alloc_count), (3, 0));
    // Forward, its two transposes, for q, k and v in one, output, up and down of both layers; the head.
    let products = 2 * 32 * (2 * (3 + 1 + 4 + 4) * 32 * 32 + 64 * 32);
    let forward =
        ["linear", "linear.attn_out", "linear.down", "linear.head"].map(|name| method(run, name).flops);
    assert_eq!(forward.iter().sum::<u64>(), 3 * products);
    for name in ["linear.input_gradient", "linear.weight_gradient"] {
        assert_eq!(method(run, name).flops, 3 * products, "{name}");
    }
    // All but the turns between regions lies in named parts.
    let parts: u64 = run.methods.iter().filter(|m| m.name != "train.step").map(|m| m.self_ns).sum();
    assert!(method(run, "train.step").self_ns < step.total_ns / 2 && parts > step.total_ns / 2);
    assert_eq!(method(run, "train.update").calls, 3);
    assert_eq!(report.models[0].tokens, [3 * 32]);
}

#[test]
fn a_file_is_prefilled_decoded_and_batched() {
    let report = profile(&["--model", TINY, "-p", "20", "-n", "5", "--runs", "2"]);
    let expected = [
        ("prefill", vec![("Inference", 1), ("Prefill_20", 1)]),
        ("decode", vec![("Decode_Token", 5), ("Inference", 1)]),
        ("batch", vec![("Batch_32", 1), ("Inference", 1)]),
    ];
    assert_eq!(report.parts.len(), expected.len());
    for (part, (name, methods)) in report.parts.iter().zip(expected) {
        assert_eq!(part.name, name);
        assert_eq!(part.runs.len(), 2);
        for run in &part.runs {
            assert_eq!(calls(run), methods.iter().copied().collect(), "{name}");
            assert_eq!(run.alloc_count, 0, "{name}");
        }
        assert!(!part.runs[0].timeline.is_empty(), "{name}");
    }
    let [model] = &report.models[..] else { panic!("one model") };
    assert_eq!((model.vocab, model.context, &model.tokens[..]), (288, 128, &[20, 5, 32][..]));

    let deep = profile(&[
        "--model",
        TINY,
        "-p",
        "4",
        "-n",
        "3",
        "-d",
        "0,60,0",
        "--activations",
        "8",
        "--kv",
        "q8_0",
    ]);
    let names: Vec<_> = deep.parts.iter().map(|part| part.name.as_str()).collect();
    assert_eq!(names, ["prefill", "decode", "batch", "prefill@d60", "decode@d60", "batch@d60"]);
    // Attention behind 60 positions is more work, products are as many.
    let flops = |name: &str, op: &str| method(&part(&deep, name).runs[0], op).flops;
    assert!(flops("decode@d60", "attention") > 5 * flops("decode", "attention"));
    assert_eq!(flops("decode@d60", "linear.down"), flops("decode", "linear.down"));
    let scalar = profile(&["--model", TINY, "-p", "4", "-n", "0", "--isa", "scalar"]);
    assert_eq!(scalar.machine.isa, "scalar");
    assert!(scalar.machine.kernels.iter().all(|kernel| kernel.name.contains(".scalar")));
    assert!(scalar.machine.other_kernels.iter().all(|kernel| !kernel.reason.is_empty()));

    let without_decode = profile(&["--model", TINY, "-p", "3", "-n", "0"]);
    let names: Vec<_> = without_decode.parts.iter().map(|part| part.name.as_str()).collect();
    assert_eq!(names, ["prefill", "batch"]);
}

/// In steady state a step touches no new memory: what is counted of decode's steps are a few faults of a stack at most.
#[cfg(target_os = "linux")]
#[test]
fn steps_are_counted_where_that_is_asked_for() {
    let args = ["--model", TINY, "-p", "20", "-n", "5", "--threads", "2"];
    let faults = |method: &Method| Some(method.counters.as_ref()?.0["minor_page_faults"]);
    let plain = profile(&args);
    let counted = profile(&[&args[..], &["--counters"]].concat());
    for (report, steps) in [(&plain, false), (&counted, true)] {
        let counting = report.counting.as_ref().unwrap();
        assert_eq!(counting.every_scope, steps);
        let run = &part(report, "decode").runs[0];
        assert_eq!(run.threads.len(), 2);
        assert!(run.threads.iter().all(|thread| thread.working_ns > 0 && thread.waiting_ns > 0));
        let whole = run.counters.as_ref().unwrap().0["minor_page_faults"];
        assert!(whole < 40, "{whole} page faults in steady state");
        let each = run.threads.iter().map(|thread| thread.counters.as_ref().unwrap().0["minor_page_faults"]);
        assert_eq!(each.sum::<u64>(), whole);
        let down = method(run, "linear.down");
        assert_eq!(faults(down).is_some(), steps);
        assert_eq!(down.thread_counters.len(), if steps { 2 } else { 0 });
        assert_eq!(run.timeline[0].counters.is_some(), steps);
        // Each counter is known or has its reason, never both.
        let missing = counting.missing.iter().flat_map(|missing| &missing.counters);
        let known = run.counters.as_ref().unwrap();
        assert!(missing.clone().all(|name| !known.0.contains_key(name)));
        assert_eq!(missing.count() + known.0.len(), 10);
    }
}

#[test]
fn a_folder_gets_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/profile");
    let output = smallmind(&["profile", "memory", "--out", path.to_str().unwrap()]);
    let (text, remarks) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{remarks}");
    assert!(text.starts_with("# Profile: memory\n") && text.contains("- Tensor_Reused: "), "{text}");
    for name in ["report.md", "report.json", "report.html", "flame.svg", "trace.json", "profile.pb.gz"] {
        assert!(std::fs::metadata(path.join(name)).unwrap().len() > 0, "{name}");
        assert!(remarks.contains(name), "{name}: {remarks}");
    }
    assert_eq!(remarks.lines().count(), 1, "{remarks}");
    let report: Report = serde_json::from_slice(&std::fs::read(path.join("report.json")).unwrap()).unwrap();
    assert_eq!(report.mode, "memory");
}

#[test]
fn a_baseline_is_measured_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let baseline = |args: &[&str]| {
        let output = smallmind(&[&["baseline", "--dir", folder.path().to_str().unwrap()], args].concat());
        let remarks = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {remarks}");
        String::from_utf8(output.stdout).unwrap()
    };
    baseline(&["save", "before", "--mode", "memory", "--runs", "2"]);
    let list = baseline(&["list"]);
    let [_, line] = list.lines().collect::<Vec<_>>()[..] else { panic!("{list}") };
    assert!(line.starts_with("before ") && line.contains(" memory "), "{list}");
}

#[test]
fn each_kernel_has_the_reason_why_it_is_chosen_or_not() {
    let output = Command::new(env!("CARGO_BIN_EXE_smallmind"))
        .args(["kernels", "--why"])
        .env("SMALLMIND_ISA", "scalar")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<&str> = text.lines().skip(3).collect();
    assert_eq!(rows.len(), smallmind::kernels::enumerate().len());
    for row in rows {
        let is_scalar = row.contains(".scalar");
        assert_eq!(row.ends_with(" chosen"), is_scalar, "{row}");
        let refused =
            row.contains("scalar is in use, which doesn't include") || row.contains("this CPU lacks");
        assert_eq!(refused, !is_scalar, "{row}");
    }
}

#[test]
fn what_cannot_be_is_told_in_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let in_the_way = file.to_str().unwrap();
    let wrong: [(&[&str], i32, &str); 10] = [
        (&["--model", TINY, "-d", "127"], 2, "--depth 127, --prompt-tokens 128"),
        (&["--model", TINY, "-d", "18446744073709551615"], 2, "more than the model's context of 128"),
        (&["--model", TINY, "--isa", "mmx"], 2, "no instruction set 'mmx'"),
        (&["--model", TINY, "-p", "100", "-n", "29"], 2, "more than the model's context of 128"),
        (&["--model", TINY, "-p", "18446744073709551615"], 2, "more than the model's context of 128"),
        (&["--model", "no such file"], 1, "no such file"),
        (&["memory", "--out", in_the_way], 1, in_the_way),
        (&["memory", "--runs", "0"], 2, "from 1 to 1000 is needed"),
        (&["memory", "--threads", "0"], 2, "from 1 to 1024 is needed"),
        (&["dance"], 2, "dance"),
    ];
    for (args, code, reason) in wrong {
        let output = smallmind(&[&["profile"], args].concat());
        let remarks = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {remarks}");
        assert!(remarks.contains(reason) && remarks.lines().count() == 1, "{args:?}: {remarks}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
    assert!(!Path::new("no such file").exists());
    let output =
        smallmind(&["baseline", "--dir", folder.path().to_str().unwrap(), "save", "x", "--mode", "dance"]);
    let remarks = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{remarks}");
    assert!(remarks.contains("'dance' for '--mode <MODE>'") && remarks.lines().count() == 1, "{remarks}");
}
