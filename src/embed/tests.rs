//! Windows and their division into passes.

use std::sync::Mutex;

use super::make::{Cut, Maker};
use super::params::LongTexts;
use super::results::TextStatus;
use super::schedule::{Limits, Queue, coarse_is_faster};
use super::source::Spans;
use super::window::Window;

const CUT: Cut<'_> = Cut { n_ctx: 300, long_texts: LongTexts::Truncate, n_vocab: 1000, frame: &[] };

/// A window of texts of these lengths, made by three makers in turns.
fn window(lengths: &[usize], cut: &Cut<'_>) -> Window {
    let spans: Vec<Vec<u32>> = lengths.iter().map(|&len| (0..len as u32).collect()).collect();
    let spans: Vec<&[u32]> = spans.iter().map(Vec::as_slice).collect();
    let mut makers: Vec<Mutex<Maker>> = (0..3).map(|_| Mutex::default()).collect();
    for text in 0..lengths.len() {
        makers[text * text % 3].get_mut().unwrap().make(&Spans(&&spans[..]), text, cut);
    }
    let mut window = Window::default();
    window.gather(&mut makers).unwrap();
    window
}

fn limits(n_batch: usize, workers: usize) -> Limits {
    Limits { n_batch, n_spans: 10, workers }
}

#[test]
fn passes_take_every_text_once_the_longest_first_and_keep_their_limits() {
    let lengths: Vec<_> = (0..200).map(|i| 1 + i * 37 % 150).collect();
    let window = window(&lengths, &CUT);
    assert_eq!(window.n_tokens, lengths.iter().sum::<usize>());
    for (n_batch, workers, coarse) in
        [(100, 1, false), (256, 2, true), (64, 4, true), (30, 2, true), (4096, 3, true)]
    {
        let queue = Queue::new(&window, limits(n_batch, workers), coarse);
        let (mut next, mut longest, mut passes) = (0, usize::MAX, Vec::new());
        while let Some(places) = queue.take() {
            assert_eq!(places.start, next);
            next = places.end;
            let tokens: Vec<_> = window.items(places).map(|item| item.len).collect();
            assert!(!tokens.is_empty() && tokens.len() <= 10);
            assert!(tokens.len() == 1 || tokens.iter().sum::<usize>() <= n_batch, "{tokens:?}");
            assert!(tokens[0] <= longest && tokens.is_sorted_by(|a, b| a >= b));
            longest = tokens[tokens.len() - 1];
            passes.push(tokens.iter().sum::<usize>());
        }
        assert_eq!(next, 200);
        // Passes of several workers get shorter, so that these finish together.
        let last = passes[passes.len() - 1];
        assert!(!coarse || last <= 64, "{n_batch}: {passes:?}");
    }
    let texts: std::collections::HashSet<_> = window.items.iter().map(|item| item.text).collect();
    assert_eq!(texts.len(), 200);
    for item in &window.items {
        let wanted: Vec<u32> = (0..lengths[item.text] as u32).collect();
        assert_eq!(window.tokens_of(item), wanted);
    }
}

#[test]
fn one_text_is_for_all_threads_and_many_are_for_each() {
    let coarse = |lengths: &[usize], workers| {
        coarse_is_faster(&window(lengths, &CUT), limits(512, workers), &mut vec![0.0; workers])
    };
    assert!(!coarse(&[256], 2));
    assert!(!coarse(&[256, 10], 2));
    assert!(!coarse(&[100; 3], 4));
    assert!(coarse(&[100; 64], 2));
    assert!(coarse(&[32; 4000], 8));
}

#[test]
fn parts_of_a_text_keep_its_ends_and_fit() {
    let frame = [0, 1, 999];
    let cut = Cut { n_ctx: 20, long_texts: LongTexts::Split, frame: &frame, ..CUT };
    let window = window(&[50, 7, 101], &cut);
    assert_eq!(window.splits.len(), 2);
    for split in &window.splits {
        let len = [50, 7, 101][split.text];
        let weights = &window.weights[split.slot..split.slot + split.parts];
        assert_eq!(weights.iter().sum::<u32>() as usize, len - 2, "0 and 1 are the frame's");
        assert!(weights.iter().max().unwrap() - weights.iter().min().unwrap() <= 1);
    }
    for item in window.items.iter().filter(|item| item.status == TextStatus::Split) {
        let tokens = window.tokens_of(item);
        assert!(item.len <= 20 && tokens[..2] == [0, 1] && item.len == item.weight as usize + 2);
        let slots = window.splits.iter().find(|split| split.text == item.text).unwrap();
        assert!((slots.slot..slots.slot + slots.parts).contains(&(item.slot.unwrap() as usize)));
    }
    // In the order of the text.
    let of_text = |text| window.items.iter().filter(move |item| item.text == text);
    let own: Vec<u32> = of_text(2).flat_map(|item| window.tokens_of(item)[2..].to_vec()).collect();
    assert_eq!(own, (2..101).collect::<Vec<u32>>());
}

#[test]
fn texts_without_items_say_why() {
    let cut = Cut { n_ctx: 5, long_texts: LongTexts::Refuse, n_vocab: 3, frame: &[] };
    let window = window(&[0, 2, 4, 6], &cut);
    let mut refused = window.refused.clone();
    refused.sort_by_key(|refused| refused.0);
    assert_eq!(refused, [(0, TextStatus::Empty), (2, TextStatus::BadToken), (3, TextStatus::BadToken)]);
    assert_eq!(window.items.len(), 1);
    // A frame that fills the room leaves none.
    let frame: Vec<u32> = (0..10).collect();
    let cut = Cut { n_ctx: 10, long_texts: LongTexts::Split, frame: &frame, ..CUT };
    assert_eq!(self::window(&[30], &cut).refused, [(0, TextStatus::TooLong)]);
}
