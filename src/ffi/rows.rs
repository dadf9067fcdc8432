//! Functions of rows
//! -----------------

use super::boundary;
use super::buffers;
use super::matrices::{apart, floats, overlap, range, row_by_row};
use super::status::{Failure, sm_status};
use crate::kernels::KernelSet;
use crate::kernels::rows::{AddRowArgs, NormArgs, SoftmaxArgs};
use crate::profile::{self, Zone};

/// Softmax of each row: y = exp(x) / sum of exp(x), without overflow for any finite x.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_softmax_f32(
    rows: usize,
    cols: usize,
    x: *const f32,
    ldx: usize,
    y: *mut f32,
    ldy: usize,
) -> sm_status {
    let args = softmax_args(rows, cols, (x, ldx), (y, ldy));
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { softmax(&args) })
}

/// Softmax of each row of scale * x + mask, of the part that the row sees.
///
/// `mask` has the shape of x, minus infinity hides an element; NULL for no mask, `ldmask` 0 for one row of it that
/// counts for all rows. Row r sees its first `visible` + r elements, so with `cols` all: the others aren't read, and
/// their results are 0. `scale` is finite. A row with nothing but minus infinity comes out NaN.
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
    boundary::call(|| {
        if !scale.is_finite() {
            return Err(Failure::invalid(format!("scale is {scale}; it must be finite")));
        }
        if !mask.is_null() {
            let (mask_rows, stride) = if ldmask == 0 { (rows.min(1), cols) } else { (rows, ldmask) };
            let len = floats("mask", mask_rows, cols, stride)?;
            // SAFETY: the header's contract.
            let mask = unsafe { buffers::array(mask, len, "mask") }?;
            apart("y", y, floats("y", rows, cols, ldy)?, "mask", mask)?;
        }
        let causal = Some(visible);
        let plain = softmax_args(rows, cols, (x, ldx), (y, ldy));
        // SAFETY: the header's contract.
        unsafe { softmax(&SoftmaxArgs { scale, causal, mask, mask_stride: ldmask, ..plain }) }
    })
}

/// The logarithm of the softmax of each row: y = x - max - log(sum of exp(x - max)).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_log_softmax_f32(
    rows: usize,
    cols: usize,
    x: *const f32,
    ldx: usize,
    y: *mut f32,
    ldy: usize,
) -> sm_status {
    boundary::call(|| {
        let Some(moved) = row_by_row(rows, cols, x, ldx, y, ldy)? else { return Ok(()) };
        let kernels = &KernelSet::default_set()?.rows;
        let _zone = profile::scope(Zone::Softmax).work(0, moved);
        // SAFETY: the header's contract, and `row_by_row` has checked sizes and overlap.
        unsafe { kernels.log_softmax.run(&softmax_args(rows, cols, (x, ldx), (y, ldy))) };
        Ok(())
    })
}

/// y = x with `row`, `cols` floats, added to each of its rows.
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
    boundary::call(|| {
        let Some(moved) = row_by_row(rows, cols, x, ldx, y, ldy)? else { return Ok(()) };
        // SAFETY: the header's contract.
        let added = unsafe { buffers::array(row, cols, "row") }?;
        apart("y", y, floats("y", rows, cols, ldy)?, "row", added)?;
        let kernels = &KernelSet::default_set()?.rows;
        let _zone = profile::scope(Zone::Add).work(0, moved);
        let args = AddRowArgs { src: x, src_stride: ldx, row, dst: y, dst_stride: ldy, rows, cols };
        // SAFETY: the header's contract, with sizes and overlap checked.
        unsafe { kernels.add_row.run(&args) };
        Ok(())
    })
}

/// LayerNorm of each row: y = (x - mean) / sqrt(variance + eps) * weight + bias.
///
/// `weight` and `bias` are `cols` floats each, or NULL for 1 and 0. `eps` is finite and at least 0.
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
    let args = norm_args(rows, cols, (x, ldx), weight, bias, eps, (y, ldy));
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { normalise(Zone::LayerNorm, &args) })
}

/// RMSNorm of each row: y = x / sqrt(mean of x^2 + eps) * weight.
///
/// `weight` is `cols` floats, or NULL for 1. `eps` is finite and at least 0.
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
    let args = norm_args(rows, cols, (x, ldx), weight, std::ptr::null(), eps, (y, ldy));
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { normalise(Zone::RmsNorm, &args) })
}

/// LayerNorm of x + add, which takes the place of x; and, for a backward pass, what it was computed with.
///
/// x = x + add; y = (x - mean) / sqrt(variance + eps) * weight + bias; `mean` and `rstd` = 1 / sqrt(variance + eps) get
/// one number for each row. NULL for `add`: x stays, and y may be x. NULL for `mean` or `rstd`: not wanted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_add_layer_norm_f32(
    rows: usize,
    cols: usize,
    x: *mut f32,
    ldx: usize,
    add: *const f32,
    ldadd: usize,
    weight: *const f32,
    bias: *const f32,
    eps: f32,
    y: *mut f32,
    ldy: usize,
    mean: *mut f32,
    rstd: *mut f32,
) -> sm_status {
    let plain = norm_args(rows, cols, (x, ldx), weight, bias, eps, (y, ldy));
    let args = NormArgs { add, add_stride: ldadd, mean, rstd, ..plain };
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { normalise(Zone::LayerNorm, &args) })
}

