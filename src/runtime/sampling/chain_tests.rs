//! Tests of chains in other orders, of masks, and of rollback.
//! Masks of two kinds: one whose answer depends on the last token, and a list of words as a trie.

use super::{MAX_ROLLBACK, Mask, Penalties, Sampler, SamplerParams, Stage, TokenSet};
use crate::{Error, Result};
use proptest::prelude::*;

const DRAW: Stage = Stage::Draw { seed: 3 };

fn sampler(stages: Vec<Stage>, n_vocab: usize) -> Sampler {
    Sampler::from_stages(stages, n_vocab).unwrap()
}

fn refused(stages: Vec<Stage>) -> String {
    Sampler::from_stages(stages, 8).err().map(|error| error.to_string()).unwrap_or_default()
}

/// A mask: after an odd token only even tokens.
#[derive(Default)]
struct NoTwoOdd {
    tokens: Vec<u32>,
}

impl Mask for NoTwoOdd {
    fn allow(&mut self, allowed: &mut TokenSet) -> Result<()> {
        let after_odd = self.tokens.last().is_some_and(|token| token % 2 == 1);
        let tokens = 0..allowed.n_vocab() as u32;
        tokens.filter(|token| !after_odd || token % 2 == 0).for_each(|token| allowed.insert(token));
        Ok(())
    }

    fn accept(&mut self, token: u32) -> Result<()> {
        if token % 2 == 1 && self.tokens.last().is_some_and(|last| last % 2 == 1) {
            return Err(Error::invalid("odd after odd"));
        }
        self.tokens.push(token);
        Ok(())
    }

    fn rollback(&mut self, n: usize) {
        self.tokens.truncate(self.tokens.len() - n);
    }

    fn reset(&mut self) {
        self.tokens.clear();
    }
}

/// A mask: one word of a list, and then no token.
struct Words {
    /// The children of each node by token; the first node is the root.
    nodes: Vec<Vec<(u32, usize)>>,
    /// The path from the root to the node of the text.
    path: Vec<usize>,
}

impl Words {
    fn new(words: &[&[u32]]) -> Self {
        let mut nodes: Vec<Vec<(u32, usize)>> = vec![vec![]];
        for word in words {
            let mut at = 0;
            for &token in *word {
                let child = nodes[at].iter().find(|child| child.0 == token).map(|child| child.1);
                at = child.unwrap_or_else(|| {
                    nodes.push(vec![]);
                    let new = nodes.len() - 1;
                    nodes[at].push((token, new));
                    new
                });
            }
        }
        Self { nodes, path: vec![0] }
    }

    fn children(&self) -> &[(u32, usize)] {
        &self.nodes[*self.path.last().unwrap()]
    }
}

impl Mask for Words {
    fn allow(&mut self, allowed: &mut TokenSet) -> Result<()> {
        self.children().iter().for_each(|child| allowed.insert(child.0));
        Ok(())
    }

    fn accept(&mut self, token: u32) -> Result<()> {
        let child = self.children().iter().find(|child| child.0 == token).map(|child| child.1);
        self.path.push(child.ok_or_else(|| Error::invalid(format!("no word goes on with {token}")))?);
        Ok(())
    }

    fn rollback(&mut self, n: usize) {
        self.path.truncate(self.path.len() - n);
    }

    fn reset(&mut self) {
        self.path.truncate(1);
    }
}

#[test]
fn chains_that_cannot_be_are_named() {
    let draw = "a chain of stages has one draw, at its end";
    assert_eq!(refused(vec![]), draw);
    assert_eq!(refused(vec![Stage::TopK(3)]), draw);
    assert_eq!(refused(vec![DRAW, Stage::TopK(3)]), draw);
    assert_eq!(refused(vec![DRAW, DRAW]), draw);
    let twice = "penalties and temperature stand in a chain of stages at most once";
    let penalties = || Stage::Penalties(SamplerParams::default().penalties());
    assert_eq!(refused(vec![penalties(), penalties(), DRAW]), twice);
    assert_eq!(refused(vec![Stage::Temperature(0.0), Stage::Temperature(1.0), DRAW]), twice);
    assert!(refused(vec![Stage::TopP(0.0), DRAW]).starts_with("top_p is 0"));
    assert!(refused(vec![Stage::MinP(f32::NAN), DRAW]).starts_with("min_p is NaN"));
    assert!(refused(vec![Stage::Temperature(-1.0), DRAW]).starts_with("temperature is -1"));
    let wrong = Penalties { repetition: 0.0, frequency: 0.0, presence: 0.0, last_n: 4 };
    assert!(refused(vec![Stage::Penalties(wrong), DRAW]).starts_with("repetition_penalty is 0"));
    assert_eq!(refused(vec![DRAW]), "");
}

