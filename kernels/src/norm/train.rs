//! RMSNorm for training, with a gate after it, before it, or none: forward and backward, one pass over the rows each.
//!
//! With r = 1/√(mean u² + ε), û = r u, w the weight, s what the gate z multiplies by, its SiLU where nothing else is said:
//!
//! ```text
//! none     u = x       y = û ⊙ w
//! after    u = x       y = û ⊙ w ⊙ s         (Gated DeltaNet; with s = σ(z) Kimi Delta Attention)
//! before   u = x ⊙ s   y = û ⊙ w             (Mamba2)
//! du = r (n − û · mean(n ⊙ û)),  n = dû
//! ```

use super::RMS_EPS;
use crate::cpu::element::Rows;
use crate::cpu::pool::SharedMut;
use crate::cpu::{Element, Kernel, Parallel, Simd, run};

/// Rows of a piece of work.
const PIECE: usize = 128;

/// The gate, of the shape of x.
#[derive(Debug, Clone, Copy)]
pub enum Gate<'a, E> {
    /// Nothing.
    None,
    /// Norm, then · SiLU(gate).
    After(Rows<'a, E>),
    /// Norm, then · σ(gate).
    AfterSigmoid(Rows<'a, E>),
    /// · SiLU(gate), then norm.
    Before(Rows<'a, E>),
}

/// What the norm reads; E is f32 or bf16. Each row holds as many groups as the weight fits in, each normed by itself.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a, E> {
    /// Number of rows.
    pub rows: usize,
    /// Rows of `[groups, W]`.
    pub x: Rows<'a, E>,
    /// The gate.
    pub gate: Gate<'a, E>,
    /// `[W]`
    pub weight: &'a [f32],
}

impl<'a, E: Element> Inputs<'a, E> {
    fn check(&self) {
        let (width, group) = (self.x.width(), self.weight.len());
        assert!(
            group > 0 && width.is_multiple_of(group),
            "norm: rows of {width} in groups of {group}"
        );
        if let Some(gate) = self.gate() {
            assert_eq!(gate.width(), width, "norm: the gate must have the shape of x");
        }
    }

    fn gate(&self) -> Option<Rows<'a, E>> {
        match self.gate {
            Gate::None => None,
            Gate::After(gate) | Gate::AfterSigmoid(gate) | Gate::Before(gate) => Some(gate),
        }
    }

    /// Whether the gate follows the norm.
    fn is_after(&self) -> bool {
        matches!(self.gate, Gate::After(_) | Gate::AfterSigmoid(_))
    }
}

/// y `[rows, groups, W]`.
///
/// # Panics
/// When a slice has another length than its shape.
pub fn forward<E: Element>(inputs: &Inputs<E>, y: &mut [E], parallel: Parallel) {
    inputs.check();
    assert_eq!(y.len(), inputs.rows * inputs.x.width(), "norm: y must have the shape of x");
    let y = SharedMut::new(y);
    parallel(inputs.rows.div_ceil(PIECE), &|piece| run(Forward { inputs, y: &y, piece }));
}

/// Where the gradients go, each of the shape of its input, without gaps. Everything is overwritten.
#[derive(Debug)]
pub struct Gradients<'a, E> {
    /// `[rows, groups, W]`
    pub x: &'a mut [E],
    /// `[rows, groups, W]`, with a gate.
    pub gate: Option<&'a mut [E]>,
    /// `[W]`
    pub weight: &'a mut [f32],
}

/// Gradients from `d_y`, rows like those of x.
///
/// # Panics
/// When a slice has another length than its shape.
pub fn backward<E: Element>(
    inputs: &Inputs<E>,
    d_y: Rows<E>,
    gradients: &mut Gradients<E>,
    parallel: Parallel,
) {
    inputs.check();
    let (len, group) = (inputs.rows * inputs.x.width(), inputs.weight.len());
    assert_eq!(d_y.width(), inputs.x.width(), "norm: dy must have the shape of x");
    assert_eq!(gradients.x.len(), len, "norm: dx must have the shape of x");
    assert_eq!(gradients.weight.len(), group, "norm: dweight must be [W]");
    let mut no_gate = Vec::new();
    let gate = gradients.gate.as_deref_mut().unwrap_or(&mut no_gate);
    assert_eq!(
        gate.len(),
        if inputs.gate().is_some() { len } else { 0 },
        "norm: dgate must have the shape of x"
    );
    let pieces = inputs.rows.div_ceil(PIECE);
    let mut partial = vec![0.0; pieces * group]; // dw of each piece
    {
        let (x, gate) = (SharedMut::new(gradients.x), SharedMut::new(gate));
        let partial = SharedMut::new(&mut partial);
        parallel(pieces, &|piece| {
            run(Backward { inputs, d_y, x: &x, gate: &gate, weight: &partial, piece });
        });
    }
    for (i, d) in gradients.weight.iter_mut().enumerate() {
        *d = partial.iter().skip(i).step_by(group).sum();
    }
}

