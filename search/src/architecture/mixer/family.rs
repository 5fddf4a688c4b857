//! What a family of mixers says of itself and of its members. One file a family answers; [`super::Mixer`] joins them.

use super::gene::{Gene, Misfit, Settings};
use super::kind::MixerKind;
use crate::architecture::phases::Phases;
use crate::architecture::tensor::Tensors;

/// A kind of mixer as people meet it: its names, its sign, and its genes.
#[derive(Debug)]
pub struct Kind {
    /// Which one.
    pub kind: MixerKind,
    /// The short name that stands in the text form and in campaign files.
    pub name: &'static str,
    /// The name that people read.
    pub title: &'static str,
    /// Its sign in drawings of stacks.
    pub sign: char,
    /// Its colour there.
    pub colour: Colour,
    /// The kind from which it takes its shape in reference stacks; none: it has one of its own.
    pub shaped_as: Option<MixerKind>,
    /// What its table is in the campaign file.
    pub about: &'static str,
    /// The definition of that table in the schema: its name and what it says. Kinds with equal tables may share one.
    pub table: (&'static str, &'static str),
    /// Its genes, in the order of the campaign file and of the text form.
    pub genes: &'static [Gene],
    /// Two genes of which at least one must be listed.
    pub not_both_auto: Option<[&'static str; 2]>,
}

/// One of a terminal's own colours; never white or black, so that light and dark terminals both work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "colours by their names")]
pub enum Colour {
    Red,
    Green,
    Yellow,
    Blue,
    Magenta,
    Cyan,
    LightRed,
    LightGreen,
    LightYellow,
    LightBlue,
    LightMagenta,
    LightCyan,
}

/// What a mixer keeps of the positions that it has seen, and what reading it costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Past {
    /// Of every position, or of the last `window`: so many elements of keys and values, read with so many operations.
    Positions {
        /// The last positions that are kept, the current one included; none: all of them.
        window: Option<u32>,
        /// Elements of keys and values of one position.
        elements: u64,
        /// Operations of attending to one position.
        flops: f64,
    },
    /// Of all positions together: states of one size, whatever their number.
    States {
        /// Elements of a state, of all heads.
        elements: u64,
        /// Inputs of its convolutions that are kept: of each channel as many as it has taps, but one.
        inputs: u64,
        /// Heads, each with a state of its own, or with one for each level.
        heads: u32,
        /// Operations on one head's state of a level beyond the first, at one position.
        level_flops: f64,
    },
}

/// The usual widths of attention in a reference stack, from which other families derive their own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usual {
    /// Width of the residual stream.
    pub(crate) d_model: u32,
    /// As many as make heads as wide as the model.
    pub(crate) heads: u32,
    /// Channels of a head.
    pub(crate) head_width: u32,
}

/// A family of mixers: the type of its members' shapes.
pub(crate) trait Family: Copy {
    /// Its kinds.
    const KINDS: &'static [Kind];

    /// The member of `kind` that complete settings make.
    fn build(kind: MixerKind, genes: &Settings) -> Self;

    /// The rule for `"auto"`: derives at `d_model` what is not given.
    ///
    /// # Errors
    /// When the genes fit together in no such mixer.
    fn derive(kind: MixerKind, d_model: u32, genes: &mut Settings) -> Result<(), Misfit>;

    /// The shape of `kind` in a reference stack.
    fn usual(kind: MixerKind, usual: Usual) -> Self;

    /// The kind of this member.
    fn kind(&self) -> MixerKind;

    /// The value of a gene that the kind has; 0 or 1 of a flag.
    fn gene(&self, name: &str) -> u32;

    /// Expected and got, when the shape is impossible.
    fn check(&self) -> Result<(), String>;

    /// Adds its tensors, in the order of computation, but those of Selective RoPE.
    fn tensors(&self, d: u64, list: &mut Tensors);

    /// Parameters at width `d`: the closed form of the sum over its tensors.
    fn parameters(&self, d: u64) -> u64;

    /// Operations on one token at width `d`, but those that grow with the number of positions before it.
    fn token_flops(&self, d: f64) -> f64;

    /// What it keeps.
    fn past(&self) -> Past;

    /// What it keeps beside that, of two mixers in one.
    fn past_beside(&self) -> Option<Past> {
        None
    }

    /// The number of pieces into which a log-linear mixer cuts the past, with a state for each.
    fn levels(&self) -> Option<u32>;

    /// What it turns q and k by, if it has Selective RoPE.
    fn phases(&self) -> Option<Phases>;

    /// Whether the norms of its layer stand behind what they belong to, and not before it.
    fn norms_after(&self) -> bool {
        false
    }

    /// Heads, width of what is stored by, width of what is stored: comparable between families.
    fn sizes(&self) -> [u32; 3];

    /// Its numbers in the letters of the text form, shortened for drawings.
    fn brief(&self) -> String;

    /// The same `scale` times as wide: by its number of heads if that comes out whole, otherwise by the width of its
    /// heads.
    ///
    /// # Errors
    /// The name and value of the number that does not come out whole.
    fn scaled(self, scale: f64) -> Result<Self, (&'static str, u32)>;

    /// The nearest that is possible to `scale` times as many heads, which keep their width; a lone one gets narrower.
    fn nearly_scaled(self, scale: f64) -> Self;

    /// The member of `kind` that is shaped like this one, as reference stacks have it.
    fn shaped(self, kind: MixerKind) -> Self;
}
