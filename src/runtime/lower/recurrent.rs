//! Lowers recurrences over sequences. They read columns of wider products where these stand, and get places in the
//! sequences' state.

use super::Lowering;
use crate::error::{Error, Result};
use crate::model::graph::{Conv, Delta, Op, RowSet, Scan, Shape, Value};
use crate::runtime::plan::Buf;
use crate::runtime::steps::conv;
use crate::runtime::steps::delta;
use crate::runtime::steps::recurrent::{Columns, StatePlace};
use crate::runtime::steps::scan;

/// States of layers begin at multiples of this, so that no two share a cache line.
const LINE: usize = 64;

impl Lowering<'_> {
    /// A convolution.
    pub(super) fn conv(&mut self, value: Value, conv: Conv) -> Result<Buf> {
        let channels = self.graph.shape(value).width;
        let x = self.columns(conv.x, value)?;
        let gates = match conv.gates {
            Some((before, after)) => Some([self.columns(before, value)?, self.columns(after, value)?]),
            None => None,
        };
        let state = self.state((conv.taps - 1).checked_mul(channels))?;
        let out = self.float_buffer(RowSet::Batch, channels)?;
        self.push(value, conv::Conv { conv, x, gates, channels, out, state })?;
        Ok(out)
    }

    /// A selective scan.
    pub(super) fn scan(&mut self, value: Value, scan: Scan) -> Result<Buf> {
        let [x, dt] = [self.columns(scan.x, value)?, self.columns(scan.dt, value)?];
        let [b, c] = [self.columns(scan.b, value)?, self.columns(scan.c, value)?];
        let width = self.graph.shape(value).width;
        let state = self.state(width.checked_mul(scan.shape.d_state))?;
        let out = self.float_buffer(RowSet::Batch, width)?;
        self.push(value, scan::Scan { scan, x, dt, b, c, out, state })?;
        Ok(out)
    }

    /// A delta rule.
    pub(super) fn delta(&mut self, value: Value, delta: Delta) -> Result<Buf> {
        let qkv = self.columns(delta.qkv, value)?;
        let [(mut alpha, of_alpha), (mut beta, of_beta)] =
            [self.runs(delta.alpha, value)?, self.runs(delta.beta, value)?];
        let mut runs = of_alpha;
        if of_alpha != of_beta {
            (alpha, beta) = (self.own_columns(delta.alpha)?, self.own_columns(delta.beta)?);
            runs = [delta.shape.heads; 2];
        }
        let Shape { width, .. } = self.graph.shape(value);
        let state = self.state(width.checked_mul(delta.shape.d_k))?;
        let out = self.float_buffer(RowSet::Batch, width)?;
        self.push(value, delta::Delta { delta, qkv, alpha, beta, runs, out, state })?;
        Ok(out)
    }

    /// A value as columns in runs: of the heads that they are a part of, or its own, which are one run. The second
    /// result is the length of a run and the columns from one to the next.
    pub(super) fn runs(&mut self, value: Value, reader: Value) -> Result<(Columns, [usize; 2])> {
        let Shape { width, .. } = self.graph.shape(value);
        match *self.op(value) {
            Op::SplitHeads(whole, every, begin) if self.floats[value.index()].is_none() => {
                let buf = self.floats(whole)?;
                if self.only_for(value, reader) {
                    self.done[value.index()] = true;
                }
                let run = width / (self.graph.shape(whole).width / every);
                Ok((Columns { buf, begin }, [run, every]))
            }
            _ => Ok((self.columns(value, reader)?, [width; 2])),
        }
    }

    /// A value as all columns of its own rows.
    pub(super) fn own_columns(&mut self, value: Value) -> Result<Columns> {
        Ok(Columns { buf: self.floats(value)?, begin: 0 })
    }

    /// A value as columns of rows: of the value that it is a part of, or its own.
    pub(super) fn columns(&mut self, value: Value, reader: Value) -> Result<Columns> {
        match *self.op(value) {
            Op::Split(whole, begin) if self.floats[value.index()].is_none() => {
                let buf = self.floats(whole)?;
                if self.only_for(value, reader) {
                    self.done[value.index()] = true;
                }
                Ok(Columns { buf, begin })
            }
            _ => Ok(Columns { buf: self.floats(value)?, begin: 0 }),
        }
    }

    /// A place for so many floats in each sequence's state.
    pub(super) fn state(&mut self, floats: Option<usize>) -> Result<StatePlace> {
        let too_large = || Error::OutOfMemory { bytes: usize::MAX, what: "the state of a sequence" };
        let len = floats.ok_or_else(too_large)?;
        let offset = self.plan.state_bytes;
        let bytes = len.checked_mul(size_of::<f32>()).and_then(|bytes| bytes.checked_next_multiple_of(LINE));
        let end = bytes.and_then(|bytes| offset.checked_add(bytes)).ok_or_else(too_large)?;
        self.plan.state_bytes = end;
        Ok(StatePlace { offset, len })
    }
}
