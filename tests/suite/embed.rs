//! The embedder: vectors of any batch are those of the plain path, one text an engine's pass, to the bit; what long texts,
//! dimensions and lengths make of them, by hand in f64; and the outcome of every bad input.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::common::embedders::{CLS, SEP, bare, family, load, with_vocabulary};
use crate::common::families::Logits as Golden;
use crate::common::golden;
use smallmind::Error;
use smallmind::embed::{Embedder, EmbedderParams, LongTexts, Prompt, Results, Strategy, Summary, TextStatus};
use smallmind::format::gguf::{Gguf, Value};
use smallmind::format::{ByteSource, BytesSource};
use smallmind::kernels::qmatmul::Activations;
use smallmind::model::foreign::open_source;
use smallmind::model::quantize::{Mix, QuantizeParams, QuantizePlan};
use smallmind::model::{LoadParams, Model, Pooling};
use smallmind::runtime::{Batch, Engine, EngineParams, Output, Span};
use smallmind::threads::Team;

/// Pooled rows as they are.
fn plain() -> EmbedderParams {
    EmbedderParams::default().with_normalize(false).with_threads(1)
}

/// The pooled row of a text alone in a pass, all of whose rows are output rows.
fn alone(model: &Arc<Model>, pooling: Pooling, tokens: &[u32]) -> Vec<f32> {
    let params = EngineParams::default()
        .with_n_ctx(tokens.len())
        .with_n_batch(tokens.len())
        .with_n_output(tokens.len())
        .with_output(Output::Pooled(pooling));
    let mut engine = Engine::new(model.clone(), &params, Arc::new(Team::new(1).unwrap())).unwrap();
    let spans = [Span::new(engine.create().unwrap(), 0, tokens.len())];
    let outputs: Vec<u32> = (0..tokens.len() as u32).collect();
    engine.run(&Batch::new(tokens, &spans, &outputs)).unwrap();
    engine.output().to_vec()
}

/// Rows of the embedder's width with three floats between them, and statuses.
struct Made {
    rows: Vec<f32>,
    width: usize,
    statuses: Vec<TextStatus>,
}

/// What stands between rows.
const CANARY: f32 = 77.5;

