//! Functions of rows
//! -----------------
//! Each function computes y from x row by row. x and y are `rows` by `cols`, with `ldx` and `ldy` floats from one row to
//! the next. y may be x, with the same leading dimension; otherwise they must not overlap. `sm_softmax` and the other
//! functions that take an `sm_rows_params` run on the threads of a team, if that names one and there is enough work; the
//! functions that take the shape as arguments run on the calling thread. The results have the same bits.
//!
//! `SM_STATUS_INVALID_ARGUMENT`: a leading dimension is below `cols`, no memory can hold the rows, buffers overlap, or a
//! scale or eps is out of range; nothing is written. `SM_STATUS_BUSY`: another kernel call is using the team.

use std::mem::size_of;
use std::ptr;

use super::boundary;
use super::operands::{Output, check_apart, read_apart};
use super::params::{self, Params, Versioned, fields};
use super::status::{Failure, sm_status};
use super::team::{self, sm_team};
use crate::ops::{self, Input, Norm, NormInput, NormParams, NormStatistics, RowShape, Softmax};
use crate::threads::Team;

/// The rows that a function of rows works on. Fill it with `sm_rows_params_init`, then set `rows` and `cols`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sm_rows_params {
    /// Size of this structure in bytes.
    pub struct_size: usize,
    /// Rows of x and y. Default 0.
    pub rows: usize,
    /// Elements of a row. Default 0.
    pub cols: usize,
    /// Floats from one row of x to the next, at least `cols`; 0, the default, for `cols`.
    pub ldx: usize,
    /// Floats from one row of y to the next, at least `cols`; 0, the default, for `cols`.
    pub ldy: usize,
    /// A team whose threads share the rows where there is enough work; NULL, the default, for the calling thread.
    pub team: *mut sm_team,
}

/// The rows and options of a norm of a sum. Fill it with `sm_add_norm_params_init`, then set `rows` and `cols` and
/// the other fields that differ.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sm_add_norm_params {
    /// Size of this structure in bytes.
    pub struct_size: usize,
    /// Rows of x, add and y. Default 0.
    pub rows: usize,
    /// Elements of a row. Default 0.
    pub cols: usize,
    /// Floats from one row of x to the next, at least `cols`; 0, the default, for `cols`.
    pub ldx: usize,
    /// Floats from one row of add to the next, at least `cols`; 0, the default, for `cols`.
    pub ldadd: usize,
    /// Floats from one row of y to the next, at least `cols`; 0, the default, for `cols`.
    pub ldy: usize,
    /// `cols` factors; NULL, the default, for 1.
    pub weight: *const f32,
    /// `cols` summands; NULL, the default, for 0.
    pub bias: *const f32,
    /// Gets the mean of each row: `rows` floats. NULL, the default, if it is not wanted. Must be NULL for RMSNorm.
    pub mean: *mut f32,
    /// Gets the factor 1 / sqrt(...) of each row: `rows` floats. NULL, the default, if it is not wanted.
    pub rstd: *mut f32,
    /// Added to the variance or the mean square; finite and at least 0. Default 1e-5.
    pub eps: f32,
    /// Always 0.
    pub reserved: i32,
    /// A team whose threads share the rows where there is enough work; NULL, the default, for the calling thread.
    pub team: *mut sm_team,
}

// SAFETY: repr(C); integers and raw pointers.
unsafe impl Versioned for sm_rows_params {
    const NAME: &'static str = "sm_rows_params";

    fields!(struct_size, rows, cols, ldx, ldy, team);
}

// SAFETY: struct_size comes first.
unsafe impl Params for sm_rows_params {
    fn defaults() -> Self {
        let struct_size = size_of::<Self>();
        Self { struct_size, rows: 0, cols: 0, ldx: 0, ldy: 0, team: ptr::null_mut() }
    }
}

// SAFETY: repr(C); integers, a float and raw pointers.
unsafe impl Versioned for sm_add_norm_params {
    const NAME: &'static str = "sm_add_norm_params";

    fields!(struct_size, rows, cols, ldx, ldadd, ldy, weight, bias, mean, rstd, eps, reserved, team);
}

// SAFETY: struct_size comes first.
unsafe impl Params for sm_add_norm_params {
    fn defaults() -> Self {
        Self {
            struct_size: size_of::<Self>(),
            rows: 0,
            cols: 0,
            ldx: 0,
            ldadd: 0,
            ldy: 0,
            weight: ptr::null(),
            bias: ptr::null(),
            mean: ptr::null_mut(),
            rstd: ptr::null_mut(),
            eps: 1e-5,
            reserved: 0,
            team: ptr::null_mut(),
        }
    }

