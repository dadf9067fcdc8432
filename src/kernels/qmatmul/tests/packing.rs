//! Packed weights give their rows back bit for bit; shapes that can't be packed are errors; how a level's kernels are
//! chosen.

use super::*;

#[test]
fn a_panel_gives_back_its_rows_bit_for_bit() {
    for set in sets() {
        for dtype in DTYPES {
            let (n, k) = (2 * nr_of(&set) + 3, whole_blocks(dtype, 96));
            let rows = Random(6).weights(dtype, n, k);
            let kernel = set.kernel(dtype).unwrap();
            let packed = pack(kernel, &rows, n, k);
            let (mut ours, mut theirs) = (vec![0.0; k], vec![0.0; k]);
            for (row, bytes) in rows.chunks(dtype.row_bytes(k).unwrap()).enumerate() {
                kernel.layout.decode_row(&packed, row, &mut ours).unwrap();
                quant::decode_row(dtype, bytes, &mut theirs).unwrap();
                let same = ours.iter().zip(&theirs).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{} {} row {row}", set.isa().name(), dtype.name());
            }
            assert!(kernel.layout.decode_row(&packed, kernel.panels(n) * kernel.nr(), &mut ours).is_err());
            assert!(kernel.layout.decode_row(&packed, usize::MAX, &mut ours).is_err());
            assert!(kernel.layout.decode_row(&packed, 0, &mut ours[1..]).is_err());
        }
    }
}

#[test]
fn shapes_that_cannot_be_packed_are_errors() {
    for set in levels() {
        for dtype in DTYPES {
            let kernel = set.kernel(dtype).unwrap();
            let (layout, k) = (kernel.layout, whole_blocks(dtype, 64));
            let panel = kernel.panel_bytes(k).unwrap();
            let row = dtype.row_bytes(k).unwrap();
            let (rows, mut out) = (vec![0; row * (kernel.nr() + 1)], vec![0; panel]);
            assert!(layout.pack_panel(&rows[row..], k, &mut out).is_ok());
            assert!(layout.pack_panel(&rows, k, &mut out).is_err());
            assert!(layout.pack_panel(&rows[row + 1..], k, &mut out).is_err());
            assert!(layout.pack_panel(&rows[row..], k, &mut out[1..]).is_err());
            assert!(layout.pack_panel(&rows[row..], k + 1, &mut out).is_err());
            assert!(kernel.panel_bytes(k - 16).is_err());
            assert!(kernel.packed_bytes(usize::MAX, 1 << 20).is_err());
            assert!(kernel.packed_bytes(usize::MAX, k).is_err() || kernel.nr() > 1 << 20);
        }
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            assert!(set.kernel(dtype).is_none());
        }
    }
}

#[test]
fn a_level_has_its_own_kernels_or_the_next_lower_ones() {
    for isa in IsaId::available() {
        let set = QmatmulKernels::select(isa);
        let own = match isa {
            IsaId::Avx512Bf16 => IsaId::Avx512Vnni,
            IsaId::NeonBf16 => IsaId::NeonDotprod,
            own => own,
        };
        assert_eq!(set.isa(), own, "every level has its own kernels, or the next lower ones");
        assert_eq!(set.activations(), Activations::default());
        for mode in Activations::ALL {
            let set = set.with_activations(mode);
            assert_eq!((set.isa(), set.activations()), (own, mode));
            let row = 96 * mode.bytes() + 3 * 16 * (mode.bytes() + 1);
            assert!(set.row_bytes(96) >= row && set.row_bytes(96) < row + 128);
            assert_eq!(set.row_bytes(96) % 128, 64);
        }
    }
    assert_eq!(kernels().count(), TABLE.len() * (4 + DTYPES.len()));
    for kernel in TABLE.iter().flat_map(|level| &level.kernels) {
        let Kernel { info, layout, .. } = kernel;
        assert_eq!((info.dtype, info.nr), (layout.dtype.name(), layout.nr), "the kernel of another type");
    }
    for level in TABLE {
        assert_eq!(level.kernels.each_ref().map(|kernel| kernel.layout.dtype), DTYPES);
    }
}

#[test]
fn no_kernel_is_chosen_that_this_cpu_lacks() {
    for isa in IsaId::ALL {
        let set = QmatmulKernels::select(isa);
        assert!(set.isa().is_available(), "{isa:?}");
        assert!(DTYPES.iter().all(|&dtype| set.kernel(dtype).unwrap().info.isa == set.isa()), "{isa:?}");
    }
}
