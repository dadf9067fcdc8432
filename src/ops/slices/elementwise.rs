//! Functions of single elements: activations and their gradients, sums and products, gated pairs and their gradients.

use super::{Input, LINE, Piece, bytes, check_len, divide, kernels};
use crate::error::{Error, Result};
use crate::kernels::KernelSet;
use crate::kernels::unary::{self, Binary, GatedArgs, GatedBackward, STREAM_BYTES, Unary};
use crate::profile::{self, Zone};
use crate::threads::Team;

/// Picoseconds that a function takes for an element, about.
const FUNCTION_COST: usize = 400;
/// Picoseconds that a sum or a product takes for an element, about: the time to read and write it.
const SUM_COST: usize = 150;

/// A form of GELU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gelu {
    /// As it is defined: `x · (1 + erf(x / √2)) / 2`.
    Erf,
    /// Its customary approximation by tanh.
    Tanh,
}

/// A function of one element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Function {
    /// eˣ.
    Exp,
    /// tanh x.
    Tanh,
    /// erf x.
    Erf,
    /// `1 / (1 + e⁻ˣ)`.
    Sigmoid,
    /// GELU in one of its forms.
    Gelu(Gelu),
    /// `x / (1 + e⁻ˣ)`.
    Silu,
    /// max(x, 0); NaN stays.
    Relu,
}

/// The function of the gate in a gated pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Gate {
    /// `silu(gate) · up`: SwiGLU.
    Silu,
    /// `gelu(gate) · up`: GeGLU.
    Gelu(Gelu),
}

/// An input of [`gated_backward`]: a slice, or the elements that one of its outputs holds before the call.
#[derive(Clone, Copy, Debug)]
pub enum GatedInput<'a> {
    /// These elements.
    Slice(&'a [f32]),
    /// The elements of `dgate`, which are overwritten.
    Dgate,
    /// The elements of `dup`, which are overwritten.
    Dup,
}

impl<'a, T: AsRef<[f32]> + ?Sized> From<&'a T> for GatedInput<'a> {
    fn from(elements: &'a T) -> Self {
        GatedInput::Slice(elements.as_ref())
    }
}

impl Function {
    fn kernel(self, set: &KernelSet) -> &Unary {
        match self {
            Function::Exp => &set.unary.exp,
            Function::Tanh => &set.unary.tanh,
            Function::Erf => &set.unary.erf,
            Function::Sigmoid => &set.unary.sigmoid,
            Function::Gelu(Gelu::Erf) => &set.unary.gelu_erf,
            Function::Gelu(Gelu::Tanh) => &set.unary.gelu_tanh,
            Function::Silu => &set.unary.silu,
            Function::Relu => &set.unary.relu,
        }
    }

    /// The kernel of the gradient, where there is one.
    fn backward(self, set: &KernelSet) -> Option<&Binary> {
        match self {
            Function::Exp | Function::Erf => None,
            Function::Tanh => Some(&set.unary.tanh_backward),
            Function::Sigmoid => Some(&set.unary.sigmoid_backward),
            Function::Gelu(Gelu::Erf) => Some(&set.unary.gelu_erf_backward),
            Function::Gelu(Gelu::Tanh) => Some(&set.unary.gelu_tanh_backward),
            Function::Silu => Some(&set.unary.silu_backward),
            Function::Relu => Some(&set.unary.relu_backward),
        }
    }

    fn zone(self) -> Zone {
        match self {
            Function::Gelu(_) => Zone::Gelu,
            Function::Silu => Zone::Silu,
            _ => Zone::Elementwise,
        }
    }
}

impl Gate {
    fn kernel(self, set: &KernelSet) -> &Binary {
        match self {
            Gate::Silu => &set.unary.swiglu,
            Gate::Gelu(Gelu::Erf) => &set.unary.geglu_erf,
            Gate::Gelu(Gelu::Tanh) => &set.unary.geglu,
        }
    }

