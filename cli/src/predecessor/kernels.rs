//! Single kernels at the sizes of the predecessor's profiler. Each size is a method; inside it, all sizes share one
//! method for their iterations. The size's method also contains its warm-up, which is no iteration: like the
//! predecessor's, it runs the kernel 1 + 3 or 1 + 5 times. One more call runs before, unrecorded: it brings back into
//! the caches the data that the workload before has driven out.
//!
//! Products run on all workers, the rest on the calling thread.

use smallmind::Result;
use smallmind::kernels::KernelSet;
use smallmind::kernels::matmul::{Epilogue, Gemm, Matrix, Right};
use smallmind::kernels::rows::Weighing;
use smallmind::memory::AlignedBuf;
use smallmind::ops::gemm::Workspace;
use smallmind::profile::{self, Scope, Zone, zone};
use smallmind::threads::Team;

use crate::profile::modes::plan::Workload;

/// Operations that one GELU by tanh, and one element of a softmax, count as.
const GELU_FLOPS: usize = 8;
const SOFTMAX_FLOPS: usize = 5;

/// Work of one call: floating-point operations, and bytes read or written at least once.
#[derive(Clone, Copy)]
pub struct Work {
    pub flops: usize,
    pub bytes: usize,
}

impl Work {
    fn declare(self, scope: &mut Scope) {
        scope.add_work(self.flops as u64, self.bytes as u64);
    }
}

/// A kernel called again and again under a method's name.
pub struct Repeated<F> {
    name: String,
    method: Zone,
    iteration: Zone,
    warm_ups: usize,
    iterations: usize,
    work: Work,
    call: F,
}

impl<F: FnMut() -> Result<()>> Workload for Repeated<F> {
    fn name(&self) -> &str {
        &self.name
    }

    fn warm(&mut self) -> Result<()> {
        (self.call)()
    }

    fn run(&mut self) -> Result<()> {
        let mut method = profile::scope(self.method);
        for _ in 0..self.warm_ups {
            self.work.declare(&mut method);
            (self.call)()?;
        }
        for _ in 0..self.iterations {
            let mut iteration = profile::scope(self.iteration);
            self.work.declare(&mut iteration);
            (self.call)()?;
        }
        Ok(())
    }
}

/// Warm-ups and iterations of each method.
#[derive(Clone, Copy)]
pub struct Counts {
    pub warm_ups: usize,
    pub iterations: usize,
}

/// `call` under the names `{family}_{size}` and `{family}_Iteration`.
fn repeated(
    family: &str,
    size: &str,
    counts: Counts,
    work: Work,
    call: impl FnMut() -> Result<()> + 'static,
) -> Result<Box<dyn Workload>> {
    let name = format!("{family}_{size}");
    Ok(Box::new(Repeated {
        method: zone(&name)?,
        iteration: zone(&format!("{family}_Iteration"))?,
        name,
        warm_ups: counts.warm_ups,
        iterations: counts.iterations,
        work,
        call,
    }))
}

/// Numbers between −1 and 1 that nothing depends on, from a cache line on.
pub fn floats(len: usize) -> Result<AlignedBuf> {
    let mut buffer = AlignedBuf::zeroed(4 * len, "operands of a profile")?;
    let values = buffer.as_mut_slice::<f32>().iter_mut().enumerate();
    values.for_each(|(i, value)| *value = (i * 7919 % 2003) as f32 / 1001.5 - 1.0);
    Ok(buffer)
}

/// C = op(A) · op(B), m × n × k, of plain row-major matrices: `transposed` says which of them lies transposed.
pub struct Product {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub transposed: [bool; 2],
}

impl Product {
    /// A product of matrices as they lie.
    pub const fn plain(m: usize, n: usize, k: usize) -> Self {
        Product { m, n, k, transposed: [false; 2] }
    }

    /// The work of one product: two operations for each of m · n · k, and each matrix read or written once.
    pub fn work(&self) -> Work {
        let Product { m, n, k, .. } = *self;
        Work { flops: 2 * m * n * k, bytes: 4 * (m * k + k * n + m * n) }
    }

    /// A scope of this method that declares the work.
    pub fn scope(&self, method: Zone) -> Scope {
        let mut scope = profile::scope(method);
        self.work().declare(&mut scope);
        scope
    }