/// The rows of a piece and the groups of each: row, and where the group begins in it.
fn groups<E: Element>(inputs: &Inputs<E>, piece: usize) -> impl Iterator<Item = (usize, usize)> {
    let (width, group) = (inputs.x.width(), inputs.weight.len());
    let end = ((piece + 1) * PIECE).min(inputs.rows);
    (piece * PIECE..end).flat_map(move |row| (0..width).step_by(group).map(move |at| (row, at)))
}

struct Forward<'a, 'b, E> {
    inputs: &'a Inputs<'b, E>,
    y: &'a SharedMut<'a, E>,
    piece: usize,
}

impl<E: Element> Kernel for Forward<'_, '_, E> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        let Self { inputs, y, piece } = self;
        let group = inputs.weight.len();
        let (mut u, mut factor) = (vec![0.0; group], vec![0.0; group]);
        for (row, at) in groups(inputs, piece) {
            let r = Row::load(s, inputs, row, at, &mut u, &mut factor, None);
            // SAFETY: the rows of a piece belong to it alone.
            let y = unsafe { y.part(row * inputs.x.width() + at, group) };
            let after = inputs.is_after();
            let scale = s.splat(r.scale);
            lanes::<S>(
                group,
                // SAFETY: n values from i lie inside the group.
                #[inline(always)]
                |i, n| unsafe {
                    let weight = f32::load(s, inputs.weight.as_ptr().add(i), n);
                    let mut value = s.mul(s.mul(f32::load(s, u.as_ptr().add(i), n), scale), weight);
                    if after {
                        value = s.mul(value, f32::load(s, factor.as_ptr().add(i), n));
                    }
                    E::store(s, y.as_mut_ptr().add(i), n, value);
                },
            );
        }
    }
}

/// Calls `f(i, n)` for the vectors of `len` values.
#[inline(always)]
fn lanes<S: Simd>(len: usize, mut f: impl FnMut(usize, usize)) {
    let mut i = 0;
    while i + S::LANES <= len {
        f(i, S::LANES);
        i += S::LANES;
    }
    if i < len {
        f(i, len - i);
    }
}

/// What a group of a row is multiplied by.
struct Row {
    /// r
    scale: f32,
}

impl Row {
    /// u and, with a gate, s into `factor`, and its derivative into `slope`.
    #[inline(always)]
    fn load<S: Simd, E: Element>(
        s: S,
        inputs: &Inputs<E>,
        row: usize,
        at: usize,
        u: &mut [f32],
        factor: &mut [f32],
        mut slope: Option<&mut [f32]>,
    ) -> Self {
        let group = inputs.weight.len();
        assert!(u.len() == group && factor.len() == group);
        assert!(slope.as_ref().is_none_or(|slope| slope.len() == group));
        let x = inputs.x.part(row, at, group);
        let gate = inputs.gate().map(|gate| gate.part(row, at, group));
        let before = matches!(inputs.gate, Gate::Before(_));
        let is_sigmoid = matches!(inputs.gate, Gate::AfterSigmoid(_));
        let one = s.splat(1.0);
        let mut squares = s.splat(0.0);
        lanes::<S>(
            group,
            // SAFETY: n values from i lie inside the group.
            #[inline(always)]
            |i, n| unsafe {
                let mut value = E::load(s, x.as_ptr().add(i), n);
                if let Some(gate) = gate {
                    let z = E::load(s, gate.as_ptr().add(i), n);
                    let sigmoid = s.sigmoid(z);
                    let silu = s.mul(z, sigmoid);
                    let by = if is_sigmoid { sigmoid } else { silu };
                    f32::store(s, factor.as_mut_ptr().add(i), n, by);
                    if let Some(slope) = &mut slope {
                        let rest = s.sub(one, sigmoid);
                        let value = if is_sigmoid {
                            s.mul(sigmoid, rest)
                        } else {
                            s.fma(silu, rest, sigmoid) // σ + z σ (1 − σ)
                        };
                        f32::store(s, slope.as_mut_ptr().add(i), n, value);
                    }
                    if before {
                        value = s.mul(value, by);
                    }
                }
                squares = s.fma(value, value, squares);
                f32::store(s, u.as_mut_ptr().add(i), n, value);
            },
        );
        Self { scale: 1.0 / (s.sum(squares) / group as f32 + RMS_EPS as f32).sqrt() }
    }
}

