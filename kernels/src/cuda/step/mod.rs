//! One token of each sequence of a batch through the short convolution and the recurrent mixers: what decoding more
//! than one sequence needs besides products, norms and [`super::attention`].

pub mod check;

use super::arguments::Arguments;
use super::chunked::Rows;
use super::{Error, Launch, Source, check_grid};
use crate::norm::L2_EPS;

/// Sequences that a thread of the convolution goes over.
const CONV_ROWS: usize = 4;
/// Threads of a block of the recurrence.
const THREADS: usize = 128;

/// The short convolution and its SiLU for one position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvStep {
    /// B.
    pub batch: usize,
    /// C, a multiple of 8.
    pub channels: usize,
}

impl ConvStep {
    /// # Errors
    /// When the kernel does not cover the shape.
    pub fn check(&self) -> Result<(), Error> {
        if self.channels.is_multiple_of(8) && self.channels > 0 && self.batch > 0 {
            return Ok(());
        }
        Err(Error::Shape {
            what: "the number of channels".to_owned(),
            expected: "a multiple of 8, and at least one sequence".to_owned(),
            got: format!("{} of {} sequences", self.channels, self.batch),
        })
    }

    /// The constants of the source.
    pub fn defines(&self) -> Vec<(&'static str, u32)> {
        vec![("WIDE", 0), ("CONVOLUTION", 1), ("CONV_ROWS", CONV_ROWS as u32)]
    }

    /// y `[B, C]` of x. `weight` is f32 `[C, 4]`, `bias` f32 `[C]` or 0; `ring` is bf16 `[B, 4, C]`, the input of position
    /// p in row p mod 4, which need not be initialised; `positions` is u32 `[B]`, that of x.
    pub fn forward(
        &self,
        x: Rows,
        (weight, bias): (u64, u64),
        ring: u64,
        positions: u64,
        y: u64,
    ) -> Launch {
        let arguments = Arguments::default()
            .addresses(&[x.address, weight, bias, ring, positions, y, x.stride as u64])
            .counts(&[self.batch, self.channels])
            .finish();
        Launch {
            source: Source::Step,
            kernel: "step_convolution",
            defines: self.defines(),
            grid: (self.channels.div_ceil(8 * 128) as u32, self.batch.div_ceil(CONV_ROWS) as u32),
            threads: 128,
            shared_bytes: 0,
            together: false,
            boxes: Vec::new(),
            arguments,
        }
    }

    /// Bytes that cannot be done without.
    pub fn bytes(&self) -> f64 {
        (self.channels * (self.batch * 6 * 2 + 4 * 4)) as f64
    }
}

/// Raw projections that become decays, and the f32 `[H]` vectors that they need: e^g is e^(−e^A_log softplus(raw + dt_bias)).
#[derive(Debug, Clone, Copy)]
pub struct Decay {
    /// bf16 rows `[.., H]`: a of the delta rule, dt of Mamba2.
    pub raw: Rows,
    /// Address.
    pub a_log: u64,
    /// Address.
    pub dt_bias: u64,
}

/// The delta family, Mamba2, or Kimi Delta Attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// With so many delta steps per token.
    Delta(usize),
    /// One group.
    Mamba2,
    /// A decay for each channel of the keys.
    Kda,
}

/// The log-linear form of a rule: levels that there are states for ([`crate::log_linear::levels_within`]), and that there are
/// scales for.
#[derive(Debug, Clone, Copy)]
pub struct Levels {
    /// Of states, 2 to 32.
    pub kept: usize,
    /// Of scales.
    pub all: usize,
    /// bf16 rows `[B, H · all]`.
    pub raw: Rows,
    /// L, f32 `[H, all]`: λ = softplus(L ⊙ raw).
    pub scales: u64,
    /// u32 `[B]`, the position of each sequence's token.
    pub positions: u64,
}

/// One token of each sequence through a recurrence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecurrentStep {
    /// Which.
    pub rule: Rule,
    /// B.
    pub batch: usize,
    /// H, heads of the state.
    pub heads: usize,
    /// Heads of q and k; of Mamba2 1, of Kimi Delta Attention all.
    pub key_heads: usize,
    /// K, the width of q and k or of B and C: 32, 64, 96 or 128.
    pub key_width: usize,
    /// V, the width of a head of v or x: a multiple of 16.
    pub value_width: usize,
}

