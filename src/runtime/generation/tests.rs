//! Tests of the state machine with made-up logits on a vocabulary of all bytes, and of stop strings against a plain
//! search in the whole text. The last tests run a small model.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;

use super::text::Text;
use super::{
    Event, Feed, Generation, GenerationParams, MAX_STOP_BYTES, MAX_STOPS, Output, StopReason, drive,
};
use crate::model::{LoadParams, Model};
use crate::runtime::generate::generate;
use crate::runtime::sampling::{Mask, Sampler, SamplerParams, Stage, TokenSet};
use crate::runtime::{Context, ContextParams, Logits};
use crate::tokenizer::{Tokenizer, TokenizerSource};
use crate::{Error, Result};

/// Token n of 0 to 255 is the byte n; token 256 ends a text.
const END: u32 = 256;
const N_VOCAB: usize = 257;

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
    // GPT-2's spelling of bytes: printable bytes as themselves, the others from U+0100 on.
    let printable = |byte: u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let mut others = 0x100..;
    let spelled = |byte| if printable(byte) { byte } else { others.next().unwrap() };
    let spelled = (0..256).map(spelled).map(|char| char::from_u32(char).unwrap().to_string());
    let tokens: Vec<_> = spelled.chain(["<end>".into()]).collect();
    let mut token_types = vec![1; N_VOCAB];
    token_types[END as usize] = 3;
    let source = TokenizerSource {
        model: "gpt2".into(),
        pre: "gpt-2".into(),
        tokens,
        token_types,
        eos: Some(END),
        ..TokenizerSource::default()
    };
    Tokenizer::new(source).unwrap()
});

/// Logits with which a greedy sampler takes the token.
fn wish(token: u32) -> Vec<f32> {
    (0..N_VOCAB).map(|id| if id == token as usize { 1.0 } else { 0.0 }).collect()
}

fn greedy() -> Sampler {
    Sampler::new(SamplerParams::greedy(), N_VOCAB).unwrap()
}