/// RMSNorm of x + add, which takes the place of x; and, for a backward pass, what it was computed with.
///
/// x = x + add; y = x / sqrt(mean of x^2 + eps) * weight; `rstd` = 1 / sqrt(mean of x^2 + eps) gets one number for each
/// row. NULL for `add`: x stays, and y may be x. NULL for `rstd`: not wanted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_add_rms_norm_f32(
    rows: usize,
    cols: usize,
    x: *mut f32,
    ldx: usize,
    add: *const f32,
    ldadd: usize,
    weight: *const f32,
    eps: f32,
    y: *mut f32,
    ldy: usize,
    rstd: *mut f32,
) -> sm_status {
    let plain = norm_args(rows, cols, (x, ldx), weight, std::ptr::null(), eps, (y, ldy));
    let args = NormArgs { add, add_stride: ldadd, rstd, ..plain };
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { normalise(Zone::RmsNorm, &args) })
}

fn softmax_args(
    rows: usize,
    cols: usize,
    (src, src_stride): (*const f32, usize),
    (dst, dst_stride): (*mut f32, usize),
) -> SoftmaxArgs {
    let (scale, causal, mask, mask_stride) = (1.0, None, std::ptr::null(), 0);
    SoftmaxArgs { src, src_stride, dst, dst_stride, rows, cols, scale, causal, mask, mask_stride }
}

/// Runs softmax over checked buffers.
///
/// # Safety
/// The pointers are NULL or valid for what the header says; the mask is checked.
unsafe fn softmax(args: &SoftmaxArgs) -> Result<(), Failure> {
    let &SoftmaxArgs { src, src_stride, dst, dst_stride, rows, cols, .. } = args;
    let Some(moved) = row_by_row(rows, cols, src, src_stride, dst, dst_stride)? else { return Ok(()) };
    let kernels = &KernelSet::default_set()?.rows;
    let _zone = profile::scope(Zone::Softmax).work(0, moved);
    // SAFETY: the function's contract, and `row_by_row` has checked sizes and overlap.
    unsafe { kernels.softmax.run(args) };
    Ok(())
}

fn norm_args(
    rows: usize,
    cols: usize,
    (x, x_stride): (*const f32, usize),
    gamma: *const f32,
    beta: *const f32,
    eps: f32,
    (dst, dst_stride): (*mut f32, usize),
) -> NormArgs {
    // Without `add`, the kernel only reads x.
    let (x, add, add_stride) = (x.cast_mut(), std::ptr::null(), 0);
    let (mean, rstd) = (std::ptr::null_mut(), std::ptr::null_mut());
    NormArgs { x, x_stride, add, add_stride, dst, dst_stride, gamma, beta, eps, rows, cols, mean, rstd }
}

/// Runs LayerNorm or RMSNorm over checked buffers.
///
/// # Safety
/// The pointers are NULL or valid for what the header says.
unsafe fn normalise(zone: Zone, args: &NormArgs) -> Result<(), Failure> {
    let &NormArgs { x, x_stride, dst, dst_stride, eps, rows, cols, .. } = args;
    if !(eps.is_finite() && eps >= 0.0) {
        return Err(Failure::invalid(format!("eps is {eps}; it must be finite and at least 0")));
    }
    let Some(moved) = row_by_row(rows, cols, x, x_stride, dst, dst_stride)? else { return Ok(()) };
    let plain = args.add.is_null() && args.mean.is_null() && args.rstd.is_null();
    if plain {
        let len = floats("y", rows, cols, dst_stride)?;
        for (name, vector) in [("weight", args.gamma), ("bias", args.beta)] {
            buffers::check(vector, if vector.is_null() { 0 } else { cols }, name)?;
            if !vector.is_null() && overlap(&range(dst, len), &range(vector, cols)) {
                return Err(Failure::invalid(format!("y overlaps {name}")));
            }
        }
    } else {
        norm_overlap(args)?;
    }
    let kernels = &KernelSet::default_set()?.rows;
    let norm = if zone == Zone::LayerNorm { &kernels.layer_norm } else { &kernels.rms_norm };
    let _zone = profile::scope(zone).work(0, moved);
    // SAFETY: the function's contract, with sizes and overlap checked.
    unsafe { norm.run(args) };
    Ok(())
}

/// Checks the buffers of a norm beside x and y, which are checked already, and that nothing written overlaps anything
/// else, but y x where x stays.
fn norm_overlap(args: &NormArgs) -> Result<(), Failure> {
    let &NormArgs { rows, cols, .. } = args;
    let x = ("x", args.x.cast_const(), floats("x", rows, cols, args.x_stride)?);
    let y = ("y", args.dst.cast_const(), floats("y", rows, cols, args.dst_stride)?);
    let given = |name, p: *const f32, len| (name, p, if p.is_null() { 0 } else { len });
    let add_len = if args.add.is_null() { 0 } else { floats("add", rows, cols, args.add_stride)? };
    let read = [
        given("weight", args.gamma, cols),
        given("bias", args.beta, cols),
        ("add", args.add, add_len),
        ("x", x.1, if args.add.is_null() { x.2 } else { 0 }),
    ];
    let sum = ("x", x.1, x.2 - read[3].2);
    let written = [y, given("mean", args.mean, rows), given("rstd", args.rstd, rows), sum];
    for (name, p, len) in read.into_iter().chain(written) {
        buffers::check(p, len, name)?;
    }
    for (i, &(name, p, len)) in written.iter().enumerate() {
        for &(other_name, other, other_len) in read.iter().chain(&written[i + 1..]) {
            let in_place = (name, other_name) == ("y", "x") && args.add.is_null();
            if !in_place && overlap(&range(p, len), &range(other, other_len)) {
                return Err(Failure::invalid(format!("{name} overlaps {other_name}")));
            }
        }
    }
    Ok(())
}
