//! What the host and the kernel `decode_step` share: one definition here, held against `phase.cuh` by the compiler.
//!
//! The host writes these structs as they lie in memory. [`assertions`] says of each field where it stands; it follows
//! `phase.cuh` in the source, so that a kernel that sees another layout does not compile, on a GPU or in the emulator.

use std::fmt::Write;
use std::mem::size_of;

/// Units of a stream have room for this many bytes, without the factors of 8-bit weights.
pub(super) const STREAM_BYTES: u32 = 8192;
/// The input vector of a phase, sums of rows, or the heads of one attention tile.
pub const SCRATCH_BYTES: u32 = 32_768;
/// Chunks of 256 columns, at most, in one unit of a matrix.
pub const UNIT_CHUNKS: u32 = 8;
/// Sums of rows in pieces that have a place of their own.
pub const PARTIALS: u32 = 128;
/// Rows of a recurrent state in one unit.
pub const STATE_ROWS: u32 = 4;
/// Positions of a cache in one unit.
pub const BLOCK_POSITIONS: u32 = 16;
/// Query heads that share one pass over the cache.
pub const TILE_HEADS: u32 = 8;
/// Moments of a phase at which a block notes its clock: it begins, the words it waits for are there, its whole input is,
/// and the first piece of its stream; its units are computed; it ends.
pub const MOMENTS: usize = 6;

/// Forms of mixers and FFNs without a name of their own among these.
const FORMS: u32 = 1;
/// Log-linear mixers.
const LEVELED: u32 = 2;
/// Selective RoPE.
const TURNING: u32 = 4;
/// Mixtures of experts.
const CHOOSING: u32 = 8;
/// Of each what the kernel is compiled with where a program has it.
pub const GENES: [u32; 4] = [FORMS, LEVELED, TURNING, CHOOSING];

const CONSTANTS: [(&str, u32); 12] = [
    ("FORMS", FORMS),
    ("LEVELED", LEVELED),
    ("TURNING", TURNING),
    ("CHOOSING", CHOOSING),
    ("STREAM_BYTES", STREAM_BYTES),
    ("SCRATCH_BYTES", SCRATCH_BYTES),
    ("UNIT_CHUNKS", UNIT_CHUNKS),
    ("PARTIALS", PARTIALS),
    ("STATE_ROWS", STATE_ROWS),
    ("BLOCK_POSITIONS", BLOCK_POSITIONS),
    ("TILE_HEADS", TILE_HEADS),
    ("MOMENTS", MOMENTS as u32),
];

/// A type of both sides.
trait Shared {
    /// The kernel's name of it.
    const NAME: &str;
}

impl Shared for u32 {
    const NAME: &str = "u32";
}

impl Shared for u64 {
    const NAME: &str = "u64";
}

impl Shared for f32 {
    const NAME: &str = "float";
}

impl Shared for [u64; 2] {
    const NAME: &str = "u64[2]";
}