struct Backward<'a, 'b, E> {
    inputs: &'a Inputs<'b, E>,
    d_y: Rows<'a, E>,
    x: &'a SharedMut<'a, E>,
    /// Empty without a gate.
    gate: &'a SharedMut<'a, E>,
    /// `[pieces, W]`
    weight: &'a SharedMut<'a>,
    piece: usize,
}

impl<E: Element> Kernel for Backward<'_, '_, E> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        let Self { inputs, d_y, x: d_x, gate: d_gate, weight: d_weight, piece } = self;
        let group = inputs.weight.len();
        let buffer = || vec![0.0; group];
        let (mut u, mut factor, mut slope, mut d_u) = (buffer(), buffer(), buffer(), buffer());
        // SAFETY: this part belongs to the piece.
        let d_weight = unsafe { d_weight.part(piece * group, group) };
        let (after, before) = (inputs.is_after(), matches!(inputs.gate, Gate::Before(_)));
        for (row, at) in groups(inputs, piece) {
            let scale = Row::load(s, inputs, row, at, &mut u, &mut factor, Some(&mut slope)).scale;
            let scale = s.splat(scale);
            let d_y = d_y.part(row, at, group);
            let to = row * inputs.x.width() + at;
            // SAFETY: the rows of a piece belong to it alone.
            let (d_x, d_gate) = unsafe {
                let d_gate = if after || before { d_gate.part(to, group) } else { &mut [] };
                (d_x.part(to, group), d_gate)
            };
            // û into u, n into d_u, and Σ n ⊙ û
            let mut sum = s.splat(0.0);
            lanes::<S>(
                group,
                // SAFETY: n values from i lie inside the group.
                #[inline(always)]
                |i, n| unsafe {
                    let weight = f32::load(s, inputs.weight.as_ptr().add(i), n);
                    let normed = s.mul(scale, f32::load(s, u.as_ptr().add(i), n));
                    let mut d = E::load(s, d_y.as_ptr().add(i), n);
                    if after {
                        let value = s.mul(s.mul(d, normed), weight);
                        let slope = f32::load(s, slope.as_ptr().add(i), n);
                        E::store(s, d_gate.as_mut_ptr().add(i), n, s.mul(value, slope));
                        d = s.mul(d, f32::load(s, factor.as_ptr().add(i), n));
                    }
                    let d_weight = d_weight.as_mut_ptr().add(i);
                    f32::store(s, d_weight, n, s.fma(d, normed, f32::load(s, d_weight, n)));
                    let d = s.mul(d, weight);
                    sum = s.fma(d, normed, sum);
                    f32::store(s, u.as_mut_ptr().add(i), n, normed);
                    f32::store(s, d_u.as_mut_ptr().add(i), n, d);
                },
            );
            let mean = s.splat(-s.sum(sum) / group as f32);
            let x = inputs.x.part(row, at, group);
            lanes::<S>(
                group,
                // SAFETY: n values from i lie inside the group.
                #[inline(always)]
                |i, n| unsafe {
                    let normed = f32::load(s, u.as_ptr().add(i), n);
                    let d = s.fma(mean, normed, f32::load(s, d_u.as_ptr().add(i), n));
                    let mut d = s.mul(scale, d);
                    if before {
                        let value = s.mul(d, E::load(s, x.as_ptr().add(i), n));
                        let slope = f32::load(s, slope.as_ptr().add(i), n);
                        E::store(s, d_gate.as_mut_ptr().add(i), n, s.mul(value, slope));
                        d = s.mul(d, f32::load(s, factor.as_ptr().add(i), n));
                    }
                    E::store(s, d_x.as_mut_ptr().add(i), n, d);
                },
            );
        }
    }
}