    /// Computes the product, and packs operands on the way. Allocates where every earlier product took less memory.
    pub fn run(&self, tools: &mut Tools, a: &AlignedBuf, b: &AlignedBuf, c: &mut AlignedBuf) -> Result<()> {
        let Product { m, n, k, transposed: [turned_a, turned_b] } = *self;
        let a = Matrix { data: a.as_slice(), ld: if turned_a { m } else { k }, transposed: turned_a };
        let b = Matrix { data: b.as_slice(), ld: if turned_b { k } else { n }, transposed: turned_b };
        let (b, epilogue) = (Right::Plain(b), Epilogue::default());
        let gemm = Gemm { m, n, k, alpha: 1.0, a, b, beta: 0.0, epilogue };
        let row = tools.kernels.matmul().f32;
        tools.workspace.multiply(tools.team.as_ref(), row, &gemm, c.as_mut_slice(), n)
    }
}

/// The kernels, the working memory that stays, and a team where there are several threads.
pub struct Tools {
    kernels: KernelSet,
    workspace: Workspace,
    team: Option<Team>,
}

impl Tools {
    pub fn new(kernels: &KernelSet, threads: usize) -> Result<Self> {
        let team = if threads > 1 { Some(Team::new(threads)?) } else { None };
        Ok(Tools { kernels: *kernels, workspace: Workspace::default(), team })
    }

    pub fn kernels(&self) -> &KernelSet {
        &self.kernels
    }
}

/// `MatMul_{n}x{n}`.
pub fn matmul(kernels: &KernelSet, threads: usize, size: usize, counts: Counts) -> Result<Box<dyn Workload>> {
    let product = Product::plain(size, size, size);
    let mut tools = Tools::new(kernels, threads)?;
    let (a, b, mut c) = (floats(size * size)?, floats(size * size)?, floats(size * size)?);
    let work = product.work();
    repeated("MatMul", &format!("{size}x{size}"), counts, work, move || {
        product.run(&mut tools, &a, &b, &mut c)
    })
}

/// `GELU_{n}`, by tanh.
pub fn gelu(kernels: &KernelSet, len: usize, counts: Counts) -> Result<Box<dyn Workload>> {
    let (kernel, x, mut y) = (kernels.unary().gelu_tanh, floats(len)?, floats(len)?);
    let work = Work { flops: GELU_FLOPS * len, bytes: 8 * len };
    repeated("GELU", &len.to_string(), counts, work, move || {
        kernel.apply(x.as_slice(), y.as_mut_slice());
        Ok(())
    })
}

/// `Softmax_{n}`: one row.
pub fn softmax(kernels: &KernelSet, len: usize, counts: Counts) -> Result<Box<dyn Workload>> {
    let (kernel, x, mut y) = (kernels.rows().softmax, floats(len)?, floats(len)?);
    let work = Work { flops: SOFTMAX_FLOPS * len, bytes: 8 * len };
    repeated("Softmax", &len.to_string(), counts, work, move || {
        kernel.apply(x.as_slice(), y.as_mut_slice(), len, Weighing::default())
    })
}

/// `TensorAdd_{n}` and `TensorMul_{n}`: two tensors into a third.
pub fn tensor_add_mul(kernels: &KernelSet, len: usize, counts: Counts) -> Result<[Box<dyn Workload>; 2]> {
    let of = |name, kernel: smallmind::kernels::unary::Binary| {
        let (a, b, mut y) = (floats(len)?, floats(len)?, floats(len)?);
        repeated(name, &len.to_string(), counts, Work { flops: len, bytes: 12 * len }, move || {
            kernel.apply(a.as_slice(), b.as_slice(), y.as_mut_slice());
            Ok(())
        })
    };
    Ok([of("TensorAdd", kernels.unary().add)?, of("TensorMul", kernels.unary().mul)?])
}

/// `BroadcastAdd_{n}x{n}`: a row added to each row of a tensor.
pub fn broadcast_add(kernels: &KernelSet, side: usize, counts: Counts) -> Result<Box<dyn Workload>> {
    let (kernel, row, mut x) = (kernels.rows().add_row, floats(side)?, floats(side * side)?);
    let work = Work { flops: side * side, bytes: 4 * (2 * side * side + side) };
    repeated("BroadcastAdd", &format!("{side}x{side}"), counts, work, move || {
        kernel.apply_in_place(x.as_mut_slice(), row.as_slice())
    })
}
