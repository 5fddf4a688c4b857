//! An architecture as the list of phases that a step runs, and its weights in the order of streaming.
//!
//! Here is what all layers share; each family of mixers has a file of its own beside this one.

use std::ops::Range;

use kernels::cuda::decode::{
    CHUNK_COLUMNS, Input, Kind, Layout, Output, PARTIALS, Phase, SCRATCH_BYTES, Storage,
    UNIT_CHUNKS,
};
use kernels::cuda::{Error, Machine, upload_new};
use search::Architecture;
use search::architecture::{Ffn, FfnKind, Mixer, Parallel};

use crate::cuda::shapes::Load;

/// A matrix as a stream: units of some rows ([`Storage::rows`]) × `chunks` · 256 columns, `pieces` units side by side for
/// each group of rows.
pub(super) struct Packed {
    pub(super) address: u64,
    pub(super) pieces: usize,
    pub(super) chunks: usize,
    pub(super) groups: usize,
}

pub(super) struct Builder<'a> {
    pub(super) machine: &'a mut dyn Machine,
    architecture: &'a Architecture,
    /// That caches must hold.
    pub(super) positions: usize,
    layout: Layout,
    /// Whether matrices and caches are filled on the machine, whatever `load` gives.
    pub(super) pretends: bool,
    pub(super) phases: Vec<Phase>,
    /// Where the residual stream stands: the output of the last phase that wrote to it.
    residual: Residual,
    /// Where the branch that is built now leaves its result, if not on the residual stream; 0 until it does.
    aside: Option<u64>,
    pub(super) logits: u64,
    pub(super) states: Vec<(u64, usize)>,
    pub(super) caches: Vec<(u64, usize)>,
    pub(super) streamed_bytes: u64,
    pub(super) state_bytes: u64,
    pub(super) cache_bytes_per_position: Vec<(u64, Option<usize>)>,
    /// Of the states of each log-linear mixer: of one of them, and how many there are.
    pub(super) level_bytes: Vec<(u64, usize)>,
    pub(super) memory: Vec<u64>,
}

/// What an in-projection leaves.
pub(super) struct Projected {
    /// Its rows at this position, tagged.
    pub(super) now: u64,
    /// Those of the last four positions that a convolution needs, `[4, rows]`; 0 without one.
    pub(super) ring: u64,
}

/// From where a phase reads the residual stream.
#[derive(Debug, Clone, Copy)]
enum Residual {
    /// The embedding of the token: no phase has written yet.
    Embedding(u64),
    /// `[d]`, tagged.
    Vector(u64),
}

fn shape_error(what: &str, expected: &str, got: usize) -> Error {
    Error::Shape { what: what.to_owned(), expected: expected.to_owned(), got: got.to_string() }
}

pub(super) fn check(holds: bool, what: &str, expected: &str, got: usize) -> Result<(), Error> {
    if holds { Ok(()) } else { Err(shape_error(what, expected, got)) }
}

impl<'a> Builder<'a> {
    pub(super) fn new(
        machine: &'a mut dyn Machine,
        architecture: &'a Architecture,
        positions: usize,
        layout: Layout,
        pretends: bool,
    ) -> Self {
        Self {
            machine,
            architecture,
            positions,
            layout,
            pretends,
            phases: Vec::new(),
            residual: Residual::Embedding(0),
            aside: None,
            logits: 0,
            states: Vec::new(),
            caches: Vec::new(),
            streamed_bytes: 0,
            state_bytes: 0,
            cache_bytes_per_position: Vec::new(),
            level_bytes: Vec::new(),
            memory: Vec::new(),
        }
    }

    /// Width of the residual stream.
    pub(super) fn d_model(&self) -> usize {
        self.architecture.d_model() as usize
    }

    /// Warps of a block that compute.
    pub(super) fn warps(&self) -> usize {
        self.layout.warps as usize
    }

    /// What weights of matrices are kept as.
    pub(super) fn storage(&self) -> Storage {
        self.layout.storage
    }

    /// Blocks that a step has.
    pub(super) fn blocks(&self) -> usize {
        self.layout.blocks as usize
    }

    pub(super) fn allocate(&mut self, bytes: usize) -> Result<u64, Error> {
        let address = self.machine.allocate(bytes)?;
        self.memory.push(address);
        Ok(address)
    }

    pub(super) fn vector(&mut self, values: &[f32]) -> Result<u64, Error> {
        self.streamed_bytes += 4 * values.len() as u64;
        let address = upload_new(self.machine, values)?;
        self.memory.push(address);
        Ok(address)
    }

    /// Memory that lives from step to step and begins as zeros.
    pub(super) fn state(&mut self, bytes: usize) -> Result<u64, Error> {
        let address = self.allocate(bytes)?;
        self.states.push((address, bytes));
        Ok(address)
    }