/// The tokens that occur in many draws, in order of id.
fn kept(stages: Vec<Stage>, logits: &[f32]) -> Vec<u32> {
    let mut sampler = sampler(stages, logits.len());
    let mut came: Vec<u32> = (0..3000).map(|_| sampler.sample(logits).unwrap()).collect();
    came.sort_unstable();
    came.dedup();
    came
}

#[test]
fn the_order_of_stages_counts() {
    // Weights 8 : 4 : 2 : 1; at temperature 2 it is √8 : 2 : √2 : 1, shares of 39, 28, 20 and 14 percent.
    let logits = [8f32, 4.0, 2.0, 1.0].map(f32::ln);
    let p = Stage::TopP;
    assert_eq!(kept(vec![p(0.6), Stage::Temperature(2.0), DRAW], &logits), [0, 1]);
    assert_eq!(kept(vec![Stage::Temperature(2.0), p(0.6), DRAW], &logits), [0, 1]);
    assert_eq!(kept(vec![p(0.75), Stage::Temperature(2.0), DRAW], &logits), [0, 1]);
    assert_eq!(kept(vec![Stage::Temperature(2.0), p(0.75), DRAW], &logits), [0, 1, 2]);
    // At temperature 2 a ratio of 0.09 becomes 0.3.
    assert_eq!(kept(vec![Stage::MinP(0.3), Stage::Temperature(2.0), DRAW], &logits), [0, 1]);
    assert_eq!(kept(vec![Stage::Temperature(2.0), Stage::MinP(0.3), DRAW], &logits), [0, 1, 2, 3]);
    // The best token has more than half of the probability; top-k 3 keeps it.
    assert_eq!(kept(vec![p(0.5), Stage::TopK(3), DRAW], &logits), [0]);
    assert_eq!(kept(vec![Stage::TopK(3), Stage::Temperature(0.0), DRAW], &logits), [0]);
    // A mask before top-k leaves two of four tokens, a mask after it one of two.
    let mask = || Stage::Mask(Box::new(Words::new(&[&[1], &[2]])));
    assert_eq!(kept(vec![mask(), Stage::TopK(2), DRAW], &logits), [1, 2]);
    assert_eq!(kept(vec![Stage::TopK(2), mask(), DRAW], &logits), [1]);
}

/// Penalties find their tokens in any order of candidates.
#[test]
fn penalties_may_stand_behind_cuts() {
    let penalties = Penalties { repetition: 1.0, frequency: 0.0, presence: 5.0, last_n: 4 };
    let stages = vec![Stage::TopK(3), Stage::Penalties(penalties), Stage::Temperature(0.0), DRAW];
    let mut sampler = sampler(stages, 5);
    let logits = [1.0, 4.0, 0.0, 3.0, 2.0];
    let picks = [1, 3, 4, 1].map(|expected| {
        let token = sampler.sample(&logits).unwrap();
        sampler.accept(expected).unwrap();
        token
    });
    assert_eq!(picks, [1, 3, 4, 1]);
}

#[test]
fn a_mask_decides_what_can_come() {
    let words = Words::new(&[&[1, 2, 3], &[1, 4], &[5]]);
    let mut sampler = sampler(vec![Stage::Mask(Box::new(words)), Stage::Temperature(0.0), DRAW], 8);
    // Masks don't see the prompt.
    sampler.read(7).unwrap();
    let mut step = |logits: &[f32; 8]| {
        let token = sampler.sample(logits)?;
        sampler.accept(token).map(|()| token)
    };
    let rising: [f32; 8] = std::array::from_fn(|i| i as f32);
    assert_eq!(step(&rising).unwrap(), 5);
    let over = step(&rising).unwrap_err().to_string();
    assert_eq!(over, "the mask allows none of the tokens that are left to pick from");
    sampler.reset();
    let falling: [f32; 8] = std::array::from_fn(|i| -(i as f32));
    for expected in [1, 2] {
        assert_eq!(sampler.sample(&falling).unwrap(), expected);
        sampler.accept(expected).unwrap();
    }
    assert_eq!(sampler.accept(4).unwrap_err().to_string(), "no word goes on with 4");
    assert_eq!(sampler.sample(&falling).unwrap(), 3);
    sampler.rollback(1).unwrap();
    sampler.accept(4).unwrap();
    // The only allowed token has a logit of −∞.
    sampler.reset();
    let logits: [f32; 8] = std::array::from_fn(|i| if i == 1 || i == 5 { f32::NEG_INFINITY } else { 0.0 });
    assert!(sampler.sample(&logits).unwrap_err().to_string().contains("no token is left to pick"));
}