impl Made {
    fn by(
        embedder: &mut Embedder,
        n: usize,
        call: impl FnOnce(&mut Embedder, &mut Results<'_>) -> smallmind::Result<Summary>,
    ) -> (Made, smallmind::Result<Summary>) {
        let width = embedder.width();
        let mut made =
            Made { rows: vec![CANARY; n * (width + 3)], width, statuses: vec![TextStatus::NotDone; n] };
        let outcome = call(embedder, &mut Results::new(&mut made.rows, width + 3, &mut made.statuses));
        let between = made.rows.chunks(width + 3).flat_map(|row| &row[width..]);
        assert!(between.copied().all(|x| x == CANARY), "written between rows");
        (made, outcome)
    }

    fn row(&self, i: usize) -> &[f32] {
        &self.rows[i * (self.width + 3)..][..self.width]
    }

    fn bits(&self, i: usize) -> Vec<u32> {
        bits(self.row(i))
    }
}

fn bits(row: &[f32]) -> Vec<u32> {
    row.iter().map(|x| x.to_bits()).collect()
}

fn embed(embedder: &mut Embedder, texts: &[&str]) -> Made {
    let (made, outcome) = Made::by(embedder, texts.len(), |embedder, results| embedder.embed(texts, results));
    let summary = outcome.unwrap();
    let with_vector = made.statuses.iter().filter(|status| status.has_vector()).count();
    assert_eq!((summary.texts, summary.with_vector), (texts.len(), with_vector));
    made
}

fn embed_tokens(embedder: &mut Embedder, spans: &[&[u32]]) -> Made {
    let (made, outcome) =
        Made::by(embedder, spans.len(), |embedder, results| embedder.embed_tokens(spans, results));
    outcome.unwrap();
    made
}

/// Spans of these lengths of a vocabulary of 100 tokens.
fn spans(lengths: &[usize]) -> Vec<Vec<u32>> {
    let span =
        |(i, &len): (usize, &usize)| (0..len).map(|j| ((31 * i + 7 * j + j * j) % 100) as u32).collect();
    lengths.iter().enumerate().map(span).collect()
}

#[test]
fn vectors_of_any_batch_are_those_of_each_text_alone() {
    let lengths: Vec<_> = (0..40).map(|i| [1, 2, 3, 5, 8, 90, 17, 33, 64, 4][i % 10] + i % 3).collect();
    let spans = spans(&lengths);
    let models = [
        ("bert-mean", None),
        ("bert-cls", None),
        ("bert-last", None),
        ("gemma-embedding-dense", None),
        ("qwen3-last", None),
        ("modern-bert", Some(Pooling::Mean)),
        ("nomic-bert-moe", Some(Pooling::Cls)),
        ("llama-dense", Some(Pooling::Last)),
        ("gemma3-dense", Some(Pooling::Mean)),
        ("lfm2-dense", Some(Pooling::Last)),
    ];
    for (name, chosen) in models {
        let model = bare(name);
        let pooling = chosen.or(model.config().pooling).unwrap();
        let wanted: Vec<_> = spans.iter().map(|span| bits(&alone(&model, pooling, span))).collect();
        for (strategy, threads, n_batch) in [
            (Strategy::Fine, 1, 0),
            (Strategy::Fine, 2, 40),
            (Strategy::Coarse, 2, 0),
            (Strategy::Coarse, 3, 100),
            (Strategy::Auto, 2, 96),
        ] {
            let params = plain()
                .with_pooling(chosen)
                .with_strategy(strategy)
                .with_threads(threads)
                .with_n_batch(n_batch)
                .with_n_ctx(96);
            let mut embedder = Embedder::new(model.clone(), &params).unwrap();
            // Again in another order: what an earlier call left behind changes nothing.
            for reversed in [false, true] {
                let mut order: Vec<usize> = (0..spans.len()).collect();
                if reversed {
                    order.reverse();
                }
                let given: Vec<_> = order.iter().map(|&i| spans[i].as_slice()).collect();
                let made = embed_tokens(&mut embedder, &given);
                for (place, &i) in order.iter().enumerate() {
                    let what = format!("{name}, {strategy:?} on {threads}, text {i}");
                    assert_eq!(made.statuses[place], TextStatus::Done, "{what}");
                    assert!(made.bits(place) == wanted[i], "{what} has other bits than alone");
                }
            }
        }
        // The comparison sees another text's vector.
        assert_ne!(wanted[0], wanted[1], "{name}");
    }
}

#[test]
fn vectors_are_those_of_llama_cpp() {
    for name in ["bert-mean", "bert-cls", "bert-last", "gemma-embedding-dense", "qwen3-last"] {
        let (model, golden) = (bare(name), Golden::read(name));
        let tokens = golden.tokens(model.config().n_vocab);
        let mut embedder = Embedder::new(model, &plain()).unwrap();
        let made = embed_tokens(&mut embedder, &[&tokens[..5], &tokens, &tokens[3..]]);
        let error = |row: &[f32]| golden.error(&row.repeat(tokens.len()));
        assert!(error(made.row(1)) < 1e-6, "{name}: {:.1e}", error(made.row(1)));
        assert!(error(made.row(2)) > 1e-3, "{name}: another text is as near");
    }
}

#[test]
fn dimensions_are_the_first_ones_and_lengths_are_one() {
    let model = with_vocabulary("bert-mean");
    let texts = ["abc de", "the quick brown fox", ""];
    let whole = embed(&mut Embedder::new(model.clone(), &plain()).unwrap(), &texts);
    for dimensions in [0, 1, 20, 64] {
        let params = EmbedderParams::default().with_threads(2).with_dimensions(dimensions);
        let mut embedder = Embedder::new(model.clone(), &params).unwrap();
        let n = if dimensions == 0 { 64 } else { dimensions };
        assert_eq!(embedder.width(), n);
        let made = embed(&mut embedder, &texts);
        for i in 0..texts.len() {
            let row = whole.row(i)[..n].iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
            let length = row.iter().map(|x| x * x).sum::<f64>().sqrt();
            for (x, wanted) in made.row(i).iter().zip(row) {
                assert!((f64::from(*x) - wanted / length).abs() < 1e-7, "{dimensions}, text {i}");
            }
        }
        assert_eq!(bits(&embedder.embed_one(texts[1]).unwrap()), made.bits(1));
    }
    let params = plain().with_dimensions(65);
    let error = Embedder::new(model, &params).unwrap_err().to_string();
    assert!(error.contains("65") && error.contains("64"), "{error}");
}

/// A text of `n` letters, each a token.
fn letters(n: usize) -> String {
    (0..n).map(|i| char::from(b'a' + (i * i % 26) as u8)).collect()
}

#[test]
fn long_texts_are_cut_refused_or_the_mean_of_their_parts() {
    let model = with_vocabulary("bert-mean");
    let tokenizer = model.tokenizer().unwrap();
    let (n_ctx, prompt) = (20, "p: ");
    let text = letters(50);
    let tokens = tokenizer.encode(&format!("{prompt}{text}"), false, true).unwrap();
    assert_eq!((tokens.len(), tokens[0], tokens[54 - 1]), (54, CLS, SEP), "{tokens:?}");
    let make = |long_texts| {
        let params = plain().with_n_ctx(n_ctx).with_prompt(Prompt::text(prompt)).with_long_texts(long_texts);
        let mut embedder = Embedder::new(model.clone(), &params.with_threads(2)).unwrap();
        embed(&mut embedder, &["ab", &text, "cd"])
    };
    let row = |tokens: &[u32]| alone(&model, Pooling::Mean, tokens);
    let ab = bits(&row(&tokenizer.encode("p: ab", false, true).unwrap()));

    let made = make(LongTexts::Truncate);
    assert_eq!(made.statuses, [TextStatus::Done, TextStatus::Truncated, TextStatus::Done]);
    let cut = [&tokens[..n_ctx - 1], &[SEP]].concat();
    assert_eq!((made.bits(0), made.bits(1)), (ab.clone(), bits(&row(&cut))));

    let made = make(LongTexts::Refuse);
    assert_eq!(made.statuses, [TextStatus::Done, TextStatus::TooLong, TextStatus::Done]);
    assert_eq!((made.bits(0), made.row(1)), (ab.clone(), &[0.0; 64][..]));

    // 3 tokens in front and 1 behind leave 16 for the text's own 50: four parts of 13, 13, 12 and 12.
    let made = make(LongTexts::Split);
    assert_eq!(made.statuses, [TextStatus::Done, TextStatus::Split, TextStatus::Done]);
    assert_eq!(made.bits(0), ab);
    let mut mean = vec![0.0f64; 64];
    for own in [3..16, 16..29, 29..41, 41..53] {
        let part = [&tokens[..3], &tokens[own.clone()], &[SEP]].concat();
        let weight = own.len() as f64 / 50.0;
        mean.iter_mut().zip(row(&part)).for_each(|(mean, x)| *mean += weight * f64::from(x));
    }
    let off =
        |row: &[f32]| row.iter().zip(&mean).map(|(&x, mean)| (f64::from(x) - mean).abs()).fold(0.0, f64::max);
    assert!(off(made.row(1)) < 1e-6, "{}", off(made.row(1)));
    // Even weights would show.
    assert!(off(&row(&cut)) > 1e-3);
}

#[test]
fn long_spans_keep_the_special_tokens_that_they_have() {
    let model = with_vocabulary("bert-mean");
    let params = plain().with_n_ctx(8);
    let mut embedder = Embedder::new(model.clone(), &params).unwrap();
    let own: Vec<u32> = (4..24).collect();
    let whole = [&[CLS], &own[..], &[SEP]].concat();
    let made = embed_tokens(&mut embedder, &[&own, &whole]);
    let row = |tokens: &[u32]| bits(&alone(&model, Pooling::Mean, tokens));
    assert_eq!(made.bits(0), row(&own[..8]));
    assert_eq!(made.bits(1), row(&[&[CLS], &own[..6], &[SEP]].concat()));
}

#[test]
fn one_bad_text_changes_nothing_for_the_others() {
    let model = with_vocabulary("bert-mean");
    for threads in [1, 2] {
        let params = plain().with_threads(threads).with_n_ctx(32).with_long_texts(LongTexts::Refuse);
        let mut embedder = Embedder::new(model.clone(), &params).unwrap();
        let (long, huge) = (letters(100), letters(10 << 20));
        let made = embed(&mut embedder, &["ab", "", &long, &huge, "cd", "[SEP]"]);
        use TextStatus::{BadToken, Done, Empty, TooLong};
        assert_eq!(made.statuses, [Done, Done, TooLong, TooLong, Done, Done]);
        let row = |tokens: &[u32]| bits(&alone(&model, Pooling::Mean, tokens));
        let encode = |text: &str| model.tokenizer().unwrap().encode(text, false, true).unwrap();
        assert_eq!(made.bits(0), row(&encode("ab")));
        // An empty text is the special tokens alone; a special token's text is text.
        assert_eq!(made.bits(1), row(&[CLS, SEP]));
        assert_ne!(made.bits(5), row(&[CLS, SEP, SEP]));

        let made = embed_tokens(&mut embedder, &[&[5], &[], &[128], &[5, 6], &[u32::MAX]]);
        assert_eq!(made.statuses, [Done, Empty, BadToken, Done, BadToken]);
        assert_eq!((made.bits(0), made.bits(3)), (row(&[5]), row(&[5, 6])));
        assert!([1, 2, 4].iter().all(|&i| made.row(i).iter().all(|&x| x == 0.0)));
        for status in &made.statuses {
            assert_eq!(status.check().is_ok(), status.has_vector());
        }
    }
}

#[test]
fn batches_of_none_and_of_a_hundred_thousand() {
    let model = with_vocabulary("bert-mean");
    let mut embedder = Embedder::new(model, &plain().with_threads(2).with_n_ctx(16)).unwrap();
    let summary = embedder.embed(&[], &mut Results::new(&mut [], 0, &mut [])).unwrap();
    assert_eq!((summary.texts, summary.passes), (0, 0));
    let texts: Vec<String> = (0..1000).map(|i| letters(i % 7)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let (mut rows, mut statuses) = (vec![0.0; 1000 * 64], vec![TextStatus::NotDone; 1000]);
    let summary = embedder.embed(&texts, &mut Results::new(&mut rows, 64, &mut statuses)).unwrap();
    assert_eq!((summary.texts, summary.with_vector), (1000, 1000));
    assert!(summary.tokenize_share() > 0.0 && summary.tokenize_share() < 1.0);

    let wanted: Vec<_> =
        (0..100).map(|token| bits(&embed_tokens(&mut embedder, &[&[token]]).rows[..64])).collect();
    let tokens: Vec<u32> = (0..100_000).map(|i| i % 100).collect();
    let many: Vec<&[u32]> = tokens.chunks(1).collect();
    let mut reports = Vec::new();
    let mut progress = |progress: smallmind::embed::Progress| {
        reports.push(progress.texts);
        assert_eq!(progress.of, 100_000);
        ControlFlow::Continue(())
    };
    let (mut rows, mut statuses) = (vec![0.0; 100_000 * 64], vec![TextStatus::NotDone; 100_000]);
    let mut results = Results::new(&mut rows, 64, &mut statuses).with_progress(&mut progress);
    let summary = embedder.embed_tokens(&many, &mut results).unwrap();
    assert_eq!((summary.with_vector, summary.tokens), (100_000, 100_000));
    assert!(reports.is_sorted() && reports.len() > 20 && reports.last() == Some(&100_000));
    for (i, row) in rows.chunks(64).enumerate() {
        assert!(bits(row) == wanted[i % 100], "text {i}");
    }
}

#[test]
fn results_without_room_are_refused() {
    let mut embedder = Embedder::new(with_vocabulary("bert-mean"), &plain()).unwrap();
    let texts = ["a", "b"];
    for (floats, stride, statuses) in
        [(127, 64, 2), (128, 63, 2), (128, 64, 1), (128, usize::MAX, 2), (0, 0, 2)]
    {
        let (mut rows, mut statuses) = (vec![CANARY; floats], vec![TextStatus::NotDone; statuses]);
        let outcome = embedder.embed(&texts, &mut Results::new(&mut rows, stride, &mut statuses));
        assert!(matches!(outcome, Err(Error::InvalidArgument(_))), "{floats} {stride}");
        assert!(rows.iter().all(|&x| x == CANARY));
    }
    let (mut rows, mut statuses) = (vec![0.0; 128], [TextStatus::NotDone; 2]);
    embedder.embed(&texts, &mut Results::new(&mut rows, 64, &mut statuses)).unwrap();
}

#[test]
fn a_model_that_is_no_embedder_says_what_it_is() {
    let error = |name: &str, params: &EmbedderParams| match Embedder::new(bare(name), params) {
        Err(Error::Unsupported(text)) => text,
        other => panic!("{name}: {other:?}"),
    };
    assert!(error("bert", &plain()).contains("no pooling: choose one"));
    assert!(error("llama-dense", &plain()).contains("writes text"));
    assert!(error("bert-mean", &plain().with_pooling(Pooling::Rank)).contains("classifier"));
    let mut embedder = Embedder::new(bare("llama-dense"), &plain().with_pooling(Pooling::Last)).unwrap();
    assert_eq!(embed_tokens(&mut embedder, &[&[1, 2, 3]]).statuses, [TextStatus::Done]);

    let mut embedder = Embedder::new(bare("bert-mean"), &plain()).unwrap();
    let outcome = embedder.embed_one("a");
    assert!(matches!(outcome, Err(Error::Format(_))), "no tokenizer: {outcome:?}");
    let (mut row, mut status) = ([0.0], [TextStatus::NotDone]);
    let outcome = embedder.rerank("q", &["d"], &mut Results::new(&mut row, 1, &mut status));
    assert!(outcome.unwrap_err().to_string().contains("no reranker"));
    let mut reranker = Embedder::new(with_vocabulary("bert-rank"), &plain()).unwrap();
    assert!(reranker.embed_one("a").unwrap_err().to_string().contains("is a reranker"));

    let wrong = [
        plain().with_threads(0),
        plain().with_threads(5000),
        plain().with_n_ctx(129),
        plain().with_n_batch(1 << 20),
    ];
    for params in wrong {
        let outcome = Embedder::new(bare("bert-mean"), &params);
        assert!(matches!(outcome, Err(Error::InvalidArgument(_))), "{params:?}");
    }
    let split = plain().with_long_texts(LongTexts::Split);
    assert!(Embedder::new(with_vocabulary("bert-rank"), &split).is_err());
}

#[test]
fn scores_are_those_of_query_and_document_in_one_text() {
    let scores = |model: &Arc<Model>, query: &str, documents: &[&str]| {
        let params = EmbedderParams::default().with_threads(2).with_n_ctx(30);
        let mut embedder = Embedder::new(model.clone(), &params).unwrap();
        assert_eq!(embedder.width(), 1);
        let (made, outcome) = Made::by(&mut embedder, documents.len(), |embedder, results| {
            embedder.rerank(query, documents, results)
        });
        outcome.unwrap();
        made
    };
    let model = with_vocabulary("bert-rank");
    let encode = |text: &str| model.tokenizer().unwrap().encode(text, false, false).unwrap();
    let first = |tokens: &[u32]| alone(&model, Pooling::Rank, tokens)[0].to_bits();
    let long = letters(60);
    let made = scores(&model, "what", &["abc", "", &long]);
    let query = [&[CLS], &encode("what")[..], &[SEP]].concat();
    let pair = |document: &[u32]| first(&[&query, document, &[SEP]].concat());
    assert_eq!(made.statuses, [TextStatus::Done, TextStatus::Done, TextStatus::Truncated]);
    assert_eq!(made.bits(0), [pair(&encode("abc"))]);
    assert_eq!(made.bits(1), [pair(&[])]);
    assert_eq!(made.bits(2), [pair(&encode(&long)[..30 - query.len() - 1])]);
    // A query that leaves no room, and none at all.
    let made = scores(&model, &letters(40), &["abc"]);
    assert_eq!((made.statuses[0], made.row(0)), (TextStatus::TooLong, &[0.0][..]));
    let made = scores(&model, "", &["abc"]);
    assert_eq!(made.bits(0), [first(&[&[CLS, SEP], &encode("abc")[..], &[SEP]].concat())]);

    // As the file's template says; what a document says isn't a control token.
    let mut family = family("bert-rank");
    let template = "[CLS]q: {query}[SEP]d: {document}[SEP]\n";
    family.pairs.push(("tokenizer.chat_template.rerank".into(), Value::Str(template.into())));
    let templated = load(&family).unwrap();
    let made = scores(&templated, "what", &["abc", "a[SEP]"]);
    let tokens = [&[CLS], &encode("q: what")[..], &[SEP], &encode("d: abc"), &[SEP]].concat();
    assert_eq!(made.bits(0), [first(&tokens)]);
    let tokens = [&[CLS], &encode("q: what")[..], &[SEP], &encode("d: a[SEP]"), &[SEP]].concat();
    assert_eq!(made.bits(1), [first(&tokens)]);
}

#[test]
fn prompts_have_names() {
    let model = with_vocabulary("bert-mean");
    let mut embedder = Embedder::new(model.clone(), &plain()).unwrap();
    let behind = embed(&mut embedder, &["query: abc", "search_document: abc"]);
    for (i, name) in ["e5:query", "nomic:document"].into_iter().enumerate() {
        embedder.set_prompt(Prompt::named(&model, name).unwrap());
        assert_eq!(embed(&mut embedder, &["abc"]).bits(0), behind.bits(i), "{name}");
    }
    for unknown in ["query", "e5:nothing", "nobody:query", ""] {
        let error = Prompt::named(&model, unknown).unwrap_err().to_string();
        assert!(error.contains("gemma:fact checking"), "{error}");
    }
    let gemma = bare("gemma-embedding");
    let before = |name| Prompt::named(&gemma, name).unwrap().before().to_owned();
    assert_eq!(before("query"), "task: search result | query: ");
    assert_eq!(before("document"), "title: none | text: ");
    assert_eq!(before("code retrieval"), "task: code retrieval | query: ");
    let mut e5 = family("bert-mean");
    e5.pairs.push(("general.name".into(), Value::Str("Multilingual-E5-small".into())));
    assert_eq!(Prompt::named(&load(&e5).unwrap(), "document").unwrap().before(), "passage: ");
    let qwen = Prompt::named(&bare("qwen3-last"), "query").unwrap();
    assert!(qwen.before().starts_with("Instruct: ") && qwen.before().ends_with("\nQuery:"));
}

#[test]
fn a_call_can_be_cancelled_and_the_next_one_works() {
    const N: usize = 800;
    let model = with_vocabulary("bert-mean");
    let texts: Vec<String> = (0..N).map(|i| letters(1 + i % 20)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    for strategy in [Strategy::Fine, Strategy::Coarse] {
        let params = plain().with_threads(2).with_strategy(strategy).with_n_batch(100);
        let mut embedder = Embedder::new(model.clone(), &params).unwrap();
        let wanted = embed(&mut embedder, &texts);
        let (mut rows, mut statuses) = (vec![CANARY; 64 * N], vec![TextStatus::Failed; N]);
        let stop = embedder.stop();
        let mut by_callback = |_| ControlFlow::Break(());
        let mut by_stop = |_| {
            stop.cancel();
            ControlFlow::Continue(())
        };
        let ways: [&mut (dyn FnMut(_) -> _ + Send); 2] = [&mut by_callback, &mut by_stop];
        for way in ways {
            let mut results = Results::new(&mut rows, 64, &mut statuses).with_progress(way);
            assert!(matches!(embedder.embed(&texts, &mut results), Err(Error::Cancelled)), "{strategy:?}");
            let done: Vec<_> = (0..N).filter(|&i| statuses[i] == TextStatus::Done).collect();
            // Another thread may do all passes that are left while the callback's thread has one.
            let some = strategy == Strategy::Coarse || (!done.is_empty() && done.len() < N);
            assert!(some, "{strategy:?}: {} done", done.len());
            assert!(done.iter().all(|&i| bits(&rows[i * 64..][..64]) == wanted.bits(i)));
            assert!(statuses.iter().all(|s| [TextStatus::Done, TextStatus::NotDone].contains(s)));
        }
        // A cancellation without a call does nothing.
        embedder.stop().cancel();
        assert_eq!(embed(&mut embedder, &texts).rows.len(), wanted.rows.len());
    }
}

#[test]
fn memory_is_told_ahead() {
    let model = bare("bert-mean");
    let memory = |params: &EmbedderParams| Embedder::memory(&model, params).unwrap().total_bytes;
    let params = plain().with_threads(3);
    let [fine, coarse, auto] = [Strategy::Fine, Strategy::Coarse, Strategy::Auto]
        .map(|strategy| memory(&params.clone().with_strategy(strategy)));
    assert_eq!(auto, fine + coarse);
    assert_eq!(coarse, 3 * memory(&plain().with_strategy(Strategy::Fine)));
    assert!(memory(&plain().with_n_batch(4096)) > memory(&plain()));
    assert!(Embedder::memory(&model, &plain().with_n_ctx(1000)).is_err());
}

#[test]
fn an_engine_of_single_spans_takes_no_continuation() {
    let model = bare("qwen3-last");
    let params = EngineParams::default().with_n_ctx(8).with_n_batch(8).with_output(Output::Hidden);
    let cache = |params: &EngineParams| Engine::memory(&model, params, 1).unwrap().cache_bytes;
    let single = params.clone().with_one_span(true);
    assert_eq!(cache(&single) * model.config().n_layer(), cache(&params));
    for (params, continues) in [(params, true), (single, false)] {
        let mut engine = Engine::new(model.clone(), &params, Arc::new(Team::new(1).unwrap())).unwrap();
        let sequence = engine.create().unwrap();
        let mut run = |first| engine.run(&Batch::new(&[1, 2], &[Span::new(sequence, first, 2)], &[1]));
        run(0).unwrap();
        assert_eq!(run(2).is_ok(), continues);
        engine.rewind(sequence, 0).unwrap();
        engine.run(&Batch::new(&[1, 2], &[Span::new(sequence, 0, 2)], &[1])).unwrap();
    }
}

/// 1 - the cosine of two rows of length 1.
fn off(row: &[f32], wanted: &[f32]) -> f64 {
    1.0 - row.iter().zip(wanted).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>()
}

/// The model, the golden's sentences with their ids, and the vectors of the model's definition.
type MiniLm = (Arc<dyn ByteSource>, Vec<serde_json::Value>, Vec<f32>);

/// all-MiniLM-L6-v2 in the folder that the environment variable SMALLMIND_MINILM names (`tests/fetch-minilm.sh`), the
/// golden's sentences with their ids, and the vectors of the model's definition.
fn minilm() -> Option<MiniLm> {
    let folder = std::env::var_os("SMALLMIND_MINILM")?;
    let source = open_source(std::path::Path::new(&folder)).unwrap();
    let sentences: Vec<serde_json::Value> = serde_json::from_slice(&golden::read("minilm.json")).unwrap();
    let bytes = golden::read("minilm.bin");
    let mut cursor = golden::Cursor::new(&bytes, b"SMME");
    let (n, width) = (cursor.size(), cursor.size());
    assert_eq!((n, width), (sentences.len(), 384));
    Some((source, sentences, (0..n * width).map(|_| cursor.f32()).collect()))
}

fn texts_of(sentences: &[serde_json::Value]) -> Vec<&str> {
    sentences.iter().map(|sentence| sentence["text"].as_str().unwrap()).collect()
}

#[test]
fn sentences_have_the_vectors_of_minilms_definition() {
    let Some((source, sentences, wanted)) = minilm() else { return };
    let model = Model::from_source(source, &LoadParams::default()).unwrap();
    let (n, texts) = (sentences.len(), texts_of(&sentences));
    for (text, sentence) in texts.iter().zip(&sentences) {
        let ids = model.tokenizer().unwrap().encode(text, false, true).unwrap();
        let theirs = sentence["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32);
        assert_eq!(ids, theirs.collect::<Vec<_>>(), "{text:?}");
    }
    let mut embedder = Embedder::new(model, &EmbedderParams::default().with_threads(2)).unwrap();
    let made = embed(&mut embedder, &texts);
    for (i, wanted) in wanted.chunks(made.width).enumerate() {
        // The definition's GELU is by the error function, ours by tanh, which is 1.6e-6.
        assert!(off(made.row(i), wanted) < 5e-6, "{:?}: {:.1e}", texts[i], off(made.row(i), wanted));
        assert!(off(made.row((i + 1) % n), wanted) > 1e-2, "{:?} is no other text", texts[i]);
    }
}

#[test]
fn encoders_have_adaptive_activations_unless_told_otherwise() {
    let of = |name: &str| bare(name).kernels().qmatmul().activations();
    for name in ["bert-mean", "bert", "gemma-embedding-dense"] {
        assert_eq!(of(name), Activations::Adaptive, "{name}");
    }
    // A model that writes text, and one whose scores have no cosine.
    assert_eq!([of("qwen3-last"), of("bert-rank")], [Activations::Bits16; 2]);
    for chosen in Activations::ALL {
        let source = Arc::new(BytesSource::new("embedder", family("bert-mean").file()));
        let model = Model::from_source(source, &LoadParams::default().with_activations(chosen)).unwrap();
        assert_eq!(model.kernels().qmatmul().activations(), chosen);
    }
}

/// Weights of 8 bits take 1.6e-4 from the cosine, adaptive activations 1e-4 more; 8 bits throughout would take 4e-4.
#[test]
fn quantised_minilm_keeps_its_vectors_by_default() {
    let Some((source, sentences, wanted)) = minilm() else { return };
    let gguf = Gguf::open(source).unwrap();
    let mut bytes = Vec::new();
    let write = |piece: &[u8]| {
        bytes.extend_from_slice(piece);
        Ok(())
    };
    let params = QuantizeParams::new(Mix::named("Q8_0").unwrap());
    QuantizePlan::new(&gguf, &params).unwrap().run(write, |_| ControlFlow::Continue(())).unwrap();
    let source = Arc::new(BytesSource::new("minilm", bytes));
    let worst = |params: LoadParams<'_>| {
        let model = Model::from_source(source.clone(), &params).unwrap();
        let mut embedder = Embedder::new(model, &EmbedderParams::default().with_threads(2)).unwrap();
        let made = embed(&mut embedder, &texts_of(&sentences));
        let offs = wanted.chunks(made.width).enumerate().map(|(i, wanted)| off(made.row(i), wanted));
        offs.fold(0.0, f64::max)
    };
    let most = 3.5e-4;
    assert!(worst(LoadParams::default()) < most);
    assert!(worst(LoadParams::default().with_activations(Activations::Bits8)) > most);
}