    /// In how many pieces a row of so many columns is read, and the chunks of each.
    pub(super) fn pieces(&self, columns: usize) -> Result<(usize, usize), Error> {
        let all_chunks = columns.div_ceil(CHUNK_COLUMNS);
        // a warp keeps the input of one piece: see `gemv.cuh`
        let warps = self.layout.warps as usize;
        let pieces = (1..=warps)
            .find(|n| warps.is_multiple_of(*n) && all_chunks.div_ceil(*n) <= UNIT_CHUNKS as usize)
            .ok_or_else(|| {
                let most = warps * UNIT_CHUNKS as usize * CHUNK_COLUMNS;
                shape_error("the input width of a matrix", &format!("at most {most}"), columns)
            })?;
        Ok((pieces, all_chunks.div_ceil(pieces)))
    }

    /// Packs the rows of `parts`, `[rows, columns]` each, one below the other.
    pub(super) fn pack(&mut self, parts: &[&[f32]], columns: usize) -> Result<Packed, Error> {
        self.pack_columns(parts, columns, 0..columns)
    }

    /// The same of some columns alone, with the factors of whole rows.
    fn pack_columns(
        &mut self,
        parts: &[&[f32]],
        columns: usize,
        taken: Range<usize>,
    ) -> Result<Packed, Error> {
        let (pieces, chunks) = self.pieces(taken.len())?;
        let storage = self.storage();
        let count = parts.iter().map(|part| part.len() / columns).sum::<usize>();
        self.streamed_bytes += storage.matrix_bytes(count, taken.len());
        let groups = count.div_ceil(storage.rows());
        if self.pretends {
            let bytes = groups * pieces * storage.unit_bytes(chunks);
            let address = self.allocate(bytes)?;
            self.machine.pretend(address, bytes)?;
            return Ok(Packed { address, pieces, chunks, groups });
        }
        let rows: Vec<&[f32]> = parts.iter().flat_map(|part| part.chunks_exact(columns)).collect();
        let packed = storage.packed(&rows, taken, (pieces, chunks));
        let address = upload_new(self.machine, &packed)?;
        self.memory.push(address);
        Ok(Packed { address, pieces, chunks, groups })
    }

    pub(super) fn push(&mut self, mut phase: Phase) {
        let blocks = self.layout.blocks;
        // Shares differ by one unit: another block has the larger one each time, but for the rows of the residual
        // stream, which have owners.
        if phase.output != Output::Residual || phase.kind != Kind::Gemv {
            phase.rotation = (self.phases.len() as u32 * 37) % blocks;
        }
        self.phases.push(phase);
    }

    pub(super) fn gemv(
        &mut self,
        matrix: &Packed,
        columns: usize,
        input: Input,
        output: Output,
        rows: usize,
    ) -> Result<Phase, Error> {
        let blocks = self.blocks();
        let own_rows = matrix.groups.div_ceil(blocks) * self.storage().rows();
        let sums = own_rows * matrix.pieces;
        let padded = matrix.pieces * matrix.chunks * CHUNK_COLUMNS;
        check(
            padded * 4 <= SCRATCH_BYTES as usize,
            "the input width of a matrix",
            &format!("at most {}", SCRATCH_BYTES / 4),
            columns,
        )?;
        check(
            columns.is_multiple_of(4),
            "the input width of a matrix",
            "a multiple of 4",
            columns,
        )?;
        check(
            matrix.groups * (blocks + 1) < 1 << 32,
            "the rows of a matrix",
            &format!("below 2³² · {} over the blocks", self.storage().rows()),
            rows,
        )?;
        check(
            matrix.pieces == 1
                || sums <= PARTIALS as usize
                || padded * 4 + sums * 4 <= SCRATCH_BYTES as usize,
            "the rows of a matrix",
            "few enough for the blocks' scratch memory",
            rows,
        )?;
        check(
            output != Output::Residual || own_rows <= self.layout.own_rows as usize,
            "d_model",
            &format!("at most {}", self.layout.own_rows as usize * blocks),
            rows,
        )?;
        Ok(Phase {
            stream: matrix.address,
            kind: Kind::Gemv,
            unit_bytes: self.storage().unit_bytes(matrix.chunks) as u32,
            groups: matrix.groups as u32,
            units_per_group: matrix.pieces as u32,
            input,
            output,
            columns: columns as u32,
            chunks: matrix.chunks as u32,
            rows: rows as u32,
            ..Phase::default()
        })
    }