/// If a mask refuses a token, the masks before it and the window don't change.
#[test]
fn a_refused_token_changes_nothing() {
    let masks = || {
        let words = Words::new(&[&[1, 2, 1, 1], &[1, 3]]);
        let penalties = Penalties { repetition: 1.0, frequency: 0.0, presence: 9.0, last_n: 4 };
        let (even, words) = (Stage::Mask(Box::new(NoTwoOdd::default())), Stage::Mask(Box::new(words)));
        vec![even, words, Stage::Penalties(penalties), Stage::Temperature(0.0), DRAW]
    };
    let mut sampler = sampler(masks(), 5);
    sampler.accept(1).unwrap();
    // The list of words refuses 4 after the other mask has accepted it; the other mask refuses 3.
    assert_eq!(sampler.accept(4).unwrap_err().to_string(), "no word goes on with 4");
    assert_eq!(sampler.accept(3).unwrap_err().to_string(), "odd after odd");
    assert!(sampler.accept(5).is_err());
    assert_eq!(sampler.sample(&[0.0; 5]).unwrap(), 2);
    sampler.accept(2).unwrap();
    assert_eq!(sampler.sample(&[0.0; 5]).unwrap(), 1);
    sampler.rollback(2).unwrap();
    assert_eq!(
        sampler.rollback(1).unwrap_err().to_string(),
        "can't roll back 1 tokens: only 0 are remembered"
    );
}

#[test]
fn how_far_a_sampler_goes_back() {
    let mut sampler = sampler(vec![DRAW], 4);
    (0..MAX_ROLLBACK + 5).for_each(|_| sampler.accept(1).unwrap());
    assert!(sampler.rollback(MAX_ROLLBACK + 1).is_err());
    sampler.rollback(MAX_ROLLBACK).unwrap();
    assert!(sampler.rollback(1).is_err());
    sampler.accept(2).unwrap();
    sampler.rollback(1).unwrap();
    sampler.accept(2).unwrap();
    sampler.read(3).unwrap();
    assert!(sampler.rollback(1).is_err(), "a prompt can't be taken back");
    sampler.accept(2).unwrap();
    sampler.reset();
    assert!(sampler.rollback(1).is_err());
    sampler.rollback(0).unwrap();
}

#[test]
fn sets_of_tokens() {
    for n_vocab in [1, 63, 64, 65, 130] {
        let mut set = TokenSet::new(n_vocab).unwrap();
        let count = |set: &TokenSet| (0..1000).filter(|&token| set.contains(token)).count();
        assert_eq!(count(&set), 0);
        set.insert(0);
        set.insert(n_vocab as u32 - 1);
        set.insert(n_vocab as u32);
        set.insert(u32::MAX);
        assert!(set.contains(0) && set.contains(n_vocab as u32 - 1));
        assert_eq!(count(&set), n_vocab.min(2));
        set.insert_all();
        assert_eq!(count(&set), n_vocab);
        set.remove(0);
        set.remove(u32::MAX);
        assert_eq!(count(&set), n_vocab - 1);
        set.clear();
        assert_eq!(count(&set), 0);
    }
}

proptest! {
    /// Tokens that were picked and taken back leave no trace in the window, the mask or the random numbers.
    #[test]
    fn what_was_taken_back_never_was(
        n_prompt in 0usize..8, before in 0usize..12, tried in 1usize..12, last_n in 0usize..6, seed in any::<u64>(),
        logits in prop::collection::vec(prop::array::uniform8(-3f32..3.0), 40),
    ) {
        let stages = || vec![
            Stage::Penalties(Penalties { repetition: 1.2, frequency: 0.3, presence: 0.1, last_n }),
            Stage::Mask(Box::new(NoTwoOdd::default())),
            Stage::TopP(0.95),
            Stage::Temperature(1.3),
            Stage::Draw { seed },
        ];
        let picks = |sampler: &mut Sampler, steps: std::ops::Range<usize>| -> Vec<u32> {
            steps.map(|step| {
                let token = sampler.sample(&logits[step]).unwrap();
                sampler.accept(token).unwrap();
                token
            }).collect()
        };
        let (mut plain, mut tentative) = (sampler(stages(), 8), sampler(stages(), 8));
        for sampler in [&mut plain, &mut tentative] {
            (0..n_prompt as u32).for_each(|token| sampler.read(token % 8).unwrap());
        }
        prop_assert_eq!(picks(&mut plain, 0..before), picks(&mut tentative, 0..before));
        // Logits other than the later ones.
        picks(&mut tentative, 40 - tried..40);
        tentative.rollback(tried).unwrap();
        prop_assert_eq!(picks(&mut plain, before..28), picks(&mut tentative, before..28));
    }
}
