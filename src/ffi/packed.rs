//! Packed matrices
//! ---------------
//! A matrix B that many products are computed with, packed once in the layout of the kernel that multiplies with it:
//! floats, quantised weights as model files hold them, or weights for arithmetic in bfloat16. One type for all.

use std::ffi::c_void;
use std::mem::size_of;
use std::ptr;

use half::slice::HalfBitsSliceExt;

use super::boundary;
use super::buffers;
use super::handle::{clear_out, give, take};
use super::matrices::floats;
use super::model::activations;
use super::params::{self, Params, Versioned, boolean, fields};
use super::status::{Failure, sm_status};
use super::team::{self, sm_team};
use crate::kernels::KernelSet;
use crate::kernels::matmul::Matrix;
use crate::ops::PackedMatrix;
use crate::ops::matrix::Element;
use crate::quant::DType;
use crate::threads::Team;

/// For `kept_as`: the type that B has.
pub const SM_TYPE_AS_GIVEN: i32 = -1;
/// IEEE single precision.
pub const SM_TYPE_F32: i32 = 0;
/// IEEE half precision.
pub const SM_TYPE_F16: i32 = 1;
/// bfloat16.
pub const SM_TYPE_BF16: i32 = 2;
/// Blocks of 32 with one scale, 4 bits an element. Quantised types are 100 and their number in GGUF files.
pub const SM_TYPE_Q4_0: i32 = 102;
/// Blocks of 32 with scale and minimum, 4 bits an element.
pub const SM_TYPE_Q4_1: i32 = 103;
/// Blocks of 32 with one scale, 5 bits an element.
pub const SM_TYPE_Q5_0: i32 = 106;
/// Blocks of 32 with scale and minimum, 5 bits an element.
pub const SM_TYPE_Q5_1: i32 = 107;
/// Blocks of 32 with one scale, 8 bits an element.
pub const SM_TYPE_Q8_0: i32 = 108;
/// Blocks of 256, 2 bits an element.
pub const SM_TYPE_Q2_K: i32 = 110;
/// Blocks of 256, 3 bits an element.
pub const SM_TYPE_Q3_K: i32 = 111;
/// Blocks of 256, 4 bits an element.
pub const SM_TYPE_Q4_K: i32 = 112;
/// Blocks of 256, 5 bits an element.
pub const SM_TYPE_Q5_K: i32 = 113;
/// Blocks of 256, 6 bits an element.
pub const SM_TYPE_Q6_K: i32 = 114;
/// Blocks of 256, 2 bits an element into a grid.
pub const SM_TYPE_IQ2_XXS: i32 = 116;
/// Blocks of 256, 2.3 bits an element into a grid.
pub const SM_TYPE_IQ2_XS: i32 = 117;
/// Blocks of 256, 3 bits an element into a grid.
pub const SM_TYPE_IQ3_XXS: i32 = 118;
/// Blocks of 256, 1.5 bits an element into a grid.
pub const SM_TYPE_IQ1_S: i32 = 119;
/// Blocks of 32, 4 bits an element into a table.
pub const SM_TYPE_IQ4_NL: i32 = 120;
/// Blocks of 256, 3.4 bits an element into a grid.
pub const SM_TYPE_IQ3_S: i32 = 121;
/// Blocks of 256, 2.5 bits an element into a grid.
pub const SM_TYPE_IQ2_S: i32 = 122;
/// Blocks of 256, 4 bits an element into a table.
pub const SM_TYPE_IQ4_XS: i32 = 123;
/// Blocks of 256, 1.75 bits an element into a grid.
pub const SM_TYPE_IQ1_M: i32 = 129;
/// Blocks of 256 of -1, 0 or 1, in base 3.
pub const SM_TYPE_TQ1_0: i32 = 134;
/// Blocks of 256 of -1, 0 or 1, 2 bits an element.
pub const SM_TYPE_TQ2_0: i32 = 135;
/// Blocks of 32 floats of 4 bits, with a power of two as scale.
pub const SM_TYPE_MXFP4: i32 = 139;
/// Blocks of 64 floats of 4 bits, with a float of 8 bits as scale of each 16.
pub const SM_TYPE_NVFP4: i32 = 140;