    pub(super) fn build(&mut self, load: Load) -> Result<(), Error> {
        let architecture = self.architecture;
        let (d, vocabulary) = (self.d_model(), architecture.vocab() as usize);
        self.logits = self.allocate(vocabulary.next_multiple_of(2) * 4)?;
        let embedding = self.pack(&[&load("embedding.weight", vocabulary * d)], d)?;
        let head = if architecture.tied_embeddings() {
            Packed { ..embedding }
        } else {
            self.streamed_bytes -= self.storage().matrix_bytes(vocabulary, d); // one row of the embedding is read, not all
            self.pack(&[&load("head.weight", vocabulary * d)], d)?
        };
        self.residual = Residual::Embedding(embedding.address);
        for (i, layer) in architecture.layers().iter().enumerate() {
            let after = layer.norms_after();
            if let Some(mixer) = &layer.mixer {
                let norm = load(&format!("layers.{i}.mixer_norm.weight"), d);
                let norm = self.vector(&norm)?;
                let here = &mut |name: &str, count: usize| {
                    load(&format!("layers.{i}.mixer.{name}"), count)
                };
                self.half(norm, after, |on, norm| on.mixer(mixer, norm, here))?;
            }
            if let Some(ffn) = layer.ffn {
                let norm = load(&format!("layers.{i}.ffn_norm.weight"), d);
                let norm = self.vector(&norm)?;
                let here =
                    &mut |name: &str, count: usize| load(&format!("layers.{i}.ffn.{name}"), count);
                self.half(norm, after, |on, norm| on.ffn(ffn, norm, here))?;
            }
        }
        let norm = load("final_norm.weight", d);
        let norm = self.vector(&norm)?;
        let logits = self.logits;
        let phase = self.gemv(&head, d, Input::RmsNorm, Output::Logits, vocabulary)?;
        self.push(Phase { out: logits, ..self.reading(phase, norm) });
        Ok(())
    }

    /// Half a layer: h += f(norm(h)), or h += norm(f(h)) where the norm stands `after`. The branch is told the norm that it
    /// has to begin with, 0 for none.
    fn half(
        &mut self,
        norm: u64,
        after: bool,
        branch: impl FnOnce(&mut Self, u64) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if !after {
            return branch(self, norm);
        }
        let y = self.aside(|on| branch(on, 0))?;
        self.add([(y, norm), (0, 0)])
    }

    /// Where a branch leaves its result when it is not added to the residual stream.
    fn aside(&mut self, branch: impl FnOnce(&mut Self) -> Result<(), Error>) -> Result<u64, Error> {
        self.aside = Some(0);
        let built = branch(self);
        let y = self.aside.take().unwrap_or(0);
        built.map(|()| y)
    }

    /// Adds one or two vectors to the residual stream, each normed by a weight or, where that is 0, as it is.
    fn add(&mut self, [(x, norm), (z, k_norm)]: [(u64, u64); 2]) -> Result<(), Error> {
        let columns = self.d_model() as u32;
        self.push_residual(Phase {
            kind: Kind::Add,
            columns,
            x,
            norm,
            z,
            k_norm,
            ..Phase::default()
        })
    }

    fn mixer(&mut self, mixer: &Mixer, norm: u64, load: Load) -> Result<(), Error> {
        match mixer {
            Mixer::Attention(shape) => self.attention(shape, mixer.phases(), norm, load),
            Mixer::Delta(shape) => self.delta(shape, mixer.phases(), norm, load),
            Mixer::Mamba2(shape) => self.mamba2(shape, norm, load),
            Mixer::Kda(shape) => self.kda(shape, norm, load),
            Mixer::Parallel(shape) => self.parallel(shape, norm, load),
            Mixer::GatedConv(shape) => self.gated_conv(*shape, norm, load),
        }
    }

    /// Two mixers that read the same, one after the other; what both leave is added at once.
    fn parallel(&mut self, shape: &Parallel, norm: u64, load: Load) -> Result<(), Error> {
        let mut branches = [(0, 0); 2];
        let mixers: [(&str, Mixer); 2] =
            [("attention", shape.attention().into()), ("beside", shape.side().into())];
        for (branch, (name, mixer)) in branches.iter_mut().zip(mixers) {
            let own = &mut |tensor: &str, count: usize| load(&format!("{name}.{tensor}"), count);
            branch.0 = self.aside(|on| on.mixer(&mixer, norm, own))?;
            if shape.branch_norms {
                let weight = load(&format!("{name}_norm.weight"), self.d_model());
                branch.1 = self.vector(&weight)?;
            }
        }
        self.add(branches)
    }

    /// `phase` with the residual stream as its input, normed unless `norm` is 0.
    pub(super) fn reading(&self, phase: Phase, norm: u64) -> Phase {
        let (input, x) = match self.residual {
            Residual::Embedding(x) if norm == 0 => (Input::RawEmbedding, x),
            Residual::Embedding(x) => (Input::Embedding, x),
            Residual::Vector(x) if norm == 0 => (Input::Plain, x),
            Residual::Vector(x) => (Input::RmsNorm, x),
        };
        Phase { input, x, norm, ..phase }
    }