    fn reserved(&self) -> i32 {
        self.reserved
    }
}

/// Fills `params` with the defaults. `struct_size` is `sizeof(sm_rows_params)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_rows_params_init(params: *mut sm_rows_params, struct_size: usize) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { params::init(params, struct_size) })
}

/// Fills `params` with the defaults. `struct_size` is `sizeof(sm_add_norm_params)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_add_norm_params_init(
    params: *mut sm_add_norm_params,
    struct_size: usize,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { params::init(params, struct_size) })
}

/// Softmax of each row: y = exp(x) / sum of exp(x), without overflow for any finite x.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_softmax(params: *const sm_rows_params, x: *const f32, y: *mut f32) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { on_rows(params, |shape, team| softmax(shape, x, PLAIN, y, team)) })
}

/// Softmax of each row of scale * x + mask, over the part that the row sees.
///
/// `scale` is finite. `mask` has the shape of x, with `ldmask` floats from one row to the next; if `ldmask` is 0, it is one
/// row, which is used for all rows. Minus infinity in the mask hides an element. NULL for no mask; otherwise it must not
/// overlap y. Row r sees its first `visible` + r elements, at most `cols`: the others are not read, and their results are
/// 0. The results of a row that sees nothing but minus infinity are NaN.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_masked_softmax(
    params: *const sm_rows_params,
    x: *const f32,
    scale: f32,
    visible: usize,
    mask: *const f32,
    ldmask: usize,
    y: *mut f32,
) -> sm_status {
    let weighing = Weighing { scale, visible: Some(visible), mask, ldmask };
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { on_rows(params, |shape, team| softmax(shape, x, weighing, y, team)) })
}

/// The logarithm of the softmax of each row: y = x - max - log(sum of exp(x - max)).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_log_softmax(
    params: *const sm_rows_params,
    x: *const f32,
    y: *mut f32,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { on_rows(params, |shape, team| log_softmax(shape, x, y, team)) })
}

/// LayerNorm of each row: y = (x - mean) / sqrt(variance + eps) * weight + bias.
///
/// `weight` and `bias` are `cols` floats each, or NULL for 1 and 0; they must not overlap y. `eps` is finite and at
/// least 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_layer_norm(
    params: *const sm_rows_params,
    x: *const f32,
    weight: *const f32,
    bias: *const f32,
    eps: f32,
    y: *mut f32,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe {
        on_rows(params, |shape, team| norm(Norm::Layer, shape, x, (weight, bias, eps), y, team))
    })
}

/// RMSNorm of each row: y = x / sqrt(mean of x^2 + eps) * weight.
///
/// `weight` is `cols` floats, or NULL for 1; it must not overlap y. `eps` is finite and at least 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_rms_norm(
    params: *const sm_rows_params,
    x: *const f32,
    weight: *const f32,
    eps: f32,
    y: *mut f32,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe {
        on_rows(params, |shape, team| norm(Norm::Rms, shape, x, (weight, ptr::null(), eps), y, team))
    })
}

/// `sm_softmax` on the calling thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_softmax_f32(
    rows: usize,
    cols: usize,
    x: *const f32,
    ldx: usize,
    y: *mut f32,
    ldy: usize,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { softmax(RowShape { rows, cols, ldx, ldy }, x, PLAIN, y, None) })
}

/// `sm_masked_softmax` on the calling thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_masked_softmax_f32(
    rows: usize,
    cols: usize,
    x: *const f32,
    ldx: usize,
    scale: f32,
    visible: usize,
    mask: *const f32,
    ldmask: usize,
    y: *mut f32,
    ldy: usize,
) -> sm_status {
    let weighing = Weighing { scale, visible: Some(visible), mask, ldmask };
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { softmax(RowShape { rows, cols, ldx, ldy }, x, weighing, y, None) })
}

/// `sm_log_softmax` on the calling thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_log_softmax_f32(
    rows: usize,
    cols: usize,
    x: *const f32,
    ldx: usize,
    y: *mut f32,
    ldy: usize,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { log_softmax(RowShape { rows, cols, ldx, ldy }, x, y, None) })
}

/// y = x + row: adds `row`, `cols` floats, to each row of x. `row` must not overlap y.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_add_row_f32(
    rows: usize,
    cols: usize,
    x: *const f32,
    ldx: usize,
    row: *const f32,
    y: *mut f32,
    ldy: usize,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe {
        let shape = RowShape { rows, cols, ldx, ldy };
        let (x, y) = matrices(&shape, x, y)?;
        let row = y.read("row", row, vector_len(&shape))?;
        Ok(ops::add_row(x, row, y.borrow(), shape, None)?)
    })
}