/// A quantised type's constant is its number in GGUF files and this.
const QUANTISED: i32 = 100;

/// A matrix B to pack. Fill it with `sm_matrix_params_init`, then set `k`, `n` and all that differs from the defaults.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sm_matrix_params {
    /// Size of this structure in bytes.
    pub struct_size: usize,
    /// Rows of B.
    pub k: usize,
    /// Columns of B.
    pub n: usize,
    /// Elements from one stored row of B to the next; 0 for no gaps. Quantised rows never have gaps.
    pub ldb: usize,
    /// 1 where B is stored as n rows of k, as layers keep their weights and as quantised types always are; 0 by
    /// default.
    pub b_transposed: i32,
    /// Type of B's elements, one of `SM_TYPE_*`; `SM_TYPE_F32` by default.
    pub r#type: i32,
    /// The quantised type to encode B of floats in, or `SM_TYPE_AS_GIVEN`, the default. Grids (`SM_TYPE_IQ1_*` to
    /// `SM_TYPE_IQ3_*`) and `SM_TYPE_NVFP4` can't be encoded.
    pub kept_as: i32,
    /// 1 for products in bfloat16: B of halves or floats is rounded to it, to the nearest, and so is A, in each product.
    /// Sums are of floats. 0 by default.
    pub bf16_products: i32,
    /// Bits that A is rounded to where B is quantised: 16, 8 or `SM_ACTIVATION_BITS_AUTO`; 0 for the default of 16. See
    /// `sm_model_params`.
    pub activation_bits: i32,
    /// Always 0.
    pub reserved: i32,
    /// Threads to pack with, or NULL for the calling thread. They don't change the matrix.
    pub team: *mut sm_team,
}

// SAFETY: repr(C); integers and a raw pointer.
unsafe impl Versioned for sm_matrix_params {
    const NAME: &'static str = "sm_matrix_params";

    fields!(
        struct_size,
        k,
        n,
        ldb,
        b_transposed,
        r#type,
        kept_as,
        bf16_products,
        activation_bits,
        reserved,
        team
    );
}

// SAFETY: struct_size is first.
unsafe impl Params for sm_matrix_params {
    fn defaults() -> Self {
        Self {
            struct_size: size_of::<Self>(),
            k: 0,
            n: 0,
            ldb: 0,
            b_transposed: 0,
            r#type: SM_TYPE_F32,
            kept_as: SM_TYPE_AS_GIVEN,
            bf16_products: 0,
            activation_bits: 0,
            reserved: 0,
            team: ptr::null_mut(),
        }
    }

    fn reserved(&self) -> i32 {
        self.reserved
    }
}

/// A matrix B in the layout of the kernel that multiplies with it. It keeps no pointer to where it came from, is
/// never changed, and may be used on many threads at once.
pub struct sm_matrix {
    pub(super) matrix: PackedMatrix,
}

/// Fills in the defaults.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_matrix_params_init(
    params: *mut sm_matrix_params,
    struct_size: usize,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { params::init(params, struct_size) })
}

/// Packs B as `params` says, once, for many products; free the matrix with `sm_matrix_free`. `b` has `k` x `n` elements,
/// or with `b_transposed` `n` x `k`; quantised rows stand one after the other, each of `k` elements in whole blocks.
/// The matrix is packed for the instruction set that runs now.
///
/// `SM_STATUS_INVALID_ARGUMENT`: an unknown type, `k` that is no multiple of the type's blocks, `ldb` less than a row, a
/// quantised B that isn't transposed or has gaps, or settings that contradict each other.
/// `SM_STATUS_UNSUPPORTED`: the type `kept_as` can't be encoded. `SM_STATUS_NULL_POINTER`, `SM_STATUS_BUSY` (the team),
/// `SM_STATUS_OUT_OF_MEMORY`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_matrix_create(
    params: *const sm_matrix_params,
    b: *const c_void,
    matrix: *mut *mut sm_matrix,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe {
        clear_out(matrix, "matrix")?;
        let packed = pack(&params::read(params)?, b)?;
        give(matrix, sm_matrix { matrix: packed });
        Ok(())
    })
}

