//! Positions taken out of the middle of a sequence. Rotary positions are differences of angles, so keys that move up are
//! turned back by the angle of as many positions as were removed.

use std::ops::Range;

use super::Engine;
use crate::error::{Error, Result};
use crate::kernels::rope::Angles;
#[cfg(doc)]
use crate::kv::Cache;
use crate::kv::{PAGE, SequenceId};
use crate::memory::reserve::reserve;
use crate::model::graph::Op;
use crate::runtime::plan::Turned;

impl Engine {
    /// Checks that [`Engine::remove_range`] can take positions out of the middle of a sequence.
    ///
    /// # Errors
    /// [`Error::Unsupported`] as [`Cache::check_removal`], for a model whose positions are learned, so that all it computes
    /// depends on them, for one whose keys are changed by their positions in another way than by a rotation at the end, and
    /// where sequences are decoded as a whole.
    pub fn check_removal(&self) -> Result<()> {
        let refused = |why: &str| Err(Error::Unsupported(format!("removing positions of a sequence: {why}")));
        if self.needs_whole() {
            return refused("it is decoded as a whole");
        }
        if self.model.graph().nodes.iter().any(|node| matches!(node.op, Op::Positions(_))) {
            return refused("the model's positions are learned");
        }
        if self.plan().keys.iter().any(|(_, turned)| *turned == Turned::Otherwise) {
            return refused("the model's keys depend on them in another way than by a rotation");
        }
        self.cache.check_removal()
    }

    /// Takes the positions of `range` out of a sequence, and discards the output of the last pass. Those behind it move up:
    /// their keys are turned as if they had been computed there, to rounding; their values stay, and with them what
    /// deeper layers have seen of the removed tokens. Pages that fall free are given back. The index of prefixes learns no
    /// more of the sequence; a host that [restores](Engine::restore) a snapshot of it must not tell the index of it either.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a sequence that doesn't exist, or doesn't have these positions. Where something stands
    /// behind the range, those of [`Engine::check_removal`], and [`Error::ContextFull`] where pages that others share would
    /// have to be copied, and too few are free. Nothing has changed then.
    pub fn remove_range(&mut self, sequence: SequenceId, range: Range<usize>) -> Result<()> {
        let is_inside = range.end < self.len(sequence)?;
        if is_inside {
            self.check_removal()?;
            self.compute_turns(range.len())?;
        }
        let Engine { cache, pass, model, turns, .. } = self;
        let (plan, ropes, kernels) = (pass.plan(), pass.ropes(), &model.kernels().rope);
        let turn = &mut |layer, rows: &mut [f32]| {
            let keys = plan.keys.iter().find(|(of, _)| *of == layer);
            let Some((_, Turned::By(rope, pairing))) = keys else { return Ok(()) };
            let rope = rope.0 as usize;
            let begin: usize = ropes[..rope].iter().map(|rope| rope.angles().rot_dim()).sum();
            let rot_dim = ropes[rope].angles().rot_dim();
            if rot_dim == 0 {
                return Ok(());
            }
            let angles = Angles::new(&turns[begin..begin + rot_dim], rot_dim)?;
            let head_dim = plan.groups[layer.group].head_dim;
            kernels.of(*pairing).apply(angles, rows, &[0; PAGE][..rows.len() / head_dim], head_dim)
        };
        cache.remove_range(sequence, range, turn)?;
        self.n_rows = 0;
        Ok(())
    }

    /// Cosines and sines of the rotations back by so many positions, one for each rotary table. A table's own have the
    /// factor that keys have already, which is its cosine at position 0.
    fn compute_turns(&mut self, by: usize) -> Result<()> {
        let Engine { pass, turns, .. } = self;
        turns.clear();
        for rope in pass.ropes() {
            let rot_dim = rope.angles().rot_dim();
            reserve(turns, rot_dim, "the angles of positions")?;
            let Some(row) = rope.data().get(by * rot_dim..(by + 1) * rot_dim) else {
                return Err(Error::Internal("more positions than a rotary table has".into()));
            };
            let (cosines, sines) = row.split_at(rot_dim / 2);
            let factor = rope.data().first().copied().unwrap_or(1.0);
            turns.extend(cosines.iter().map(|cosine| cosine / factor));
            turns.extend(sines.iter().map(|sine| -sine / factor));
        }
        Ok(())
    }
}
