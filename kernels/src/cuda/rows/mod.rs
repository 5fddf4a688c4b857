//! What a layer does to rows between its products, over whole sequences or one token of each: SwiGLU, relu², the rows of the
//! embedding, gates, and the lengthened sequences of DeltaProduct. Norms are in [`super::norm`].

pub mod check;

use super::arguments::Arguments;
use super::chunked::Rows;
use super::step::Decay;
use super::{Error, Launch, Source};

const THREADS: usize = 256;

/// The constants of the source.
pub fn defines(wide: bool) -> Vec<(&'static str, u32)> {
    vec![("WIDE", u32::from(wide))]
}

fn launch(kernel: &'static str, wide: bool, items: usize, arguments: &mut Arguments) -> Launch {
    Launch {
        source: Source::Rows,
        kernel,
        defines: defines(wide),
        grid: (items.div_ceil(THREADS) as u32, 1),
        threads: THREADS as u32,
        shared_bytes: 0,
        together: false,
        boxes: Vec::new(),
        arguments: arguments.finish(),
    }
}

fn check(what: &str, width: usize, rows: usize) -> Result<(), Error> {
    if width.is_multiple_of(8) && width > 0 && rows > 0 {
        return Ok(());
    }
    Err(Error::Shape {
        what: format!("the width of {what}"),
        expected: "a multiple of 8, and at least one row".to_owned(),
        got: format!("{width} of {rows} rows"),
    })
}

/// silu(gate) · up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Swiglu {
    /// Rows.
    pub rows: usize,
    /// W, of gate and of up by itself; a multiple of 8.
    pub width: usize,
    /// Whether numbers are f32, else bf16.
    pub wide: bool,
}

impl Swiglu {
    /// # Errors
    /// When the kernel does not cover the shape.
    pub fn check(&self) -> Result<(), Error> {
        check("SwiGLU", self.width, self.rows)
    }

    /// y `[rows, W]` of rows gate | up.
    pub fn forward(&self, gate_up: Rows, y: u64) -> Launch {
        let mut arguments = Arguments::default();
        arguments
            .addresses(&[gate_up.address, y, gate_up.stride as u64])
            .counts(&[self.rows, self.width]);
        launch("rows_swiglu", self.wide, self.rows * self.width / 8, &mut arguments)
    }

    /// The gradients `[rows, 2 W]` of rows gate | up, from those of y.
    pub fn backward(&self, gate_up: Rows, d_y: Rows, d_gate_up: u64) -> Launch {
        let mut arguments = Arguments::default();
        arguments
            .addresses(&[gate_up.address, d_y.address, d_gate_up])
            .addresses(&[gate_up.stride as u64, d_y.stride as u64])
            .counts(&[self.rows, self.width]);
        launch("rows_swiglu_back", self.wide, self.rows * self.width / 8, &mut arguments)
    }
}

/// What is done to every number of a row by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Each {
    /// Rows.
    pub rows: usize,
    /// Columns, a multiple of 8.
    pub width: usize,
    /// Whether numbers are f32, else bf16.
    pub wide: bool,
}

impl Each {
    /// # Errors
    /// When the kernels do not cover the shape.
    pub fn check(&self) -> Result<(), Error> {
        check("what lies between two products", self.width, self.rows)
    }

    fn launch(&self, kernel: &'static str, arguments: &mut Arguments) -> Launch {
        let arguments = arguments.counts(&[self.rows, self.width]);
        launch(kernel, self.wide, self.rows * self.width / 8, arguments)
    }

    /// y `[rows, width]` = max(x, 0)² (Primer, arXiv 2109.08668).
    pub fn relu2(&self, x: Rows, y: u64) -> Launch {
        let mut arguments = Arguments::default();
        self.launch("rows_relu2", arguments.addresses(&[x.address, y, x.stride as u64]))
    }

