//! A mixture of experts of many tokens: who goes where, the experts' products by tensor cores, and their sum. Dropless; experts
//! that no token chose are not read. What is chosen is known on the device alone, so launches are for the most tiles of rows
//! that there can be.

use super::arguments::Arguments;
use super::chunked::{Rows, tile};
use super::{Error, Launch, Source, check_grid};

const THREADS: usize = 128;
/// Rows of a tile, columns of its result, and what is summed over at a time.
const SIDE: usize = 64;
/// Experts that a warp chooses among, and chooses, at most.
const MOST: usize = 1024;
const MOST_CHOSEN: usize = 32;

/// The launches of one shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Experts {
    /// N, tokens.
    pub rows: usize,
    /// d, a multiple of 8.
    pub d_model: usize,
    /// f, of an expert; a multiple of 8.
    pub width: usize,
    /// E.
    pub experts: usize,
    /// k.
    pub per_token: usize,
}

/// Matrices of all experts, bf16; addresses on the device.
#[derive(Debug, Clone, Copy)]
pub struct Weights {
    /// `[E, f, d]`
    pub gate: u64,
    /// `[E, f, d]`
    pub up: u64,
    /// `[E, d, f]`
    pub down: u64,
}

/// Scratch memory; addresses on the device.
#[derive(Debug, Clone, Copy)]
pub struct Scratch {
    /// [`Experts::words`] of 32 bits.
    pub words: u64,
    /// bf16, [`Experts::hidden_len`].
    pub hidden: u64,
    /// bf16, [`Experts::out_len`].
    pub out: u64,
}

impl Experts {
    /// # Errors
    /// When the kernels do not cover the shape.
    pub fn check(&self) -> Result<(), Error> {
        let &Self { rows, d_model, width, experts, per_token } = self;
        let refuse = |what: &str, expected: &str, got: usize| {
            let (what, expected, got) = (what.to_owned(), expected.to_owned(), got.to_string());
            Err(Error::Shape { what, expected, got })
        };
        if !d_model.is_multiple_of(8) || !width.is_multiple_of(8) || d_model * width == 0 {
            return refuse("the width of an expert", "a multiple of 8, as d_model", width);
        }
        if !(1..=MOST).contains(&experts) {
            return refuse("the experts of a mixture", "1 to 1024", experts);
        }
        if !(1..=MOST_CHOSEN.min(experts)).contains(&per_token) {
            return refuse("the experts of a token", "1 to 32", per_token);
        }
        if rows == 0 || rows * per_token >= 1 << 22 {
            return refuse("the tokens of a mixture", "1 to 4 million choices", rows * per_token);
        }
        check_grid("tiles of a mixture's tokens", self.tiles())
    }

    fn choices(&self) -> usize {
        self.rows * self.per_token
    }

    /// Tiles of rows at most: every expert that is chosen may leave one half empty.
    fn tiles(&self) -> usize {
        self.choices() / SIDE + self.experts.min(self.choices())
    }

    fn slots(&self) -> usize {
        self.tiles() * SIDE
    }

    /// Words of the choices and their order: chosen, weights, counts, slots, places, tiles.
    pub fn words(&self) -> usize {
        3 * self.choices() + self.experts + self.slots() + self.tiles()
    }

    /// Numbers between the experts' matrices.
    pub fn hidden_len(&self) -> usize {
        self.slots() * self.width
    }

    /// Numbers that the experts say.
    pub fn out_len(&self) -> usize {
        self.slots() * self.d_model
    }

    /// The constants of the source: of the products of a SwiGLU, or of others and all else.
    pub fn defines(gated: bool) -> Vec<(&'static str, u32)> {
        vec![("WIDE", 0), ("GATED", u32::from(gated))]
    }

    /// `ProductShared::end` of the source.
    pub fn shared_bytes() -> usize {
        2 * 3 * tile(SIDE, SIDE)
    }

    fn launch(
        kernel: &'static str,
        gated: bool,
        grid: (usize, usize),
        shared_bytes: usize,
        arguments: &mut Arguments,
    ) -> Launch {
        Launch {
            source: Source::Experts,
            kernel,
            defines: Self::defines(gated),
            grid: (grid.0 as u32, grid.1 as u32),
            threads: THREADS as u32,
            shared_bytes: shared_bytes as u32,
            together: false,
            boxes: Vec::new(),
            arguments: arguments.finish(),
        }
    }

    /// What the experts make of x bf16 `[N, d]`, by the router's logits f32 `[N, E]`: put into `to`, bf16 `[N, d]` without
    /// gaps, or if `adds` onto what is there.
    pub fn forward(
        &self,
        (x, logits): (Rows, Rows),
        weights: &Weights,
        scratch: &Scratch,
        (to, adds): (u64, bool),
    ) -> Vec<Launch> {
        let &Self { rows, d_model, width, experts, per_token } = self;
        let (choices, tiles) = (self.choices(), self.tiles());
        let mut at = scratch.words;
        let mut words = |count: usize| {
            let address = at;
            at += 4 * count as u64;
            address
        };
        let [chosen, by, places] = [0; 3].map(|_| words(choices));
        let (counts, slots, of_tiles) = (words(experts), words(self.slots()), words(tiles));

        let mut route = Arguments::default();
        route
            .addresses(&[logits.address, chosen, by, logits.stride as u64])
            .counts(&[rows, experts, per_token]);
        let mut order = Arguments::default();
        order
            .addresses(&[chosen, counts, slots, places, of_tiles])
            .counts(&[choices, experts, tiles]);
        let mut same_order = Arguments::default();
        same_order
            .addresses(&[chosen, counts, slots, places, of_tiles])
            .counts(&[choices, experts, tiles]);
        let mut into = Arguments::default();
        into.addresses(&[x.address, weights.gate, weights.up, slots, of_tiles, 0, scratch.hidden])
            .addresses(&[x.stride as u64])
            .counts(&[d_model, width, per_token]);
        let mut out = Arguments::default();
        out.addresses(&[scratch.hidden, weights.down, 0, slots, of_tiles, by, scratch.out])
            .addresses(&[width as u64])
            .counts(&[width, d_model, 0]);
        let mut combine = Arguments::default();
        combine.addresses(&[scratch.out, places, to]).counts(&[
            rows,
            d_model,
            per_token,
            usize::from(adds),
        ]);
        let shared = Self::shared_bytes();
        let warps = THREADS / 32;
        let pieces = (rows * d_model / 8).div_ceil(THREADS);
        vec![
            Self::launch("experts_route", false, (rows.div_ceil(warps), 1), 0, &mut route),
            Self::launch("experts_count", false, (experts, 1), 4 * warps, &mut order),
            Self::launch("experts_place", false, (experts, 1), 4 * warps, &mut same_order),
            Self::launch("experts_product", true, (width.div_ceil(SIDE), tiles), shared, &mut into),
            Self::launch(
                "experts_product",
                false,
                (d_model.div_ceil(SIDE), tiles),
                shared,
                &mut out,
            ),
            Self::launch("experts_combine", false, (pieces, 1), 0, &mut combine),
        ]
    }
}
