//! Rotary embedding on every level of this CPU against `reference`, within the bound that the module states.

use super::*;
use crate::kernels::reference;

const CANARY: f32 = -7777.0;
const PAIRINGS: [Pairing; 2] = [Pairing::Adjacent, Pairing::Halves];

/// Angles in memory of their own.
struct Table {
    data: Vec<f32>,
    n_ctx: usize,
    rot_dim: usize,
}

impl Table {
    fn new(n_ctx: usize, rot_dim: usize, base: f32, scaling: Scaling) -> Result<Self> {
        let mut data = vec![0.0; n_ctx * rot_dim];
        fill(&mut data, rot_dim, base, scaling)?;
        Ok(Self { data, n_ctx, rot_dim })
    }

    fn angles(&self) -> Angles<'_> {
        Angles::new(&self.data, self.rot_dim).unwrap_or(Angles::none(self.n_ctx))
    }
}

fn values(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.03).collect()
}

#[test]
fn matches_the_reference_and_leaves_the_rest() {
    let positions = [0, 1, 37, 511];
    for isa in levels::here() {
        let set = RopeKernels::select(isa);
        for (head_dim, rot_dim) in [
            (2, 2),
            (6, 6),
            (8, 8),
            (16, 16),
            (30, 30),
            (34, 34),
            (64, 64),
            (66, 50),
            (80, 32),
            (5, 0),
            (7, 4),
        ] {
            for n_head in [1, 3] {
                for pairing in PAIRINGS {
                    for factors in [None, Some(values(rot_dim / 2).iter().map(|x| x.abs() + 1.0).collect())] {
                        let factors: Option<Vec<f32>> = factors;
                        let scaling =
                            Scaling { freq_scale: 0.5, factors: factors.as_deref(), ..Scaling::default() };
                        let table = Table::new(512, rot_dim, 10_000.0, scaling).unwrap();
                        let (row, gap) = (n_head * head_dim, 3);
                        let x = values(positions.len() * row);
                        let shape = reference::Rope {
                            n_head,
                            head_dim,
                            rot_dim,
                            base: 10_000.0,
                            freq_scale: 0.5,
                            factors: factors.as_deref(),
                            pairing,
                        };
                        let want = reference::rope(&x, &positions, &shape);

                        let mut buffer = vec![CANARY; 1 + positions.len() * (row + gap)];
                        for (t, x) in x.chunks(row).enumerate() {
                            buffer[1 + t * (row + gap)..][..row].copy_from_slice(x);
                        }
                        let args = RopeArgs {
                            x: buffer[1..].as_mut_ptr(),
                            stride: row + gap,
                            positions: positions.as_ptr(),
                            tokens: positions.len(),
                            n_head,
                            head_dim,
                        };
                        // SAFETY: the buffer holds the rows at their stride, and positions lie in the table.
                        unsafe { set.of(pairing).run(table.angles(), &args) };
                        assert_eq!(buffer[0], CANARY);
                        for (t, got) in buffer[1..].chunks(row + gap).enumerate() {
                            assert!(got[row..].iter().all(|&x| x == CANARY), "wrote between rows");
                            for (j, &got) in got[..row].iter().enumerate() {
                                let (i, within) = (t * row + j, j % head_dim);
                                if within >= rot_dim {
                                    assert_eq!(got, x[i]);
                                    continue;
                                }
                                let other = match pairing {
                                    Pairing::Adjacent if within % 2 == 0 => i + 1,
                                    Pairing::Adjacent => i - 1,
                                    Pairing::Halves if within < rot_dim / 2 => i + rot_dim / 2,
                                    Pairing::Halves => i - rot_dim / 2,
                                };
                                let bound = 3.0 * 2f64.powi(-24) * f64::from(x[i].abs() + x[other].abs());
                                let error = (f64::from(got) - want[i]).abs();
                                assert!(error <= bound, "{} {pairing:?} {head_dim}/{rot_dim}", isa.name());
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_row_is_rotated_alike_alone_and_among_others() {
    let table = Table::new(8, 12, 500.0, Scaling::default()).unwrap();
    for isa in levels::here() {
        for pairing in PAIRINGS {
            let set = RopeKernels::select(isa);
            let mut all = values(3 * 2 * 14);
            let mut alone = all[28..56].to_vec();
            set.of(pairing).apply(table.angles(), &mut all, &[1, 7, 2], 14).unwrap();
            set.of(pairing).apply(table.angles(), &mut alone, &[7], 14).unwrap();
            assert_eq!(all[28..56], alone);
        }
    }
}

#[test]
fn position_zero_changes_nothing() {
    let table = Table::new(1, 64, 10_000.0, Scaling::default()).unwrap();
    for isa in levels::here() {
        for pairing in PAIRINGS {
            let mut x = values(128);
            RopeKernels::select(isa).of(pairing).apply(table.angles(), &mut x, &[0], 64).unwrap();
            assert_eq!(x, values(128));
        }
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let new = |n_ctx, rot_dim, base| Table::new(n_ctx, rot_dim, base, Scaling::default());
    assert!(matches!(new(8, 5, 1e4), Err(Error::InvalidArgument(_))));
    for base in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        assert!(matches!(new(8, 4, base), Err(Error::InvalidArgument(_))));
    }
    for factors in [&[1.0][..], &[1.0, 0.0], &[1.0, f32::NAN], &[1.0, 1.0, 1.0]] {
        let scaling = Scaling { freq_scale: 1.0, factors: Some(factors), ..Scaling::default() };
        assert!(matches!(Table::new(8, 4, 1e4, scaling), Err(Error::InvalidArgument(_))));
    }
    for (floats, rot_dim) in [(6, 4), (4, 3), (4, 0)] {
        assert!(matches!(Angles::new(&[0.0; 6][..floats], rot_dim), Err(Error::InvalidArgument(_))));
    }

    let table = new(8, 4, 1e4).unwrap();
    let rope = RopeKernels::select(IsaId::Scalar).adjacent;
    let mut x = values(24);
    for (positions, head_dim) in [(&[0, 8][..], 4), (&[0, 1], 5), (&[0, 1], 3), (&[0, 1], 0), (&[], 4)] {
        let error = rope.apply(table.angles(), &mut x, positions, head_dim);
        assert!(matches!(error, Err(Error::InvalidArgument(_))), "{positions:?} {head_dim}");
        assert_eq!(x, values(24), "changed in spite of the error");
    }
    assert!(rope.apply(table.angles(), &mut [], &[], 4).is_ok());
}
