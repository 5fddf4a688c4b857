//! One tensor of a model: its name, shape and role.

/// Taps of the short convolutions before a recurrence; the last one multiplies the current position.
pub const CONV_WIDTH: u64 = 4;

/// What a tensor does, on which its initial value, weight decay and normalisation depend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Rows of the tokens; tied models use it as their head too.
    Embedding,
    /// The learnt vectors before every sequence.
    MetaTokens,
    /// Logits from the hidden state.
    Head,
    /// A matrix that reads the hidden state: each output row has its own scale.
    Reader,
    /// A matrix that writes to the hidden state: each input column has its own scale.
    Writer,
    /// A matrix between two others, of which each has its scale.
    Inner,
    /// Taps of a depthwise convolution, `[channels, taps]`; the last one multiplies the current position.
    ConvWeight,
    /// Bias of a depthwise convolution.
    ConvBias,
    /// Weight of an RMSNorm; 1 at the start, no decay.
    NormWeight,
    /// `A = −exp(A_log)` per head; no decay.
    ALog,
    /// Bias inside the softplus of a step size or gate, per head; no decay.
    DtBias,
    /// Mamba2's skip `D·x` per head; 1 at the start, no decay.
    SkipD,
    /// L inside the softplus of a log-linear mixer's λ, `[heads, levels]`; 1 at the start, no decay.
    LevelScale,
    /// Length of the rows of a head's weight-normed matrix of phases; 1 at the start, no decay.
    PhaseScale,
    /// Bias of a gate or, in the exponent, of phases; 0 at the start, no decay.
    Bias,
    /// Learnt temperature of a pair of channels of Selective RoPE; at the start as RoPE's frequency, no decay.
    Temperature,
}

impl Role {
    /// Whether the tensor is a matrix, to which decoupled weight decay may apply.
    ///
    /// Convolution taps do not count: they are few, and small ones would only switch their channel off.
    pub fn is_matrix(self) -> bool {
        !matches!(
            self,
            Self::ConvWeight
                | Self::ConvBias
                | Self::NormWeight
                | Self::ALog
                | Self::DtBias
                | Self::SkipD
                | Self::LevelScale
                | Self::PhaseScale
                | Self::Bias
                | Self::Temperature
        )
    }
}

/// One tensor of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Unique in the model, e.g. `layers.0.mixer.q.weight`.
    pub name: String,
    /// Sizes, outermost first.
    pub shape: Vec<u64>,
    /// What it does.
    pub role: Role,
}

impl TensorSpec {
    /// Number of its elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }
}

/// Tensors in the order of computation, their names below a prefix.
#[derive(Debug, Default)]
pub(crate) struct Tensors {
    /// The tensors so far.
    pub(crate) all: Vec<TensorSpec>,
    /// What the names of the next ones begin with.
    pub(crate) prefix: String,
}

impl Tensors {
    /// One more.
    pub(crate) fn add(&mut self, name: &str, shape: &[u64], role: Role) {
        let name = format!("{}{name}", self.prefix);
        self.all.push(TensorSpec { name, shape: shape.to_vec(), role });
    }
}
