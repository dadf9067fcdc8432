//! Models of made-up profiles beside each other.

use super::*;
use crate::report::data::Run;
use crate::report::render::sample;

#[test]
fn ratios_and_grades_follow_from_the_times() {
    let report = sample::report();
    let comparison = compare_models(&report).unwrap();
    assert_eq!((comparison.models.len(), comparison.parts.len()), (2, 2));
    let part = &comparison.parts[0];
    let [small, medium] = &part.models[..] else { panic!("{:?}", part.models) };
    let mean = |name: &str| {
        let logs = report.parts[0]
            .runs
            .iter()
            .map(|run| (run.methods.iter().find(|method| method.name == name).unwrap().total_ns as f64).ln());
        (logs.sum::<f64>() / report.parts[0].runs.len() as f64).exp()
    };
    let times = [mean("Model_Small_Inference"), mean("Model_Medium_Inference")];
    assert!((small.tokens_per_second - 25e9 / times[0]).abs() < 1e-6);
    assert!((medium.ms_per_token - times[1] / 25e6).abs() < 1e-9);
    let scaling = &part.scaling[0];
    assert_eq!((&*scaling.name, part.scaling.len()), ("Medium", 1));
    assert!((scaling.parameter_ratio - 3_454_464.0 / 470_528.0).abs() < 1e-12);
    assert!((scaling.time_ratio - times[1] / times[0]).abs() < 1e-9);
    assert!((scaling.efficiency - scaling.parameter_ratio / scaling.time_ratio).abs() < 1e-12);
    assert_eq!(scaling.grade, Grade::of(scaling.efficiency));
    let [low, high] = scaling.interval.unwrap();
    assert!(low < scaling.time_ratio && scaling.time_ratio < high);
    let forward = medium.forward.as_ref().unwrap();
    assert_eq!(forward.calls, 25);
    assert!((forward.mean_ms - mean("Model_Medium_Forward") / 25e6).abs() < 1e-9);
}

#[test]
fn grades_change_above_their_limits() {
    let grades = [0.95, 0.9, 0.71, 0.7, 0.51, 0.5, 0.0].map(|efficiency| Grade::of(efficiency).name());
    assert_eq!(grades, ["excellent", "good", "good", "fair", "fair", "poor", "poor"]);
}

#[test]
fn any_number_of_models_is_shown() {
    let mut report = sample::report();
    let text = render_models(&compare_models(&report).unwrap());
    for expected in
        ["| parameters | 470528 | 3454464 |", "## Part: with cache", "### Scaling", "### Forward Pass"]
    {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    // A third, which ran in one part only.
    let third = ModelSpec {
        name: "Tall".into(),
        parameters: 941_056,
        tokens: vec![25, 0],
        ..report.models[0].clone()
    };
    report.models.push(third);
    for run in &mut report.parts[0].runs {
        let own = |name: &str| run.methods.iter().find(|method| method.name == name).unwrap().clone();
        let twin = Method { name: "Model_Tall_Inference".into(), ..own("Model_Small_Inference") };
        run.methods.push(twin);
    }
    let comparison = compare_models(&report).unwrap();
    assert_eq!(comparison.parts[0].scaling.len(), 2);
    // Twice the parameters in the same time.
    assert!((comparison.parts[0].scaling[1].efficiency - 2.0).abs() < 1e-9);
    assert!(comparison.parts[0].models[2].forward.is_none());
    assert_eq!(
        comparison.notes,
        ["the model \"Tall\" made no tokens that were timed in the part \"with cache\""]
    );
    let text = render_models(&comparison);
    assert!(text.contains("| metric | Small | Medium | Tall | Medium ratio | Tall ratio |"), "{text}");
}

#[test]
fn the_only_model_is_found_by_what_it_did() {
    let mut report = sample::report();
    report.models.truncate(1);
    report.models[0].name = "file".into();
    report.parts.truncate(1);
    report.models[0].tokens.truncate(1);
    let method =
        |name: &str| Method { name: name.into(), calls: 25, total_ns: 50_000_000, ..Method::default() };
    for name in ["InferenceComplete", "decode", "Decode_Token", "Prefill_128"] {
        report.parts[0].runs = vec![Run { methods: vec![method("other"), method(name)], ..Run::default() }];
        let comparison = compare_models(&report).unwrap();
        let figures = &comparison.parts[0].models[0];
        assert_eq!(figures.method, name);
        assert!((figures.tokens_per_second - 500.0).abs() < 1e-9);
        assert!(render_models(&comparison).contains("One model only"));
    }
    report.parts[0].runs = vec![Run { methods: vec![method("other")], ..Run::default() }];
    assert!(compare_models(&report).unwrap_err().to_string().contains("no model that made tokens"));
}