/// `sm_layer_norm` on the calling thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_layer_norm_f32(
    rows: usize,
    cols: usize,
    x: *const f32,
    ldx: usize,
    weight: *const f32,
    bias: *const f32,
    eps: f32,
    y: *mut f32,
    ldy: usize,
) -> sm_status {
    let shape = RowShape { rows, cols, ldx, ldy };
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { norm(Norm::Layer, shape, x, (weight, bias, eps), y, None) })
}

/// `sm_rms_norm` on the calling thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_rms_norm_f32(
    rows: usize,
    cols: usize,
    x: *const f32,
    ldx: usize,
    weight: *const f32,
    eps: f32,
    y: *mut f32,
    ldy: usize,
) -> sm_status {
    let shape = RowShape { rows, cols, ldx, ldy };
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { norm(Norm::Rms, shape, x, (weight, ptr::null(), eps), y, None) })
}

/// x = x + add, then y = LayerNorm of x: (x - mean) / sqrt(variance + eps) * weight + bias.
///
/// If `add` is NULL, x is not written, and y may be x. Otherwise y must not overlap x. `mean` and `rstd` in `params` get the
/// mean and 1 / sqrt(variance + eps) of each row, which a backward pass needs. Outputs must not overlap each other or an
/// input. `params` must not be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_add_layer_norm_f32(
    params: *const sm_add_norm_params,
    x: *mut f32,
    add: *const f32,
    y: *mut f32,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { add_norm(Norm::Layer, params, x, add, y) })
}

/// x = x + add, then y = RMSNorm of x: x / sqrt(mean of x^2 + eps) * weight + bias.
///
/// As `sm_add_layer_norm_f32`; `rstd` gets 1 / sqrt(mean of x^2 + eps) of each row, and `mean` must be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_add_rms_norm_f32(
    params: *const sm_add_norm_params,
    x: *mut f32,
    add: *const f32,
    y: *mut f32,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { add_norm(Norm::Rms, params, x, add, y) })
}

/// The options of softmax.
#[derive(Clone, Copy)]
struct Weighing {
    scale: f32,
    visible: Option<usize>,
    mask: *const f32,
    ldmask: usize,
}

/// Softmax of x as it is.
const PLAIN: Weighing = Weighing { scale: 1.0, visible: None, mask: ptr::null(), ldmask: 0 };

/// Reads the parameters and calls `f` with the shape and the team.
///
/// # Safety
/// `params` is NULL or as the header says.
unsafe fn on_rows(
    params: *const sm_rows_params,
    f: impl FnOnce(RowShape, Option<&Team>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    // SAFETY: the function's contract.
    let (params, inside) = unsafe {
        let params = params::read_given(params)?;
        (params, team::enter(params.team)?)
    };
    let sm_rows_params { rows, cols, ldx, ldy, .. } = params;
    f(shape(rows, cols, ldx, ldy), inside.as_ref().map(|inside| inside.team))
}

/// The shape that a structure of parameters describes.
fn shape(rows: usize, cols: usize, ldx: usize, ldy: usize) -> RowShape {
    RowShape { rows, cols, ldx: or_dense(ldx, cols), ldy: or_dense(ldy, cols) }
}

/// A leading dimension, where 0 means that there are no gaps.
fn or_dense(ld: usize, cols: usize) -> usize {
    if ld == 0 { cols } else { ld }
}

/// Elements of a vector with one element for each column; 0 where there are no rows to use it.
fn vector_len(shape: &RowShape) -> usize {
    if shape.rows == 0 { 0 } else { shape.cols }
}

/// The rows of x, and those of y, which are the same or apart.
///
/// # Safety
/// `x` is NULL or readable, `y` NULL or writable for the rows of the shape.
unsafe fn matrices<'a>(
    shape: &RowShape,
    x: *const f32,
    y: *mut f32,
) -> Result<(Input<'a>, Output<'a, f32>), Failure> {
    let &RowShape { rows, cols, ldx, ldy, .. } = shape;
    let (len_x, len_y) = (ops::floats("x", rows, cols, ldx)?, ops::floats("y", rows, cols, ldy)?);
    // SAFETY: the function's contract.
    unsafe {
        let y = Output::new("y", y, len_y)?;
        Ok((y.input("x", x, len_x, ldx == ldy)?, y))
    }
}