/// Packs B, once, for many products. `b` is k by n of `type`, one of `SM_TYPE_*` (n by k where `b_transposed` is
/// 1), and `ldb` the number of elements from one row to the next, 0 for no gaps. Halves are widened while they are
/// multiplied; sums are of floats. `sm_matrix_create` in short; free the matrix with `sm_matrix_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_matrix_pack(
    k: usize,
    n: usize,
    b: *const c_void,
    ldb: usize,
    b_transposed: i32,
    r#type: i32,
    matrix: *mut *mut sm_matrix,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe {
        clear_out(matrix, "matrix")?;
        let params = sm_matrix_params { k, n, ldb, b_transposed, r#type, ..Params::defaults() };
        give(matrix, sm_matrix { matrix: pack(&params, b)? });
        Ok(())
    })
}

/// Frees a matrix; NULL is fine. Nobody may be multiplying with it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_matrix_free(matrix: *mut sm_matrix) -> sm_status {
    boundary::call(|| {
        if !matrix.is_null() {
            // SAFETY: the header's contract.
            drop(unsafe { take(matrix) });
        }
        Ok(())
    })
}

/// The type that a constant of the header means.
fn dtype(constant: i32, what: &str) -> Result<DType, Failure> {
    let found = match constant {
        SM_TYPE_F32 => Some(DType::F32),
        SM_TYPE_F16 => Some(DType::F16),
        SM_TYPE_BF16 => Some(DType::BF16),
        _ => {
            let number = constant.checked_sub(QUANTISED).and_then(|number| u32::try_from(number).ok());
            number.and_then(DType::from_gguf).filter(|dtype| dtype.is_quantized())
        }
    };
    found.ok_or_else(|| Failure::invalid(format!("{what} is {constant}, which is none of SM_TYPE_*")))
}