fn params<'a>(max_tokens: usize, stops: &'a [&'a str]) -> GenerationParams<'a> {
    GenerationParams { max_tokens, stops, prompt_piece: 0, ..GenerationParams::default() }
}

/// The results of a generation: token and text of each output, the result of `finish`, and the reason of its end.
#[derive(Debug, PartialEq)]
struct Given {
    outputs: Vec<(u32, String)>,
    rest: Option<(u32, String)>,
    reason: StopReason,
}

impl Given {
    fn text(&self) -> String {
        self.outputs.iter().chain(&self.rest).map(|(_, text)| text.as_str()).collect()
    }
}

fn owned(output: Output<'_>) -> (u32, String) {
    (output.token, output.text.to_owned())
}

/// Generates these tokens after a prompt of one token, and then the end of the text.
fn written(tokens: &[u32], params: &GenerationParams<'_>) -> Given {
    let (mut generation, mut sampler) = (Generation::new(&[0], params).unwrap(), greedy());
    let mut outputs = Vec::new();
    let mut model = tokens.iter().copied().chain(std::iter::repeat(END));
    while generation.wanted().is_some() {
        let logits = wish(model.next().unwrap());
        outputs.extend(generation.fed(&logits, &mut sampler, &*TOKENIZER).unwrap().map(owned));
    }
    let rest = generation.finish().map(owned);
    assert_eq!(generation.finish(), None);
    assert!(generation.fed(&wish(1), &mut sampler, &*TOKENIZER).is_err());
    Given { outputs, rest, reason: generation.reason().unwrap() }
}

fn bytes(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

#[test]
fn a_prompt_is_wanted_in_pieces_and_then_each_token() {
    let params = GenerationParams { max_tokens: 3, prompt_piece: 2, ..GenerationParams::default() };
    let mut generation = Generation::new(&[1, 2, 3, 4, 5], &params).unwrap();
    let mut sampler = greedy();
    for (read, tokens) in [(0, [1, 2]), (2, [3, 4])] {
        assert_eq!(generation.wanted(), Some(Feed { tokens: &tokens, logits: false }));
        assert_eq!(generation.n_read(), read);
        assert_eq!(generation.fed(&[], &mut sampler, &*TOKENIZER).unwrap(), None);
    }
    assert_eq!(generation.wanted(), Some(Feed { tokens: &[5], logits: true }));
    for (i, token) in [65, 66, 67].into_iter().enumerate() {
        assert_eq!((generation.n_generated(), generation.reason()), (i, None));
        let output = generation.fed(&wish(token), &mut sampler, &*TOKENIZER).unwrap().unwrap();
        assert_eq!((output.token, output.text), (token, ["A", "B", "C"][i]));
        let next = Some(Feed { tokens: &[token], logits: true });
        assert_eq!(generation.wanted(), next.filter(|_| i < 2));
    }
    assert_eq!((generation.n_read(), generation.n_generated()), (5, 3));
    assert_eq!(generation.reason(), Some(StopReason::Length));
}

#[test]
fn penalties_see_the_prompt() {
    let params = SamplerParams { presence_penalty: 2.0, penalty_last_n: 8, ..SamplerParams::greedy() };
    let mut sampler = Sampler::new(params, N_VOCAB).unwrap();
    let mut generation = Generation::new(&[70], &GenerationParams::default()).unwrap();
    // 70 is the likeliest, then 71.
    let logits: Vec<_> = (0..N_VOCAB)
        .map(|id| [0.5, 1.0, 0.9][[70, 71].iter().position(|&t| t == id).map_or(0, |at| at + 1)])
        .collect();
    assert_eq!(generation.fed(&logits, &mut sampler, &*TOKENIZER).unwrap().unwrap().token, 71);
}

#[test]
fn every_reason_to_end() {
    let hello = bytes("hello");
    let given = written(&hello, &params(99, &[]));
    assert_eq!((given.text(), given.reason), ("hello".into(), StopReason::EndOfText));
    assert_eq!(given.outputs.len(), 5, "the token that ends a text is none of it");
    let given = written(&hello, &params(4, &[]));
    assert_eq!((given.text(), given.reason), ("hell".into(), StopReason::Length));
    let given = written(&hello, &params(0, &[]));
    assert_eq!((given.outputs.len(), given.rest, given.reason), (0, None, StopReason::Length));
    let given = written(&hello, &params(99, &["lo", "ll"]));
    assert_eq!((given.text(), given.reason), ("he".into(), StopReason::StopString));
    assert_eq!(given.outputs.len(), 4, "an output for each token, with a text or without");
    // The last token within the limit completes the stop string, which is the reason then.
    let given = written(&hello, &params(4, &["ll"]));
    assert_eq!(given.reason, StopReason::StopString);

    for reason in [StopReason::Callback, StopReason::ContextFull] {
        let mut generation = Generation::new(&[0], &params(1, &["ab"])).unwrap();
        let output = generation.fed(&wish(b'a'.into()), &mut greedy(), &*TOKENIZER).unwrap();
        assert_eq!(output, Some(Output { token: b'a'.into(), text: "", is_new: true }));
        generation.stop(reason);
        assert_eq!((generation.reason(), generation.wanted()), (Some(reason), None));
        let rest = generation.finish().map(owned);
        let expected = (reason == StopReason::ContextFull).then(|| (b'a'.into(), "a".into()));
        assert_eq!(rest, expected, "who doesn't want any more gets nothing");
    }
    // The stop string was complete before the caller could stop.
    let mut generation = Generation::new(&[0], &params(9, &["a"])).unwrap();
    generation.fed(&wish(b'a'.into()), &mut greedy(), &*TOKENIZER).unwrap();
    generation.stop(StopReason::Callback);
    assert_eq!(generation.reason(), Some(StopReason::StopString));
}

#[test]
fn errors_end_a_generation() {
    let refused = |prompt: &[u32], stops: &[&str]| {
        Generation::new(prompt, &params(9, stops)).err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert!(refused(&[], &[]).contains("the prompt is empty"));
    assert_eq!(refused(&[1], &["x", ""]), "stop string 1 is empty");
    assert_eq!(refused(&[1], &["x"; MAX_STOPS]), "");
    assert_eq!(refused(&[1], &["x"; MAX_STOPS + 1]), "65 stop strings; at most 64 are taken");
    assert_eq!(refused(&[1], &[&"x".repeat(MAX_STOP_BYTES)]), "");
    let long = "x".repeat(MAX_STOP_BYTES + 1);
    assert_eq!(refused(&[1], &[&long]), "stop string 0 has 1025 bytes; at most 1024");

    for (prompt, logits) in [(1, vec![0.0; 3]), (1, vec![f32::NAN; N_VOCAB]), (N_VOCAB as u32, wish(1))] {
        let mut generation = Generation::new(&[prompt], &params(9, &[])).unwrap();
        let error = generation.fed(&logits, &mut greedy(), &*TOKENIZER).unwrap_err();
        assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
        assert_eq!((generation.wanted(), generation.reason()), (None, None));
        assert_eq!(generation.finish(), None);
        assert!(generation.fed(&wish(1), &mut greedy(), &*TOKENIZER).is_err());
    }
}

#[test]
fn characters_and_stop_strings_may_be_cut_anywhere() {
    // Byte by byte: no text within a character, and none within a possible stop string.
    let given = written(&bytes("aé☃b"), &params(99, &["☃c"]));
    let texts: Vec<_> = given.outputs.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(texts, ["a", "", "é", "", "", "", "☃b"]);
    assert_eq!(written(&bytes("aé☃c☃"), &params(99, &["☃c"])).text(), "aé");
    // The end returns the text held back, and U+FFFD for the character that was never completed.
    let mut tokens = bytes("a☃");
    tokens.push(0xe2);
    let given = written(&tokens, &params(99, &["☃c"]));
    assert_eq!((given.text(), given.reason), ("a☃\u{fffd}".into(), StopReason::EndOfText));
    assert_eq!(given.rest, Some((0xe2, "☃\u{fffd}".into())));
    // A stop string may contain U+FFFD, and end with it.
    assert_eq!(written(&tokens, &params(99, &["☃\u{fffd}"])).text(), "a");
}

/// The text up to the stop string that is complete first; of several that are at the same place, the longest.
fn up_to_stop<'t>(text: &'t str, stops: &[&str]) -> &'t str {
    let ends = |end: &usize| {
        stops
            .iter()
            .filter(|stop| text.as_bytes()[..*end].ends_with(stop.as_bytes()))
            .max_by_key(|stop| stop.len())
            .map(|stop| end - stop.len())
    };
    (0..=text.len()).find_map(|end| ends(&end)).map_or(text, |begin| &text[..begin])
}

/// Few letters, so that beginnings of stop strings are common.
fn letters(len: std::ops::Range<usize>) -> impl Strategy<Value = String> {
    let letter = prop::sample::select(vec!["a", "a", "b", "c", "é", "è", "☃", "😀"]);
    prop::collection::vec(letter, len).prop_map(|letters| letters.concat())
}

proptest! {
    #[test]
    fn the_text_ends_at_the_first_stop_string(
        text in letters(0..60),
        stops in prop::collection::vec(letters(1..6), 0..4),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
    ) {
        let stops: Vec<_> = stops.iter().map(String::as_str).collect();
        let expected = up_to_stop(&text, &stops);
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(text.len() + 1)).map(|cut| text.floor_char_boundary(cut)).collect();
        cuts.sort_unstable();
        let (mut search, mut out, mut from, mut found) = (Text::new(&stops).unwrap(), String::new(), 0, false);
        for cut in cuts.into_iter().chain([text.len()]) {
            found = search.push(&text.as_bytes()[from..cut]).unwrap();
            out.push_str(search.ready());
            if found {
                break;
            }
            from = cut;
            // Exactly the text that can't be the beginning of a stop string is ready.
            let begins = |stop: &&str, len| text[..cut].ends_with(stop.get(..len).unwrap_or("\0"));
            let held = |stop: &&str| (0..stop.len()).rev().find(|&len| begins(stop, len));
            let held = stops.iter().filter_map(held).max().unwrap_or(0);
            prop_assert_eq!(&out, &text[..cut - held]);
        }
        if !found {
            prop_assert!(!search.finish());
            out.push_str(search.ready());
        }
        prop_assert_eq!(&out, expected);
        prop_assert_eq!(found, expected.len() < text.len());
    }

    /// The same through the whole state machine, with bytes that are no UTF-8 among them.
    #[test]
    fn generated_text_ends_at_the_first_stop_string(
        tokens in prop::collection::vec(prop_oneof![Just(0x61u32), Just(0x62), Just(0xe2), Just(0x98), Just(0x83), 0u32..256], 0..40),
        stops in prop::collection::vec(prop::sample::select(vec!["a", "ab", "ba", "☃", "b☃", "a\u{fffd}", "\u{fffd}\u{fffd}b"]), 0..3),
    ) {
        let all: Vec<_> = tokens.iter().map(|&token| token as u8).collect();
        let text = String::from_utf8_lossy(&all);
        let given = written(&tokens, &params(99, &stops));
        prop_assert_eq!(given.text(), up_to_stop(&text, &stops));
    }
}