impl RecurrentStep {
    /// # Errors
    /// When the kernel does not cover the shape.
    pub fn check(&self) -> Result<(), Error> {
        let refuse = |what: &str, expected: &str, got: usize| {
            Err(Error::Shape {
                what: what.to_owned(),
                expected: expected.to_owned(),
                got: got.to_string(),
            })
        };
        if ![32, 64, 96, 128].contains(&self.key_width) {
            return refuse("the key width", "32, 64, 96 or 128", self.key_width);
        }
        if self.value_width == 0 || !self.value_width.is_multiple_of(16) {
            return refuse("the value width", "a multiple of 16", self.value_width);
        }
        if self.key_heads == 0 || self.heads == 0 || !self.heads.is_multiple_of(self.key_heads) {
            return refuse(
                "the number of heads",
                "a multiple of that of the key heads",
                self.heads,
            );
        }
        if self.rule == Rule::Mamba2 && self.key_heads != 1 {
            return refuse("the number of groups of Mamba2", "1", self.key_heads);
        }
        if self.rule == Rule::Kda && self.key_heads != self.heads {
            return refuse("the key heads of Kimi Delta Attention", "its heads", self.key_heads);
        }
        if !(1..=16).contains(&self.steps()) {
            return refuse("the delta steps of a token", "1 to 16", self.steps());
        }
        if self.batch == 0 {
            return refuse("the number of sequences", "at least 1", self.batch);
        }
        check_grid("sequences times heads", self.batch * self.heads)
    }

    fn steps(&self) -> usize {
        match self.rule {
            Rule::Delta(steps) => steps,
            Rule::Mamba2 | Rule::Kda => 1,
        }
    }

    /// Columns of a row of x: q | k of each step | v of each step, or x | B | C.
    pub fn row(&self) -> usize {
        let (keys, values) = (self.key_heads * self.key_width, self.heads * self.value_width);
        match self.rule {
            Rule::Delta(steps) => keys + steps * (keys + values),
            Rule::Mamba2 | Rule::Kda => values + 2 * keys,
        }
    }

    /// f32 values of the state, `[B, H, K, V]`.
    pub fn state_len(&self) -> usize {
        self.batch * self.heads * self.key_width * self.value_width
    }

    /// Bytes that cannot be done without: the state read and written, x read, the output written.
    pub fn bytes(&self) -> f64 {
        (8 * self.state_len() + 2 * self.batch * (self.row() + self.heads * self.value_width))
            as f64
    }

    /// Value columns of a block.
    fn columns(&self) -> usize {
        // On an H100 64 and 128 are equal, 32 and 16 slower by 2 and 7 %.
        [64, 32].into_iter().find(|columns| self.value_width.is_multiple_of(*columns)).unwrap_or(16)
    }

    /// The constants of the source.
    pub fn defines(&self) -> Vec<(&'static str, u32)> {
        let mut defines = vec![
            ("WIDE", 0),
            ("RECURRENT", 1),
            ("DELTA", u32::from(self.rule != Rule::Mamba2)),
            ("KW", self.key_width as u32),
            ("COLUMNS", self.columns() as u32),
        ];
        if self.rule == Rule::Kda {
            defines.push(("CHANNEL_DECAY", 1));
        }
        defines
    }

    /// Bytes of shared memory of a block.
    pub fn shared_bytes(&self) -> usize {
        let vectors = if self.rule == Rule::Kda { 3 } else { 1 + self.steps() };
        4 * (16 * self.columns() + vectors * self.key_width)
    }

    fn launch(
        &self,
        [x, b]: [Rows; 2],
        decay: Option<Decay>,
        skip: u64,
        (state, out): (u64, u64),
        [largest_beta, scale]: [f32; 2],
    ) -> Launch {
        let none = Decay { raw: Rows { address: 0, stride: 0 }, a_log: 0, dt_bias: 0 };
        let decay = decay.unwrap_or(none);
        let arguments = Arguments::default()
            .addresses(&[x.address, b.address, decay.raw.address])
            .addresses(&[decay.a_log, decay.dt_bias, skip, state, out])
            .addresses(&[x.stride as u64, b.stride as u64, decay.raw.stride as u64])
            .counts(&[self.heads, self.key_heads, self.value_width, self.steps()])
            .factor(largest_beta)
            .factor(scale)
            .factor(L2_EPS as f32)
            .finish();
        self.launched("step_recurrent", arguments)
    }

