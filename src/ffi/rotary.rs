//! Rotary position embedding
//! -------------------------
//! Pairs of a head's elements turn by an angle that grows with the position. The angles are computed once, into a
//! table of yours, and applied to as many rows as you like.

use super::boundary;
use super::buffers;
use super::matrices::{apart, bytes, floats};
use super::status::{Failure, sm_status};
use crate::kernels::KernelSet;
use crate::kernels::rope::{Angles, RopeArgs, Scaling, fill};
use crate::profile::{self, Zone};

/// Elements 2i and 2i + 1 of a head turn together.
pub const SM_ROPE_ADJACENT: i32 = 0;
/// Elements i and i + rot_dim / 2 of a head turn together.
pub const SM_ROPE_HALVES: i32 = 1;

/// Writes the cosines, then the sines, of each of `n_positions` positions: `rot_dim` floats a position.
///
/// Pair i turns by `position * freq_scale * base^(-2i / rot_dim) / factors[i]`. `rot_dim` is even; `factors` are
/// rot_dim / 2 numbers, or NULL for 1. `base`, `freq_scale` and the factors are positive and finite.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_rope_table_f32(
    n_positions: usize,
    rot_dim: usize,
    base: f32,
    freq_scale: f32,
    factors: *const f32,
    table: *mut f32,
) -> sm_status {
    boundary::call(|| {
        let len = table_len(n_positions, rot_dim)?;
        // SAFETY: the header's contract.
        let table = unsafe { buffers::array_mut(table, len, "table") }?;
        let factors = if factors.is_null() {
            None
        } else {
            // SAFETY: the header's contract.
            let factors = unsafe { buffers::array(factors, rot_dim / 2, "factors") }?;
            apart("table", table.as_ptr(), len, "factors", factors)?;
            Some(factors)
        };
        Ok(fill(table, rot_dim, base, Scaling { freq_scale, factors, ..Scaling::default() })?)
    })
}

/// Turns the first `rot_dim` elements of each head of x, in place: rows of `n_head` heads of `head_dim` elements.
///
/// Row t stands at `positions[t]`, which is below `n_positions`. `table` is `sm_rope_table_f32`'s. `pairing` is
/// `SM_ROPE_ADJACENT` or `SM_ROPE_HALVES`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_rope_f32(
    rows: usize,
    n_head: usize,
    head_dim: usize,
    x: *mut f32,
    ldx: usize,
    positions: *const u32,
    table: *const f32,
    n_positions: usize,
    rot_dim: usize,
    pairing: i32,
) -> sm_status {
    boundary::call(|| {
        let kernels = &KernelSet::default_set()?.rope;
        let kernel = match pairing {
            SM_ROPE_ADJACENT => &kernels.adjacent,
            SM_ROPE_HALVES => &kernels.halves,
            _ => return Err(Failure::invalid(format!("pairing is {pairing}, which is none of SM_ROPE_*"))),
        };
        let cols = n_head.checked_mul(head_dim);
        let cols = cols.ok_or_else(|| Failure::invalid("n_head times head_dim doesn't fit into memory"))?;
        let len = floats("x", rows, cols, ldx)?;
        buffers::check(x, len, "x")?;
        let table_len = table_len(n_positions, rot_dim)?;
        if len == 0 || rot_dim == 0 {
            return Ok(());
        }
        if rot_dim > head_dim {
            return Err(Failure::invalid(format!(
                "rot_dim is {rot_dim}, but heads have {head_dim} elements"
            )));
        }
        // SAFETY: the header's contract.
        let (positions, table) = unsafe {
            (buffers::array(positions, rows, "positions")?, buffers::array(table, table_len, "table")?)
        };
        apart("x", x, len, "table", table)?;
        if let Some(position) = positions.iter().find(|&&p| p as usize >= n_positions) {
            return Err(Failure::invalid(format!("position {position} of {n_positions} in the table")));
        }
        let angles = Angles::new(table, rot_dim)?;
        let positions = positions.as_ptr();
        let _zone = profile::scope(Zone::Rope).work(0, bytes(len.saturating_mul(2)));
        let args = RopeArgs { x, stride: ldx, positions, tokens: rows, n_head, head_dim };
        // SAFETY: the header's contract, with sizes, positions and overlap checked.
        unsafe { kernel.run(angles, &args) };
        Ok(())
    })
}

/// Floats of a table.
fn table_len(n_positions: usize, rot_dim: usize) -> Result<usize, Failure> {
    if !rot_dim.is_multiple_of(2) {
        return Err(Failure::invalid(format!("rot_dim is {rot_dim}, which is odd")));
    }
    let len = n_positions.checked_mul(rot_dim);
    len.ok_or_else(|| Failure::invalid("the table doesn't fit into memory"))
}