    /// Adds the products of `phase` to the residual stream, or to the branch that is kept aside.
    pub(super) fn push_residual(&mut self, phase: Phase) -> Result<(), Error> {
        let out = self.allocate(self.d_model() * 4)?;
        if let Some(aside) = &mut self.aside {
            let now = std::mem::replace(aside, out); // a slab of columns goes on from the one before it
            self.push(Phase { out, output: Output::Store, now, ..phase });
            return Ok(());
        }
        self.push(Phase { out, ..phase });
        self.residual = Residual::Vector(out);
        Ok(())
    }

    /// Adds `weight` `[d, columns]` times what `of` reads to the residual stream: a slab of columns after another where
    /// a block's scratch memory does not hold them all.
    pub(super) fn project_back(
        &mut self,
        weight: &[f32],
        columns: usize,
        input: Input,
        of: Phase,
    ) -> Result<(), Error> {
        let d = self.d_model();
        let held = SCRATCH_BYTES as usize / 4;
        let most = held.min(self.layout.warps as usize * UNIT_CHUNKS as usize * CHUNK_COLUMNS);
        let slab = columns.div_ceil(columns.div_ceil(most)).next_multiple_of(CHUNK_COLUMNS);
        for first in (0..columns).step_by(slab) {
            let end = columns.min(first + slab);
            let matrix = self.pack_columns(&[weight], columns, first..end)?;
            let phase = self.gemv(&matrix, end - first, input, Output::Residual, d)?;
            let skipped = 4 * first as u64;
            self.push_residual(Phase {
                x: of.x + skipped,
                gate: if of.gate == 0 { 0 } else { of.gate + skipped },
                norm: of.norm,
                value_width: of.value_width,
                ..phase
            })?;
        }
        Ok(())
    }

    fn ffn(&mut self, ffn: Ffn, norm: u64, load: Load) -> Result<(), Error> {
        let (d, width) = (self.d_model(), ffn.width as usize);
        let hidden = match ffn.kind {
            FfnKind::SwiGlu => self.swiglu(width, norm, load)?,
            FfnKind::Relu2 => {
                let matrix = self.pack(&[&load("up.weight", width * d)], d)?;
                let hidden = self.allocate(width.next_multiple_of(4) * 4)?;
                let phase = self.gemv(&matrix, d, Input::RmsNorm, Output::Relu2, width)?;
                self.push(Phase { out: hidden, ..self.reading(phase, norm) });
                hidden
            }
            FfnKind::Moe(experts) => return self.experts(width, experts, norm, load),
        };
        let down = load("down.weight", d * width);
        self.project_back(&down, width, Input::Plain, Phase { x: hidden, ..Phase::default() })
    }

    /// Rows of two matrices that read the residual stream in turn: a pair gives one value.
    pub(super) fn pack_pairs(&mut self, gate: &[f32], up: &[f32]) -> Result<Packed, Error> {
        let d = self.d_model();
        if self.pretends {
            return self.pack(&[gate, up], d);
        }
        let rows: Vec<&[f32]> =
            gate.chunks_exact(d).zip(up.chunks_exact(d)).flat_map(|(g, u)| [g, u]).collect();
        self.pack(&rows, d)
    }

    /// What the two matrices of a SwiGLU make of the residual stream.
    pub(super) fn swiglu(&mut self, width: usize, norm: u64, load: Load) -> Result<u64, Error> {
        let d = self.d_model();
        let gate = load("gate.weight", width * d);
        let up = load("up.weight", width * d);
        let matrix = self.pack_pairs(&gate, &up)?;
        let hidden = self.allocate(width * 4)?;
        let phase = self.gemv(&matrix, d, Input::RmsNorm, Output::Swiglu, 2 * width)?;
        self.push(Phase { out: hidden, ..self.reading(phase, norm) });
        Ok(hidden)
    }

    /// The in-projection of a mixer, `[rows]`: the inputs of the convolution first, which go to a ring as well.
    pub(super) fn project(
        &mut self,
        parts: &[&[f32]],
        norm: u64,
        ring_rows: usize,
    ) -> Result<Projected, Error> {
        let d = self.d_model();
        let matrix = self.pack(parts, d)?;
        let rows = parts.iter().map(|p| p.len() / d).sum::<usize>();
        let now = self.allocate(rows.next_multiple_of(4) * 4)?;
        let ring = if ring_rows > 0 { self.state(4 * ring_rows * 4)? } else { 0 };
        let phase = self.gemv(&matrix, d, Input::RmsNorm, Output::Store, rows)?;
        self.push(Phase {
            out: now,
            ring,
            ring_rows: ring_rows as u32,
            ..self.reading(phase, norm)
        });
        Ok(Projected { now, ring })
    }
}