/// # Safety
/// The pointers are NULL or valid for as many elements as the header says.
unsafe fn softmax(
    shape: RowShape,
    x: *const f32,
    weighing: Weighing,
    y: *mut f32,
    team: Option<&Team>,
) -> Result<(), Failure> {
    let Weighing { scale, visible, mask, ldmask: ld_mask } = weighing;
    let (mask_rows, stride) =
        if ld_mask == 0 { (shape.rows.min(1), shape.cols) } else { (shape.rows, ld_mask) };
    let mask_len = ops::floats("mask", mask_rows, shape.cols, stride)?;
    // SAFETY: the function's contract; x and the mask are compared with y before that is borrowed.
    let (x, mask, y) = unsafe {
        let (x, y) = matrices(&shape, x, y)?;
        (x, y.read_optional("mask", mask, mask_len)?, y.borrow())
    };
    Ok(ops::softmax(x, y, shape, &Softmax { scale, visible, mask, ld_mask }, team)?)
}

/// # Safety
/// The pointers are NULL or valid for as many elements as the header says.
unsafe fn log_softmax(
    shape: RowShape,
    x: *const f32,
    y: *mut f32,
    team: Option<&Team>,
) -> Result<(), Failure> {
    // SAFETY: the function's contract; x has been compared with y.
    let (x, y) = unsafe {
        let (x, y) = matrices(&shape, x, y)?;
        (x, y.borrow())
    };
    Ok(ops::log_softmax(x, y, shape, team)?)
}

/// # Safety
/// The pointers are NULL or valid for as many elements as the header says.
unsafe fn norm(
    norm: Norm,
    shape: RowShape,
    x: *const f32,
    (weight, bias, eps): (*const f32, *const f32, f32),
    y: *mut f32,
    team: Option<&Team>,
) -> Result<(), Failure> {
    let len = vector_len(&shape);
    // SAFETY: the function's contract; every input is compared with y before that is borrowed.
    let (x, weight, bias, y) = unsafe {
        let (x, y) = matrices(&shape, x, y)?;
        (x, y.read_optional("weight", weight, len)?, y.read_optional("bias", bias, len)?, y.borrow())
    };
    let params = NormParams { weight, bias, eps };
    Ok(ops::norm(norm, x.into(), y, shape, &params, NormStatistics::default(), team)?)
}

/// # Safety
/// The pointers are NULL or valid for as many elements as the header says.
unsafe fn add_norm(
    norm: Norm,
    params: *const sm_add_norm_params,
    x: *mut f32,
    add: *const f32,
    y: *mut f32,
) -> Result<(), Failure> {
    // SAFETY: the function's contract; outputs are compared with each other and with every input before they are
    // borrowed.
    unsafe {
        let params = params::read_given(params)?;
        let shape = shape(params.rows, params.cols, params.ldx, params.ldy);
        let RowShape { rows, cols, ldx, ldy, .. } = shape;
        let ld_add = or_dense(params.ldadd, cols);
        let (len, len_x) = (vector_len(&shape), ops::floats("x", rows, cols, ldx)?);
        let len_add = ops::floats("add", rows, cols, ld_add)?;
        let figures = if cols == 0 { 0 } else { rows };
        let y = Output::new("y", y, ops::floats("y", rows, cols, ldy)?)?;
        let mean = Output::optional("mean", params.mean, figures)?;
        let rstd = Output::optional("rstd", params.rstd, figures)?;
        // Without `add`, x is an input.
        let sum = Output::new("x", x, if add.is_null() { 0 } else { len_x })?;
        let outputs = [&y, &mean, &rstd, &sum];
        check_apart(&outputs)?;
        let weight = read_apart(&outputs, "weight", params.weight, len)?;
        let bias = read_apart(&outputs, "bias", params.bias, len)?;
        let x = match read_apart(&outputs, "add", add, len_add)? {
            Some(add) => NormInput::Sum { x: sum.borrow(), add, ld_add },
            None => {
                read_apart(&[&mean, &rstd], "x", x.cast_const(), len_x)?;
                y.input("x", x.cast_const(), len_x, ldx == ldy)?.into()
            }
        };
        let statistics = NormStatistics { mean: mean.borrow_optional(), rstd: rstd.borrow_optional() };
        let inside = team::enter(params.team)?;
        let team = inside.as_ref().map(|inside| inside.team);
        let params = NormParams { weight, bias, eps: params.eps };
        Ok(ops::norm(norm, x, y.borrow(), shape, &params, statistics, team)?)
    }
}