    fn backward(self, set: &KernelSet) -> &GatedBackward {
        match self {
            Gate::Silu => &set.unary.swiglu_backward,
            Gate::Gelu(Gelu::Erf) => &set.unary.geglu_erf_backward,
            Gate::Gelu(Gelu::Tanh) => &set.unary.geglu_backward,
        }
    }

    fn zone(self) -> Zone {
        match self {
            Gate::Silu => Zone::SwiGlu,
            Gate::Gelu(_) => Zone::Gelu,
        }
    }
}

/// `y[i] = f(x[i])`.
///
/// # Errors
/// [`Error::InvalidArgument`] where x and y differ in length; the errors of [`Team::run`].
pub fn map<'a>(
    function: Function,
    x: impl Into<Input<'a>>,
    y: &'a mut [f32],
    team: Option<&Team>,
) -> Result<()> {
    let kernel = Kernel::Unary(function.kernel(kernels()?));
    run(kernel, function.zone(), FUNCTION_COST, [("x", x.into())], ("y", y), team)
}

/// GELU: `y[i] = gelu(x[i])`.
///
/// # Errors
/// As [`map`].
///
/// # Examples
/// ```
/// use smallmind::ops::{Gelu, Input, gelu};
/// use smallmind::threads::Team;
///
/// let x = [-1.0, 0.0, 3.0];
/// let mut y = [0.0; 3];
/// gelu(Gelu::Erf, &x, &mut y, None)?;
/// assert!((y[0] + 0.158_655).abs() < 1e-6 && y[1] == 0.0 && (y[2] - 2.995_950).abs() < 1e-6);
///
/// // In place, and with two threads, which so short a slice doesn't wake.
/// let mut x = x;
/// gelu(Gelu::Erf, Input::InPlace, &mut x, Some(&Team::new(2)?))?;
/// assert_eq!(x, y);
/// # Ok::<(), smallmind::Error>(())
/// ```
pub fn gelu<'a>(form: Gelu, x: impl Into<Input<'a>>, y: &'a mut [f32], team: Option<&Team>) -> Result<()> {
    map(Function::Gelu(form), x, y, team)
}

/// `dx[i] = dy[i] · f'(x[i])`: the gradient of [`map`].
///
/// # Errors
/// [`Error::InvalidArgument`] where x, dy and dx differ in length; [`Error::Unsupported`] for exp and erf; what
/// [`Team::run`] reports.
pub fn map_backward<'a>(
    function: Function,
    x: impl Into<Input<'a>>,
    dy: impl Into<Input<'a>>,
    dx: &'a mut [f32],
    team: Option<&Team>,
) -> Result<()> {
    let kernel = function.backward(kernels()?);
    let kernel = kernel.ok_or_else(|| Error::Unsupported(format!("a backward pass of {function:?}")))?;
    let inputs = [("x", x.into()), ("dy", dy.into())];
    run(Kernel::Binary(kernel), function.zone(), FUNCTION_COST, inputs, ("dx", dx), team)
}

/// `y[i] = a[i] + b[i]`.
///
/// # Errors
/// [`Error::InvalidArgument`] where a, b and y differ in length; the errors of [`Team::run`].
pub fn add<'a>(
    a: impl Into<Input<'a>>,
    b: impl Into<Input<'a>>,
    y: &'a mut [f32],
    team: Option<&Team>,
) -> Result<()> {
    let kernel = Kernel::Binary(&kernels()?.unary.add);
    run(kernel, Zone::Add, SUM_COST, [("a", a.into()), ("b", b.into())], ("y", y), team)
}

/// `y[i] = a[i] · b[i]`.
///
/// # Errors
/// As [`add`].
pub fn mul<'a>(
    a: impl Into<Input<'a>>,
    b: impl Into<Input<'a>>,
    y: &'a mut [f32],
    team: Option<&Team>,
) -> Result<()> {
    let kernel = Kernel::Binary(&kernels()?.unary.mul);
    run(kernel, Zone::Mul, SUM_COST, [("a", a.into()), ("b", b.into())], ("y", y), team)
}