/// An enum whose variants have the numbers of the kernel's, in its words.
macro_rules! shared_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$of:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        #[repr(u32)]
        pub enum $name { $($(#[$of])* $variant,)* }

        impl $name {
            const WORDS: &[(&str, u32)] = &[$(($word, Self::$variant as u32),)*];
        }

        impl Shared for $name {
            const NAME: &str = u32::NAME;
        }

        // SAFETY: an enum of 32 bits without fields has no bytes that are not written.
        unsafe impl bytemuck::NoUninit for $name {}
    };
}

/// A struct that lies in memory as the kernel's of the same name, with the names and types of its fields.
macro_rules! shared_struct {
    ($(#[$meta:meta])* $name:ident { $($(#[$of:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, Default)]
        pub struct $name { $($(#[$of])* pub $field: $kind,)* }

        impl $name {
            /// Name and type of each field.
            const FIELDS: &[(&str, &str)] = &[$((stringify!($field), <$kind>::NAME),)*];
        }

        const _: () = {
            let fields = 0 $(+ size_of::<$kind>())*;
            assert!(fields == size_of::<$name>(), "a field begins where the one before it ends");
        };

        // SAFETY: no field has bytes that are not written, and by the assertion above there are none between them.
        unsafe impl bytemuck::NoUninit for $name {}
    };
}

shared_enum! {
    /// What a phase computes.
    Kind {
        /// y = W · norm(x), W `[rows, columns]`.
        #[default]
        Gemv = "GEMV",
        /// The delta rule: convolution, gates, state update, read.
        Delta = "DELTA",
        /// The same for Mamba2.
        Mamba2 = "MAMBA2",
        /// The gated short convolution.
        GatedConv = "GATED_CONV",
        /// Attention over the cache, a split of the positions for each block.
        Attend = "ATTEND",
        /// The splits of one head put together.
        Combine = "COMBINE",
        /// The delta rule with a decay for each channel of the keys.
        Kda = "KDA",
        /// One or two vectors, normed or not, onto the residual stream.
        Add = "ADD",
        /// The delta rule, log-linear.
        LogDelta = "LOG_DELTA",
        /// Mamba2, log-linear.
        LogMamba2 = "LOG_MAMBA2",
        /// The angles of Selective RoPE.
        Turns = "TURNS",
    }
}

shared_enum! {
    /// From where a product reads, and how it norms that.
    Input {
        /// A row of the embedding, bf16, by the token.
        #[default]
        Embedding = "EMBEDDING",
        /// RMSNorm of all of it.
        RmsNorm = "RMS_NORM",
        /// RMSNorm of each head.
        HeadNorm = "HEAD_NORM",
        /// As it is.
        Plain = "PLAIN",
        /// A row of the embedding as it is.
        RawEmbedding = "RAW_EMBEDDING",
        /// Times σ of the gate.
        Gated = "GATED",
        /// RMSNorm of each head, then times σ of the gate.
        HeadNormSigmoid = "HEAD_NORM_SIGMOID",
    }
}

shared_enum! {
    /// What becomes of a product.
    Output {
        /// It is shown to who waits for it.
        #[default]
        Store = "STORE",
        /// It is added to the residual stream.
        Residual = "RESIDUAL",
        /// Rows in pairs become SiLU(gate) · up.
        Swiglu = "SWIGLU",
        /// It is the result, of which the largest is the next token.
        Logits = "LOGITS",
        /// Rows become max(x, 0)².
        Relu2 = "RELU2",
    }
}

shared_enum! {
    /// How the units of a product name one of the experts of a mixture: `heads` of them, of which `splits` are chosen by the
    /// logits at `z`, each of `cache_blocks` units.
    Experts {
        /// There are none.
        #[default]
        None = "ALL_UNITS",
        /// `tiles` groups for each of the chosen in turn; results are weighed.
        ByGroup = "BY_GROUP",
        /// All of one, number `window` of the chosen.
        One = "ONE_EXPERT",
        /// A piece of a row for each.
        ByPiece = "BY_PIECE",
    }
}

shared_struct! {
    /// One step of the program that `decode_step` runs. Addresses are those of the device; 0 where there is nothing.
    #[repr(C, align(16))]
    Phase {
        /// What is streamed: groups are dealt to the blocks, a group is never split.
        stream: u64,
        /// What is computed.
        kind: Kind,
        /// Bytes of a unit of the stream.
        unit_bytes: u32,
        /// Groups of units.
        groups: u32,
        /// Units of a group.
        units_per_group: u32,
        /// By how many blocks the shares are turned.
        rotation: u32,
        /// Splits of the cache; levels of a log-linear mixer that there are states for.
        splits: u32,
        /// Heads of keys; of Selective RoPE shares of the input; of a product how its units name an expert ([`Experts`]).
        key_heads: u32,
        /// Tiles of query heads for each of them; levels that a log-linear mixer has scales for.
        tiles: u32,
        /// Positions that attention sees; 0: all. Of a product the expert of the chosen.
        window: u32,
        /// Blocks of positions of a cache; units of an expert.
        cache_blocks: u32,
        /// How a product reads.
        input: Input,
        /// What becomes of it.
        output: Output,
        /// Columns of the matrix.
        columns: u32,
        /// Chunks of 256 columns in a unit.
        chunks: u32,
        /// Rows of the matrix.
        rows: u32,
        /// Rows of it that a convolution needs.
        ring_rows: u32,
        /// Width of a key, of a state, of a head.
        width: u32,
        /// Width of a value.
        value_width: u32,
        /// Heads.
        heads: u32,
        /// Whether the state decays; of attention whether q and k are normed over all heads together.
        gated: u32,
        /// Delta steps of a token.
        steps: u32,
        /// Whether what is read passes a convolution.
        convolved: u32,
        /// Of the read, or of the scores.
        scale: f32,
        /// β lies between 0 and this.
        largest_beta: f32,
        /// The input vector, tagged; of KDA that from which the decays come; of a log-linear mixer its states.
        x: u64,
        /// Weights of the norm.
        norm: u64,
        /// The gate of the input, tagged; sums of attention's splits.
        gate: u64,
        /// The output vector, tagged unless it goes outside.
        out: u64,
        /// The last four positions of what a convolution reads, `[4, ring_rows]`.
        ring: u64,
        /// Taps, `[ring_rows, 4]`.
        conv_weight: u64,
        /// Bias of the convolution.
        conv_bias: u64,
        /// log A of each head.
        a_log: u64,
        /// Bias of dt of each head.
        dt_bias: u64,
        /// Mamba2's D of each head; of others cosines and sines of learnt angles, tagged; of those angles τ.
        skip: u64,
        /// The in-projection of this position, tagged; of a product that is stored what is added to it, tagged.
        now: u64,
        /// The part of it behind the convolved, tagged; the second vector of a sum.
        z: u64,
        /// Weights of the norm of keys, of the second vector of a sum; L of a log-linear mixer.
        k_norm: u64,
        /// Cosine and sine by position.
        rope: u64,
        /// To the next multiple of 16 bytes.
        unused: u64,
    }
}

impl Phase {
    /// `product` with the weights of experts, each of so many units, chosen as this phase says.
    #[must_use]
    pub fn of_units(&self, product: Self, by: Experts, units: usize) -> Self {
        Self {
            key_heads: by as u32,
            cache_blocks: units as u32,
            heads: self.heads,
            splits: self.splits,
            tiles: self.tiles,
            z: self.z,
            ..product
        }
    }

    /// What of it few programs have: the `GENES` that the kernel is compiled with.
    pub fn genes(&self) -> u32 {
        let only = |x: bool, gene: u32| if x { gene } else { 0 };
        match self.kind {
            Kind::Gemv => {
                let input = matches!(
                    self.input,
                    Input::RawEmbedding | Input::Gated | Input::HeadNormSigmoid
                );
                let sums = self.output == Output::Store && self.now != 0;
                only(input || sums || self.output == Output::Relu2, FORMS)
                    | only(self.key_heads != 0, CHOOSING)
            }
            Kind::Attend => only(self.gated != 0, FORMS) | only(self.skip != 0, TURNING),
            Kind::Delta => only(self.skip != 0, TURNING),
            Kind::LogDelta => LEVELED | only(self.skip != 0, TURNING),
            Kind::LogMamba2 => LEVELED,
            Kind::Kda | Kind::Add => FORMS,
            Kind::Turns => TURNING,
            Kind::Mamba2 | Kind::GatedConv | Kind::Combine => 0,
        }
    }
}

shared_struct! {
    /// What lives on the device from step to step.
    #[repr(C)]
    Control {
        /// Of the token to be computed now.
        position: u32,
        /// Launches so far.
        epoch: u32,
        /// Blocks that have ended: 0 between steps.
        counter: u32,
        /// To the next multiple of 8 bytes.
        unused: u32,
        /// Best logit and token, by parity of the position.
        next: [u64; 2],
    }
}

// SAFETY: every sequence of bits is one of its numbers.
unsafe impl bytemuck::AnyBitPattern for Control {}
// SAFETY: zeros are numbers.
unsafe impl bytemuck::Zeroable for Control {}

impl Control {
    /// At `position`, with `token` to be computed there, after `epoch` steps of any kind.
    pub fn at(position: u32, token: u32, epoch: u32) -> Self {
        let mut next = [0; 2];
        next[position as usize % 2] = u64::from(u32::MAX - token);
        Self { position, epoch, next, ..Self::default() }
    }

    /// The token for `position`.
    pub fn next_token(&self, position: usize) -> u32 {
        u32::MAX - self.next[position % 2] as u32 // the low half of the key
    }
}

shared_struct! {
    /// The argument of `decode_step`.
    #[repr(C)]
    DecodeArgs {
        /// The program, `[phase_count]` of [`Phase`].
        phases: u64,
        /// The [`Control`].
        control: u64,
        /// 0, or `[phase_count, blocks, MOMENTS]`: cycles of each block at the moments of each phase.
        trace: u64,
        /// Phases of the program.
        phase_count: u32,
        /// Width of the residual stream.
        d_model: u32,
    }
}

/// C++ that compiles only where `phase.cuh` has these layouts, numbers and constants.
///
/// NVRTC knows no `offsetof`. So each struct is made of the numbers of its fields in the host's order: a field that stands
/// elsewhere has another number. Types are the same, and so is the size, which leaves no room between fields.
pub(crate) fn assertions() -> String {
    let mut text = String::from(
        "#line 1 \"decode/phase.rs\"\n\
         template <typename A, typename B> struct Same { static const bool holds = false; };\n\
         template <typename A> struct Same<A, A> { static const bool holds = true; };\n",
    );
    let structs = [
        ("Phase", size_of::<Phase>(), Phase::FIELDS),
        ("Control", size_of::<Control>(), Control::FIELDS),
        ("DecodeArgs", size_of::<DecodeArgs>(), DecodeArgs::FIELDS),
    ];
    let mut assert = |condition: &str, what: &str| {
        let _ = writeln!(text, "static_assert({condition}, \"{what} of the host\");");
    };
    for (name, size, fields) in structs {
        assert(&format!("sizeof({name}) == {size}"), &format!("the size of {name}"));
        let numbers: Vec<String> = (1..=fields.len()).map(|n| format!("{{{n}}}")).collect();
        let made = format!("{name}{{{}}}", numbers.join(", "));
        for (number, (field, kind)) in (1..).zip(fields) {
            let same = format!("Same<decltype({name}::{field}), {kind}>::holds");
            let first = if kind.ends_with(']') { "[0]" } else { "" };
            let place = format!("{made}.{field}{first} == {number}");
            assert(&format!("{same} && {place}"), &format!("{name}::{field}"));
        }
    }
    let enums = [Kind::WORDS, Input::WORDS, Output::WORDS, Experts::WORDS];
    for (word, value) in enums.into_iter().flatten().copied().chain(CONSTANTS) {
        assert(&format!("(u32){word} == {value}u"), word);
    }
    text
}