    /// y `[rows, width]` = x ⊙ σ(gate) (arXiv 2505.06708).
    pub fn gate(&self, x: Rows, gate: Rows, y: u64) -> Launch {
        let mut arguments = Arguments::default();
        let strides = [x.stride as u64, gate.stride as u64];
        arguments.addresses(&[x.address, gate.address, y]).addresses(&strides);
        self.launch("rows_gate", &mut arguments)
    }
}

/// Rows of a bf16 table by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gather {
    /// Rows taken.
    pub rows: usize,
    /// Columns, a multiple of 8.
    pub width: usize,
}

impl Gather {
    /// # Errors
    /// When the kernel does not cover the shape.
    pub fn check(&self) -> Result<(), Error> {
        check("the embedding", self.width, self.rows)
    }

    /// y `[rows, width]`; `entries` is u32 `[rows]`, each below the number of the table's rows.
    pub fn forward(&self, table: u64, entries: u64, y: u64) -> Launch {
        let mut arguments = Arguments::default();
        arguments.addresses(&[table, entries, y]).counts(&[self.rows, self.width]);
        launch("rows_gather", false, self.rows * self.width / 8, &mut arguments)
    }
}

/// The sequence of DeltaProduct's steps, bf16 `[rows · steps, width]`, of what lies side by side in a token's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spread {
    /// Tokens.
    pub rows: usize,
    /// Steps of a token.
    pub steps: usize,
    /// Columns, a multiple of 8.
    pub width: usize,
}

impl Spread {
    /// # Errors
    /// When the kernel does not cover the shape.
    pub fn check(&self) -> Result<(), Error> {
        check("what is spread", self.width, self.rows * self.steps)
    }

    /// What each step has: rows are `[rows, steps, width]`.
    pub fn each(&self, x: Rows, y: u64) -> Launch {
        self.launch(x, self.steps, y)
    }

    /// What a token has once, on its last step, with zeros before it: rows are `[rows, width]`.
    pub fn last(&self, x: Rows, y: u64) -> Launch {
        self.launch(x, 1, y)
    }

    fn launch(&self, x: Rows, pieces: usize, y: u64) -> Launch {
        let mut arguments = Arguments::default();
        arguments
            .addresses(&[x.address, y, x.stride as u64])
            .counts(&[self.rows, self.steps, pieces, self.width]);
        let items = self.rows * self.steps * self.width / 8;
        launch("rows_spread", false, items, &mut arguments)
    }
}

/// Raw projections to what [`super::chunked`] takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gates {
    /// B · T.
    pub positions: usize,
    /// H.
    pub heads: usize,
    /// Delta steps of a token; of Mamba2 1.
    pub steps: usize,
}

impl Gates {
    /// g (0: there is no decay) and β, f32 `[positions · steps, H]`, the decay on a token's first step. Rows of b are
    /// `[positions, steps · H]` before the sigmoid, times `largest_beta` after it.
    pub fn delta(
        &self,
        b: Rows,
        decay: Option<Decay>,
        largest_beta: f32,
        g: u64,
        beta: u64,
    ) -> Launch {
        self.launch(Some(b), decay, largest_beta, [g, beta])
    }

    /// g and dt, f32 `[positions, H]`.
    pub fn mamba2(&self, dt: Decay, g: u64, factors: u64) -> Launch {
        self.launch(None, Some(dt), 1.0, [g, factors])
    }

    fn launch(
        &self,
        b: Option<Rows>,
        decay: Option<Decay>,
        largest_beta: f32,
        to: [u64; 2],
    ) -> Launch {
        let none = Rows { address: 0, stride: 0 };
        let b = b.unwrap_or(none);
        let decay = decay.unwrap_or(Decay { raw: none, a_log: 0, dt_bias: 0 });
        let mut arguments = Arguments::default();
        arguments
            .addresses(&[decay.raw.address, b.address, decay.a_log, decay.dt_bias, to[0], to[1]])
            .addresses(&[decay.raw.stride as u64, b.stride as u64])
            .counts(&[self.positions, self.heads, self.steps])
            .factor(largest_beta);
        launch("rows_gates", false, self.positions * self.heads, &mut arguments)
    }
}