/// `y[i] = factor · x[i]`.
///
/// # Errors
/// As [`map`].
pub fn scale<'a>(factor: f32, x: impl Into<Input<'a>>, y: &'a mut [f32], team: Option<&Team>) -> Result<()> {
    let kernel = Kernel::Scale(&kernels()?.unary.scale, factor);
    run(kernel, Zone::Elementwise, SUM_COST, [("x", x.into())], ("y", y), team)
}

/// `y[i] = factor · x[i] + y[i]`; with [`Input::InPlace`], x is y.
///
/// # Errors
/// As [`map`].
pub fn axpy<'a>(factor: f32, x: impl Into<Input<'a>>, y: &'a mut [f32], team: Option<&Team>) -> Result<()> {
    let kernel = Kernel::Axpy(&kernels()?.unary.axpy, factor);
    run(kernel, Zone::Add, SUM_COST, [("x", x.into()), ("y", Input::InPlace)], ("y", y), team)
}

/// `y[i] = f(gate[i]) · up[i]`: the gated pair of the MLPs of many transformers.
///
/// # Errors
/// [`Error::InvalidArgument`] where gate, up and y differ in length; the errors of [`Team::run`].
pub fn gated<'a>(
    function: Gate,
    gate: impl Into<Input<'a>>,
    up: impl Into<Input<'a>>,
    y: &'a mut [f32],
    team: Option<&Team>,
) -> Result<()> {
    let inputs = [("gate", gate.into()), ("up", up.into())];
    let kernel = Kernel::Binary(function.kernel(kernels()?));
    run(kernel, function.zone(), FUNCTION_COST, inputs, ("y", y), team)
}

/// The gradients of [`gated`]: `dgate = dy · up · f'(gate)` and `dup = dy · f(gate)`. `inputs` are gate, up and
/// dy, in this order.
///
/// # Errors
/// [`Error::InvalidArgument`] where the inputs and outputs differ in length; the errors of [`Team::run`].
pub fn gated_backward<'a>(
    function: Gate,
    inputs: [GatedInput<'a>; 3],
    dgate: &'a mut [f32],
    dup: &'a mut [f32],
    team: Option<&Team>,
) -> Result<()> {
    let n = dgate.len();
    check_len("dup", dup.len(), n)?;
    for (name, input) in ["gate", "up", "dy"].into_iter().zip(&inputs) {
        if let GatedInput::Slice(elements) = input {
            check_len(name, elements.len(), n)?;
        }
    }
    if n == 0 {
        return Ok(());
    }
    let whole = GatedPairs { kernel: function.backward(kernels()?), inputs, dgate, dup };
    let _zone = profile::scope(function.zone()).work(0, bytes(n.saturating_mul(5)));
    divide(whole, n.saturating_mul(2 * FUNCTION_COST) / 1000, LINE, team)
}