/// Packs B as the parameters say.
///
/// # Safety
/// `b` and the team are as the header says.
pub(super) unsafe fn pack(params: &sm_matrix_params, b: *const c_void) -> Result<PackedMatrix, Failure> {
    let sm_matrix_params { k, n, ldb, .. } = *params;
    let (transposed, bf16) =
        (boolean(params.b_transposed, "b_transposed")?, boolean(params.bf16_products, "bf16_products")?);
    let given = dtype(params.r#type, "type")?;
    let kept = if params.kept_as == SM_TYPE_AS_GIVEN { given } else { dtype(params.kept_as, "kept_as")? };
    if bf16 && (given.is_quantized() || kept.is_quantized()) {
        return Err(Failure::invalid("quantised weights have no products in bfloat16"));
    }
    if kept != given && (given != DType::F32 || !kept.is_quantized()) {
        return Err(Failure::invalid(format!("B of {} can't be kept as {}", given.name(), kept.name())));
    }
    let mut kernels = *KernelSet::default_set()?;
    kernels.qmatmul = kernels.qmatmul.with_activations(activations(params.activation_bits)?);
    let (lines, line) = if transposed { (n, k) } else { (k, n) };
    let ld = if ldb == 0 { line } else { ldb };
    let len = floats("B", lines, line, ld)?;
    // SAFETY: the function's contract.
    let inside = unsafe { team::enter(params.team) }?;
    let team = inside.as_ref().map(|inside| inside.team);
    if given.is_quantized() {
        if !transposed || ld != k {
            return Err(Failure::invalid("quantised rows run along k, without gaps"));
        }
        let blocks = given
            .row_bytes(k)
            .ok_or_else(|| Failure::invalid(format!("rows of {k} are no whole {} blocks", given.name())))?;
        let bytes = blocks.checked_mul(n).ok_or_else(|| Failure::invalid("B doesn't fit into memory"))?;
        // SAFETY: the function's contract.
        let rows = unsafe { buffers::array(b.cast::<u8>(), bytes, "B") }?;
        return Ok(PackedMatrix::from_rows(&kernels, given, k, n, rows, team)?);
    }
    if given == DType::F32 {
        // SAFETY: the function's contract.
        let data = unsafe { buffers::array(b.cast::<f32>(), len, "B") }?;
        let b = Matrix { data, ld, transposed };
        if kept.is_quantized() {
            return Ok(PackedMatrix::quantize(&kernels, kept, k, n, b, team)?);
        }
        return pack_floats(&kernels, [k, n], b, bf16, team);
    }
    // SAFETY: the function's contract.
    let bits = unsafe { buffers::array(b.cast::<u16>(), len, "B") }?;
    if given == DType::F16 {
        let b = Matrix { data: bits.reinterpret_cast::<half::f16>(), ld, transposed };
        return pack_floats(&kernels, [k, n], b, bf16, team);
    }
    let b = Matrix { data: bits.reinterpret_cast::<half::bf16>(), ld, transposed };
    pack_floats(&kernels, [k, n], b, bf16, team)
}

fn pack_floats<T: Element>(
    kernels: &KernelSet,
    [k, n]: [usize; 2],
    b: Matrix<'_, T>,
    bf16: bool,
    team: Option<&Team>,
) -> Result<PackedMatrix, Failure> {
    let pack = if bf16 { PackedMatrix::pack_bf16 } else { PackedMatrix::pack };
    Ok(pack(kernels, k, n, b, team)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_quantised_type_has_its_constant() {
        let constants = [
            (SM_TYPE_Q4_0, DType::Q4_0),
            (SM_TYPE_Q4_1, DType::Q4_1),
            (SM_TYPE_Q5_0, DType::Q5_0),
            (SM_TYPE_Q5_1, DType::Q5_1),
            (SM_TYPE_Q8_0, DType::Q8_0),
            (SM_TYPE_Q2_K, DType::Q2_K),
            (SM_TYPE_Q3_K, DType::Q3_K),
            (SM_TYPE_Q4_K, DType::Q4_K),
            (SM_TYPE_Q5_K, DType::Q5_K),
            (SM_TYPE_Q6_K, DType::Q6_K),
            (SM_TYPE_IQ2_XXS, DType::IQ2_XXS),
            (SM_TYPE_IQ2_XS, DType::IQ2_XS),
            (SM_TYPE_IQ3_XXS, DType::IQ3_XXS),
            (SM_TYPE_IQ1_S, DType::IQ1_S),
            (SM_TYPE_IQ4_NL, DType::IQ4_NL),
            (SM_TYPE_IQ3_S, DType::IQ3_S),
            (SM_TYPE_IQ2_S, DType::IQ2_S),
            (SM_TYPE_IQ4_XS, DType::IQ4_XS),
            (SM_TYPE_IQ1_M, DType::IQ1_M),
            (SM_TYPE_TQ1_0, DType::TQ1_0),
            (SM_TYPE_TQ2_0, DType::TQ2_0),
            (SM_TYPE_MXFP4, DType::MXFP4),
            (SM_TYPE_NVFP4, DType::NVFP4),
        ];
        for (constant, meant) in constants {
            assert_eq!(dtype(constant, "type").map_err(|failure| failure.message), Ok(meant));
        }
        let quantised = DType::ALL.iter().filter(|dtype| dtype.is_quantized());
        assert_eq!(quantised.count(), constants.len());
        // 130 and 100 would be bfloat16 and f32 by their numbers in files.
        for wrong in [-2, 3, 99, 100, 130, 104, i32::MIN, i32::MAX] {
            assert!(dtype(wrong, "type").is_err(), "{wrong}");
        }
    }
}
