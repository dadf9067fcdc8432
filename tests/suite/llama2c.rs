//! The files of llama2.c: with stories15M, in the folder that the environment variable SMALLMIND_STORIES names, the greedy
//! tokens of llama2.c itself.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value as Json;
use smallmind::kv::CacheType;
use smallmind::model::foreign::llama2c;
use smallmind::model::{LoadParams, Model};
use smallmind::runtime::{Context, ContextParams, Logits};

use crate::common::golden_path;

/// The likeliest token of a row.
fn best(row: &[f32]) -> u32 {
    let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.expect("a row").0 as u32
}

#[test]
fn stories_go_on_as_llama2_c_tells_them() {
    let Some(folder) = std::env::var_os("SMALLMIND_STORIES") else { return };
    let file = |name: &str| Path::new(&folder).join(name);
    let source = llama2c(&file("model.bin"), &file("tokenizer.bin")).unwrap();
    let model = Model::from_source(Arc::new(source), &LoadParams::default()).unwrap();
    let tokenizer = model.tokenizer().unwrap();
    let golden: Json = serde_json::from_slice(&std::fs::read(golden_path("llama2c.json")).unwrap()).unwrap();
    let prompts = golden.as_array().unwrap();
    assert_eq!(prompts.len(), 4);
    for prompt in prompts {
        let text = prompt["text"].as_str().unwrap();
        let ids: Vec<u32> =
            prompt["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        // llama2.c of this version puts no space in front of a text, so its tokens of the prompt are taken.
        let ends = |n: &usize| tokenizer.decode(&ids[..*n], true).unwrap().len() >= text.len();
        let n_prompt = (1..ids.len()).find(ends).unwrap();
        let said = tokenizer.decode(&ids[..n_prompt], true).unwrap();
        assert_eq!(said.trim_start(), text);
        let params = ContextParams::default()
            .with_n_ctx(ids.len())
            .with_n_output(ids.len())
            .with_kv(CacheType::F32)
            .with_threads(1);
        let mut context = Context::new(model.clone(), &params).unwrap();
        context.decode(&ids[..ids.len() - 1], Logits::All).unwrap();
        let rows: Vec<_> = context.logits().chunks_exact(model.config().n_vocab).collect();
        for (at, (row, &next)) in rows.iter().zip(&ids[1..]).enumerate().skip(n_prompt - 1) {
            assert_eq!(best(row), next, "{text:?}, token {at} of {}", ids.len());
        }
        println!("{text:?}: {} tokens", ids.len() - n_prompt);
    }
}
