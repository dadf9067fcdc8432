//! Rotary position embedding
//! -------------------------
//! Pairs of a head's elements rotate by an angle that grows with the position. `sm_rope_table_f32` computes the angles
//! once, into a table of yours; `sm_rope_f32` applies them to any number of rows.

use super::boundary;
use super::operands::Output;
use super::status::{Failure, sm_status};
use crate::ops::{self, Pairing, RopeShape, Scaling};

/// Elements 2i and 2i + 1 of a head are a pair.
pub const SM_ROPE_ADJACENT: i32 = 0;
/// Elements i and i + rot_dim / 2 of a head are a pair.
pub const SM_ROPE_HALVES: i32 = 1;

/// Writes the cosines, then the sines, of each of `n_positions` positions: `rot_dim` floats a position.
///
/// Pair i rotates by `position * freq_scale * base^(-2i / rot_dim) / factors[i]`. `rot_dim` is even; `factors` are
/// rot_dim / 2 numbers, or NULL for 1, and must not overlap the table. `base`, `freq_scale` and the factors are
/// positive and finite.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_rope_table_f32(
    n_positions: usize,
    rot_dim: usize,
    base: f32,
    freq_scale: f32,
    factors: *const f32,
    table: *mut f32,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe {
        let table = Output::new("table", table, table_len(n_positions, rot_dim)?)?;
        let factors = table.read_optional("factors", factors, rot_dim / 2)?;
        let scaling = Scaling { freq_scale, factors, ..Scaling::default() };
        Ok(ops::rope_table(table.borrow(), rot_dim, base, scaling)?)
    })
}

/// Rotates the first `rot_dim` elements of each head of x, in place: `rows` rows of `n_head` heads of `head_dim`
/// elements, `ldx` floats from one row to the next.
///
/// Row t stands at `positions[t]`, which is below `n_positions`. `table` holds the angles that `sm_rope_table_f32`
/// wrote for the same `n_positions` and `rot_dim`. `pairing` is `SM_ROPE_ADJACENT` or `SM_ROPE_HALVES`. x overlaps
/// neither `positions` nor `table`.
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
    // SAFETY: the header's contract.
    boundary::call(|| unsafe {
        let pairing = match pairing {
            SM_ROPE_ADJACENT => Pairing::Adjacent,
            SM_ROPE_HALVES => Pairing::Halves,
            _ => return Err(Failure::invalid(format!("pairing is {pairing}, which is none of SM_ROPE_*"))),
        };
        let shape = RopeShape { rows, n_head, head_dim, ldx };
        let len = ops::floats("x", rows, shape.cols()?, ldx)?;
        let x = Output::new("x", x, len)?;
        let table_len = table_len(n_positions, rot_dim)?;
        if len == 0 || rot_dim == 0 {
            return Ok(());
        }
        let positions = x.read("positions", positions, rows)?;
        let table = x.read("table", table, table_len)?;
        Ok(ops::rope(pairing, x.borrow(), shape, positions, (table, rot_dim), None)?)
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