#[test]
fn a_stop_string_in_a_long_text_takes_linear_time() {
    // The worst case of a plain search: a beginning of the stop string everywhere, and never the whole.
    let stop = "a".repeat(MAX_STOP_BYTES - 1) + "b";
    let mut search = Text::new(&[&stop]).unwrap();
    let piece = "a".repeat(1 << 20);
    assert!(!search.push(piece.as_bytes()).unwrap());
    assert_eq!(search.ready().len(), piece.len() - (MAX_STOP_BYTES - 1));
    assert!(search.push(b"b").unwrap());
    assert_eq!(search.ready(), "");
}

fn tiny() -> Arc<Model> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/gguf/untied-mixed.gguf");
    Model::open(&path, &LoadParams::default()).unwrap()
}

fn context(model: &Arc<Model>, n_ctx: usize) -> Context {
    Context::new(model.clone(), &ContextParams { n_ctx, threads: 1, ..ContextParams::default() }).unwrap()
}

/// Decodes, samples and accepts token by token, without a `Generation`; returns the tokens before the end of the text.
fn by_hand(context: &mut Context, sampler: &mut Sampler, prompt: &[u32], n: usize) -> Result<Vec<u32>> {
    context.decode(prompt, Logits::Last)?;
    prompt.iter().try_for_each(|&token| sampler.accept(token))?;
    let mut tokens = Vec::new();
    while tokens.len() < n {
        let token = sampler.sample(context.logits())?;
        sampler.accept(token)?;
        if context.model().tokenizer()?.is_end_of_generation(token) {
            break;
        }
        tokens.push(token);
        context.decode(&[token], Logits::Last)?;
    }
    Ok(tokens)
}

