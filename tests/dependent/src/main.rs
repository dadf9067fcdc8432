//! A program of ten lines that depends on the library and multiplies matrices on a team; `.ci/packages` runs it against
//! the packaged library.

use smallmind::kernels::{KernelSet, matmul::Matrix};
use smallmind::ops::{Matmul, Operand, Workspace};
use smallmind::threads::Team;

fn main() -> smallmind::Result<()> {
    let (a, b, mut c) = (vec![1.0; 300 * 200], vec![0.5; 200 * 400], vec![0.0; 300 * 400]);
    let matrix = |data, ld| Matrix { data, ld, transposed: false };
    let right = Operand::plain(KernelSet::default_set()?, 200, 400, matrix(&b, 400));
    Matmul::new(300, matrix(&a, 200), right).run(&mut c, 400, Some(&Team::new(2)?), &mut Workspace::default())?;
    assert!(c.iter().all(|x| *x == 100.0));
    Ok(())
}