/// A kernel and its factor, if it has one.
#[derive(Clone, Copy)]
enum Kernel {
    Unary(&'static Unary),
    Binary(&'static Binary),
    Scale(&'static unary::Scale, f32),
    Axpy(&'static unary::Axpy, f32),
}

impl Kernel {
    /// Operations for each element; 0 where the profile shall not count them.
    fn flops(self) -> u64 {
        match self {
            Kernel::Unary(_) | Kernel::Binary(_) => 0,
            Kernel::Scale(..) => 1,
            Kernel::Axpy(..) => 2,
        }
    }
}

/// Checks the lengths and computes; kernels of one input get the first.
fn run<'a, const N: usize>(
    kernel: Kernel,
    zone: Zone,
    cost: usize,
    inputs: [(&'static str, Input<'a>); N],
    (name, y): (&'static str, &'a mut [f32]),
    team: Option<&Team>,
) -> Result<()> {
    let n = y.len();
    for (input_name, input) in inputs {
        if let Input::Slice(elements) = input
            && elements.len() != n
        {
            return Err(Error::invalid(format!(
                "{input_name} has {} elements, {name} has {n}",
                elements.len()
            )));
        }
    }
    if n == 0 {
        return Ok(());
    }
    let inputs = inputs.map(|(_, input)| input);
    let flops = (n as u64).saturating_mul(kernel.flops());
    let _zone = profile::scope(zone).work(flops, bytes(n.saturating_mul(N + 1)));
    divide(Elements { kernel, inputs, y }, n.saturating_mul(cost) / 1000, grain(n, team), team)
}

/// Elements that a piece is a multiple of. Large outputs go past the caches where a piece is large enough for that.
fn grain(n: usize, team: Option<&Team>) -> usize {
    const STREAM: usize = STREAM_BYTES / size_of::<f32>();
    let workers = team.map_or(1, Team::count);
    if n / workers >= PIECES_TO_STREAM * STREAM { STREAM } else { LINE }
}

/// Pieces for each worker from which on pieces may be as long as streaming wants them.
const PIECES_TO_STREAM: usize = 4;

/// Some elements, of equal lengths.
struct Elements<'a, const N: usize> {
    kernel: Kernel,
    inputs: [Input<'a>; N],
    y: &'a mut [f32],
}

impl<const N: usize> Piece for Elements<'_, N> {
    fn len(&self) -> usize {
        self.y.len()
    }

    fn split(self, n: usize) -> (Self, Self) {
        let inputs = self.inputs.map(|input| input.split_at(n));
        let (first_y, y) = self.y.split_at_mut(n);
        let first = Self { kernel: self.kernel, inputs: inputs.map(|(first, _)| first), y: first_y };
        (first, Self { kernel: self.kernel, inputs: inputs.map(|(_, rest)| rest), y })
    }

    fn run(self) {
        let (y, n) = (self.y.as_mut_ptr(), self.y.len());
        let inputs = self.inputs.map(|input| input.pointer(y));
        let (first, last) = (inputs[0], inputs[N - 1]);
        // SAFETY: all slices hold n elements, as the op has checked; an input is y, or can't overlap the exclusive
        // slice.
        unsafe {
            match self.kernel {
                Kernel::Unary(kernel) => kernel.run(first, y, n),
                Kernel::Binary(kernel) => kernel.run(first, last, y, n),
                Kernel::Scale(kernel, factor) => kernel.run(first, factor, y, n),
                Kernel::Axpy(kernel, factor) => kernel.run(factor, first, y, n),
            }
        }
    }
}

/// Gated pairs to go back through, of equal lengths.
struct GatedPairs<'a> {
    kernel: &'static GatedBackward,
    inputs: [GatedInput<'a>; 3],
    dgate: &'a mut [f32],
    dup: &'a mut [f32],
}

impl Piece for GatedPairs<'_> {
    fn len(&self) -> usize {
        self.dgate.len()
    }

    fn split(self, n: usize) -> (Self, Self) {
        let inputs = self.inputs.map(|input| match input {
            GatedInput::Slice(elements) => {
                let (first, rest) = elements.split_at(n);
                (GatedInput::Slice(first), GatedInput::Slice(rest))
            }
            output => (output, output),
        });
        let ((first_dgate, dgate), (first_dup, dup)) = (self.dgate.split_at_mut(n), self.dup.split_at_mut(n));
        let (kernel, first) = (self.kernel, inputs.map(|(first, _)| first));
        (
            Self { kernel, inputs: first, dgate: first_dgate, dup: first_dup },
            Self { kernel, inputs: inputs.map(|(_, rest)| rest), dgate, dup },
        )
    }

    fn run(self) {
        let (dgate, dup, n) = (self.dgate.as_mut_ptr(), self.dup.as_mut_ptr(), self.dgate.len());
        let [gate, up, dy] = self.inputs.map(|input| match input {
            GatedInput::Slice(elements) => elements.as_ptr(),
            GatedInput::Dgate => dgate.cast_const(),
            GatedInput::Dup => dup.cast_const(),
        });
        // SAFETY: all slices hold n elements, as the op has checked; an input is an output, or can't overlap the
        // exclusive slices, which are apart from each other.
        unsafe { self.kernel.run(&GatedArgs { gate, up, dy, dgate, dup, n }) }
    }
}