    fn launched(&self, kernel: &'static str, arguments: Vec<u8>) -> Launch {
        let columns = self.columns();
        Launch {
            source: Source::Step,
            kernel,
            defines: self.defines(),
            grid: ((self.value_width / columns) as u32, (self.batch * self.heads) as u32),
            threads: THREADS as u32,
            shared_bytes: self.shared_bytes() as u32,
            together: false,
            boxes: Vec::new(),
            arguments,
        }
    }

    /// A token of the delta rule. Rows of x are q | k of each step | v of each step, past the convolution and SiLU; q and k
    /// are normed here. Rows of b are `[B, steps · H]` before the sigmoid, times `largest_beta` after it. `state` is f32
    /// `[B, H, K, V]`, as [`super::chunked`] leaves it; `out` bf16 `[B, H, V]`.
    pub fn delta(
        &self,
        x: Rows,
        b: Rows,
        decay: Option<Decay>,
        [largest_beta, scale]: [f32; 2],
        state: u64,
        out: u64,
    ) -> Launch {
        self.launch([x, b], decay, 0, (state, out), [largest_beta, scale])
    }

    /// A token of a log-linear form. Rows of x are those of [`Self::delta`] of one step or of [`Self::mamba2`], b those of the
    /// former, `skip` that of the latter; the other is not read. `state` is f32 `[kept, B, H, K, V]`; levels that are not in
    /// use may hold anything.
    pub fn log_linear(
        &self,
        [x, b]: [Rows; 2],
        decay: Decay,
        levels: &Levels,
        (skip, [largest_beta, scale]): (u64, [f32; 2]),
        (state, out): (u64, u64),
    ) -> Launch {
        let rows = [x.stride, b.stride, decay.raw.stride, levels.raw.stride];
        let arguments = Arguments::default()
            .addresses(&[x.address, b.address, decay.raw.address, levels.raw.address])
            .addresses(&[decay.a_log, decay.dt_bias, skip, levels.scales, levels.positions])
            .addresses(&[state, out])
            .addresses(&rows.map(|stride| stride as u64))
            .addresses(&[self.state_len() as u64])
            .counts(&[self.heads, self.key_heads, self.value_width, levels.kept, levels.all])
            .factor(largest_beta)
            .factor(scale)
            .factor(L2_EPS as f32)
            .finish();
        let mut launch = self.launched("step_log_linear", arguments);
        launch.defines = self.log_linear_defines();
        launch.shared_bytes = 4 * (16 * self.columns() + 2 * self.key_width + 32) as u32;
        launch
    }

    /// The constants of the log-linear form.
    pub fn log_linear_defines(&self) -> Vec<(&'static str, u32)> {
        let mut defines = self.defines();
        defines.push(("LOG_LINEAR", 1));
        defines
    }

    /// A token of Kimi Delta Attention. Rows of x are q | k | v, past the convolution and SiLU; q and k are normed here. Rows of
    /// b are `[B, H]` before the sigmoid; the decays are of each channel of the keys, `raw` `[B, H · K]` with `a_log` `[H]` and
    /// `dt_bias` `[H · K]`. `state` and `out` as of [`Self::delta`].
    pub fn kda(&self, x: Rows, b: Rows, decay: Decay, scale: f32, state: u64, out: u64) -> Launch {
        let arguments = Arguments::default()
            .addresses(&[x.address, b.address, decay.raw.address])
            .addresses(&[decay.a_log, decay.dt_bias, state, out])
            .addresses(&[x.stride as u64, b.stride as u64, decay.raw.stride as u64])
            .counts(&[self.heads, self.value_width])
            .factor(scale)
            .factor(L2_EPS as f32)
            .finish();
        self.launched("step_kda", arguments)
    }

    /// A token of Mamba2. Rows of x are x | B | C past the convolution and SiLU; `skip` is D, f32 `[H]`; `state` is f32
    /// `[B, H, N, P]`, as [`super::chunked`] leaves it; `out` bf16 `[B, H, P]`, before the gate and the norm.
    pub fn mamba2(&self, x: Rows, dt: Decay, skip: u64, state: u64, out: u64) -> Launch {
        let none = Rows { address: 0, stride: 0 };
        self.launch([x, none], Some(dt), skip, (state, out), [1.0, 1.0])
    }
}