#[test]
fn the_driver_writes_what_a_loop_by_hand_writes() {
    let model = tiny();
    let prompt: Vec<u32> = (0..20).map(|i| (i * 37 + 5) % 256).collect();
    let sampling = SamplerParams { seed: 4, repetition_penalty: 1.2, ..SamplerParams::default() };
    let sampler = || Sampler::new(sampling, model.config().n_vocab).unwrap();
    let expected = by_hand(&mut context(&model, 128), &mut sampler(), &prompt, 40).unwrap();
    assert!(expected.len() > 10, "too few tokens to show anything");
    let text = model.tokenizer().unwrap().decode(&expected, false).unwrap();
    for prompt_piece in [0, 1, 7, 20, 99] {
        let (mut tokens, mut got, mut reads) = (Vec::new(), String::new(), Vec::new());
        let params = GenerationParams { max_tokens: 40, prompt_piece, ..GenerationParams::default() };
        let summary = drive(&mut context(&model, 128), &mut sampler(), &prompt, &params, &mut |event| {
            match event {
                Event::Prompt { read, total } => {
                    assert_eq!(total, 20);
                    reads.push(read);
                }
                Event::Output(output) => {
                    tokens.push(output.token);
                    got.push_str(output.text);
                }
                Event::Logprobs { .. } => panic!("nobody asked for log-probabilities"),
            }
            ControlFlow::Continue(())
        });
        let summary = summary.unwrap();
        assert_eq!(&tokens[..expected.len()], expected);
        // At most one more: U+FFFD for an incomplete character, with the last token again.
        assert!(tokens[expected.len()..].iter().all(|token| token == expected.last().unwrap()));
        assert_eq!(got, text);
        let step = if prompt_piece == 0 { 20 } else { prompt_piece };
        assert_eq!(reads, (0..20).step_by(step).collect::<Vec<_>>());
        assert_eq!(summary.n_prompt, 20);
    }
    let mut tokens = Vec::new();
    generate(&mut context(&model, 128), &mut sampler(), &prompt, 40, &mut |token, _| {
        tokens.push(token);
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(&tokens[..expected.len()], expected);
}

#[test]
fn the_driver_ends_where_it_should() {
    let model = tiny();
    let mut sampler = Sampler::new(SamplerParams::greedy(), model.config().n_vocab).unwrap();
    let mut context = context(&model, 32);
    let params = GenerationParams { max_tokens: 99, prompt_piece: 4, ..GenerationParams::default() };
    // Between two pieces of the prompt.
    let summary = drive(&mut context, &mut sampler, &[3; 20], &params, &mut |event| match event {
        Event::Prompt { read: 8, .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    let summary = summary.unwrap();
    assert_eq!((summary.reason, summary.n_prompt, summary.n_generated), (StopReason::Callback, 8, 0));
    assert!(summary.prefill_seconds > 0.0);
    assert_eq!(context.tokens(), [3; 8]);
    // A prompt that doesn't fit changes nothing.
    let mut ignore = |_: Event<'_>| ControlFlow::Continue(());
    let error = drive(&mut context, &mut sampler, &[3; 25], &params, &mut ignore).unwrap_err();
    assert!(matches!(error, Error::ContextFull { n_ctx: 32, needed: 33 }), "{error}");
    assert!(drive(&mut context, &mut sampler, &[], &params, &mut ignore).is_err());
    assert_eq!(context.len(), 8);
    // Until the context is full: one more token can be picked from the logits of the last position.
    let summary = drive(&mut context, &mut sampler, &[3; 20], &params, &mut ignore).unwrap();
    assert_eq!((summary.reason, context.len()), (StopReason::ContextFull, 32));
    assert_eq!(summary.n_generated, 5);
    // No token is to be generated: the logits after the prompt are computed all the same.
    context.clear();
    let none = GenerationParams { max_tokens: 0, ..params };
    let summary = drive(&mut context, &mut sampler, &[3; 5], &none, &mut ignore).unwrap();
    assert_eq!((summary.reason, summary.n_generated, context.len()), (StopReason::Length, 0, 5));
    assert_eq!(context.logits().len(), model.config().n_vocab);
}

#[test]
fn new_tokens_are_told_from_text_that_was_held_back() {
    let mut sampler = greedy();
    for (tokens, stops, news) in [
        // Two of the three bytes of a character: U+FFFD comes with the last token again.
        (&[0xe4, 0xbd][..], &[][..], &[true, true, false][..]),
        (&[0xe4, 0xbd, 0xa0], &[], &[true, true, true]),
        // The beginning of a stop string.
        (&[0x61, 0x62], &["bc"], &[true, true, false]),
        (&[0x61, 0x62, 0x63], &["bc"], &[true, true, true]),
    ] {
        let mut generation = Generation::new(&[0], &params(tokens.len(), stops)).unwrap();
        let mut seen = Vec::new();
        for &token in tokens {
            let output = generation.fed(&wish(token), &mut sampler, &*TOKENIZER).unwrap().unwrap();
            assert_eq!(output.token, token);
            seen.push(output.is_new);
        }
        seen.extend(generation.finish().map(|output| output.is_new));
        assert_eq!(seen, news, "{tokens:?}");
        assert_eq!(generation.last_sampled(), tokens.last().copied());
    }
}

#[test]
fn without_a_tokenizer_tokens_come_without_text() {
    let (mut generation, mut sampler) = (Generation::new(&[1, 2], &params(2, &[])).unwrap(), greedy());
    for token in [9, END] {
        let output = generation.fed(&wish(token), &mut sampler, None).unwrap().unwrap();
        assert_eq!((output.token, output.text, output.is_new), (token, "", true));
    }
    assert_eq!((generation.reason(), generation.finish()), (Some(StopReason::Length), None));

    let model = Model::random(&crate::model::GptConfig::SMALL, 1, &LoadParams::default()).unwrap();
    let mut sampler = Sampler::new(SamplerParams::greedy(), model.config().n_vocab).unwrap();
    let mut context = context(&model, 32);
    let needs_none = GenerationParams::default().with_max_tokens(5).with_needs_text(false);
    let mut count = 0;
    let mut on_event = |event: Event<'_>| {
        count += usize::from(matches!(event, Event::Output(_)));
        ControlFlow::Continue(())
    };
    let summary = drive(&mut context, &mut sampler, &[1, 2], &needs_none, &mut on_event).unwrap();
    assert_eq!((summary.n_generated, count, context.len()), (5, 5, 6));
    let mut ignore = |_: Event<'_>| ControlFlow::Continue(());
    for params in [needs_none.with_needs_text(true), needs_none.with_stops(&["a"])] {
        let refused = drive(&mut context, &mut sampler, &[1], &params, &mut ignore);
        assert!(matches!(refused, Err(Error::Unsupported(_))));
        assert_eq!(context.len(), 6);
    }
}

/// Two turns on one context, the second beginning with the first's last token, have the bits of one prompt with all tokens.
#[test]
fn a_second_turn_goes_on_exactly() {
    let model = tiny();
    let mut sampler = Sampler::new(SamplerParams::greedy(), model.config().n_vocab).unwrap();
    let turns: [&[u32]; 3] = [&[3; 20], &[7, 8, 9], &[200]];
    for (stops, limit) in [(&[][..], 1), (&[], 6), (&["zz"], 40)] {
        let (mut talk, mut all, mut last) = (context(&model, 256), Vec::new(), None);
        for turn in turns {
            let prompt: Vec<u32> = last.into_iter().chain(turn.iter().copied()).collect();
            let (mut generated, mut calls) = (Vec::new(), 0);
            let params = GenerationParams::default().with_max_tokens(limit).with_stops(stops);
            let summary = drive(&mut talk, &mut sampler, &prompt, &params, &mut |event| {
                if let Event::Output(output) = event {
                    generated.extend(output.is_new.then_some(output.token));
                    calls += 1;
                }
                if calls == 12 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            let summary = summary.unwrap();
            all.extend(turn);
            all.extend(&generated);
            if summary.reason == StopReason::EndOfText {
                all.extend(summary.last_token);
            } else {
                assert_eq!(summary.last_token, generated.last().copied());
            }
            // Whatever ended it: everything but the last token.
            assert_eq!(talk.tokens(), &all[..all.len() - 1], "{:?}", summary.reason);
            last = summary.last_token;
        }
        let mut whole = context(&model, 256);
        talk.decode(&all[all.len() - 1..], Logits::Last).unwrap();
        whole.decode(&all, Logits::Last).unwrap();
        let bits = |context: &Context| context.logits().iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&talk), bits(&whole));
    }
}

#[test]
fn a_generation_that_is_cancelled_before_it_begins_changes_nothing() {
    let model = tiny();
    let mut sampler = Sampler::new(SamplerParams::greedy(), model.config().n_vocab).unwrap();
    let mut context = context(&model, 64);
    let mut ignore = |_: Event<'_>| ControlFlow::Continue(());
    let numbered = |id| GenerationParams::default().with_max_tokens(2).with_id(id);
    context.canceller().cancel_generation(2);
    for (id, runs) in [(1, false), (2, false), (3, true), (0, true)] {
        let before = context.len();
        let done = drive(&mut context, &mut sampler, &[5, 6], &numbered(id), &mut ignore);
        assert_eq!(done.is_ok(), runs, "{id}");
        assert_eq!(context.len(), before + if runs { 3 } else { 0 });
    }
    // From a callback, by its number: the next pass is the first that doesn't run.
    let canceller = context.canceller();
    let cancelled = drive(&mut context, &mut sampler, &[5], &numbered(4), &mut |_| {
        canceller.cancel_generation(4);
        ControlFlow::Continue(())
    });
    assert!(matches!(cancelled, Err(Error::Cancelled)));
}

/// A mask whose texts are one list of tokens; it knows the next `seen` of them.
struct List {
    tokens: Vec<u32>,
    at: usize,
    seen: usize,
}

impl Mask for List {
    fn allow(&mut self, allowed: &mut TokenSet) -> Result<()> {
        match self.tokens.get(self.at) {
            Some(&next) => allowed.insert(next),
            None => allowed.insert_all(),
        }
        Ok(())
    }

    fn accept(&mut self, _: u32) -> Result<()> {
        self.at += 1;
        Ok(())
    }

    fn rollback(&mut self, n: usize) {
        self.at -= n;
    }

    fn reset(&mut self) {
        self.at = 0;
    }

    fn forced(&mut self, tokens: &mut Vec<u32>) -> Result<()> {
        tokens.extend(self.tokens.iter().skip(self.at).take(self.seen));
        Ok(())
    }
}

/// What a generation under such a mask writes: its tokens, its text, why it ended, and what the context holds.
fn forced_run(
    seen: usize,
    list: &[u32],
    params: &GenerationParams<'_>,
    n_ctx: usize,
    break_at: usize,
) -> (Vec<u32>, String, StopReason, Vec<u32>) {
    let model = tiny();
    let mut context = context(&model, n_ctx);
    let mask = List { tokens: list.to_vec(), at: 0, seen };
    let stages = vec![Stage::Mask(Box::new(mask)), Stage::TopK(5), Stage::Draw { seed: 6 }];
    let mut sampler = Sampler::from_stages(stages, model.config().n_vocab).unwrap();
    let (mut tokens, mut text) = (Vec::new(), String::new());
    let summary = drive(&mut context, &mut sampler, &[3, 4, 5], params, &mut |event| {
        if let Event::Output(output) = event {
            tokens.extend(output.is_new.then_some(output.token));
            text += output.text;
        }
        if tokens.len() == break_at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .unwrap();
    assert_eq!(context.len(), 3 + summary.n_generated - 1);
    (tokens, text, summary.reason, context.tokens().to_vec())
}

/// Tokens that a mask forces and tells make the same text and the same context as those that are sampled one by one.
#[test]
fn forced_tokens_change_nothing() {
    let list = [70, 71, 72, 73, 74, 75, 76];
    let model = tiny();
    let tokenizer = model.tokenizer().unwrap();
    let stop = tokenizer.decode(&list[3..5], false).unwrap();
    let stops = [stop.as_str()];
    let cases = [
        (params(20, &[]), 64, 99),
        // Each limit in the middle of the forced tokens.
        (params(4, &[]), 64, 99),
        (params(20, &stops), 64, 99),
        (params(20, &[]), 8, 99),
        (params(20, &[]), 64, 3),
    ];
    for (params, n_ctx, break_at) in cases {
        let plain = forced_run(0, &list, &params, n_ctx, break_at);
        for seen in [1, 2, 3, 50] {
            assert_eq!(forced_run(seen, &list, &params, n_ctx, break_at), plain, "{seen} of {params:?}");
        }
        assert!(plain.0.len() >= 3, "{plain:?}");
    }
    // An end that is forced.
    let end = [70, 71, tokenizer.eos().unwrap(), 72];
    let ended = forced_run(50, &end, &params(20, &[]), 64, 99);
    assert_eq!((&ended.0[..], ended.2), (&end[..2], StopReason::EndOfText));
    assert_eq!(ended, forced_run(0, &end, &params(20, &[]), 64, 99));
}
