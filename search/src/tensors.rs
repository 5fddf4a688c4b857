//! The tensors of a model: one list for everybody who builds, saves or loads one, and the formula for its parameters.
//!
//! `operators` builds exactly these, checkpoints hold exactly these names, and the inference engine loads exactly
//! these. All matrices are `[out, in]`. Heads are contiguous blocks of rows: head h owns rows h·K..(h+1)·K.
//! The initial value and the optimiser's group of a tensor follow from its [`Role`].

use crate::architecture::{Architecture, Attention, DeltaFamily, Layer, Mamba2, Mixer, Phases};

/// Taps of every short convolution; the last one multiplies the current position.
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
    /// Taps of a depthwise convolution, `[channels, 4]`.
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

/// Every trainable tensor of `architecture`, in the order of computation.
pub fn tensors(architecture: &Architecture) -> Vec<TensorSpec> {
    let d = u64::from(architecture.d_model());
    let vocab = u64::from(architecture.vocab());
    let mut list = List { tensors: Vec::new(), prefix: String::new() };
    list.add("embedding.weight", &[vocab, d], Role::Embedding);
    if architecture.meta_tokens() > 0 {
        list.add("meta.weight", &[architecture.meta_tokens().into(), d], Role::MetaTokens);
    }
    for (index, layer) in architecture.layers().iter().enumerate() {
        list.prefix = format!("layers.{index}.");
        if let Some(mixer) = &layer.mixer {
            list.add("mixer_norm.weight", &[d], Role::NormWeight);
            list.prefix = format!("layers.{index}.mixer.");
            list.mixer(d, mixer);
            list.prefix = format!("layers.{index}.");
        }
        if let Some(width) = layer.ffn_width {
            let f = u64::from(width);
            list.add("ffn_norm.weight", &[d], Role::NormWeight);
            list.add("ffn.gate.weight", &[f, d], Role::Reader);
            list.add("ffn.up.weight", &[f, d], Role::Reader);
            list.add("ffn.down.weight", &[d, f], Role::Writer);
        }
    }
    list.prefix.clear();
    list.add("final_norm.weight", &[d], Role::NormWeight);
    if !architecture.tied_embeddings() {
        list.add("head.weight", &[vocab, d], Role::Head);
    }
    list.tensors
}

/// The tensors of `mixer` at width `d`, with the names they have after `layers.{i}.mixer.`.
pub fn mixer_tensors(d: u64, mixer: &Mixer) -> Vec<TensorSpec> {
    let mut list = List { tensors: Vec::new(), prefix: String::new() };
    list.mixer(d, mixer);
    list.tensors
}

struct List {
    tensors: Vec<TensorSpec>,
    prefix: String,
}

impl List {
    fn add(&mut self, name: &str, shape: &[u64], role: Role) {
        self.tensors.push(TensorSpec {
            name: format!("{}{name}", self.prefix),
            shape: shape.to_vec(),
            role,
        });
    }

    fn mixer(&mut self, d: u64, mixer: &Mixer) {
        match *mixer {
            Mixer::Attention(Attention { heads, kv_heads, head_width, qk_norm, .. }) => {
                let k = u64::from(head_width);
                let (q_rows, kv_rows) = (u64::from(heads) * k, u64::from(kv_heads) * k);
                self.add("q.weight", &[q_rows, d], Role::Reader);
                self.add("k.weight", &[kv_rows, d], Role::Reader);
                self.add("v.weight", &[kv_rows, d], Role::Reader);
                if qk_norm {
                    self.add("q_norm.weight", &[k], Role::NormWeight);
                    self.add("k_norm.weight", &[k], Role::NormWeight);
                }
                self.add("o.weight", &[d, q_rows], Role::Writer);
            }
            Mixer::DeltaNet(_) | Mixer::GatedDeltaNet(_) | Mixer::DeltaProduct(_) => {
                self.delta(d, &mixer.delta().expect("a member of the family"));
            }
            Mixer::Mamba2(m @ Mamba2 { heads, head_width, state_width, levels }) => {
                let (h, n) = (u64::from(heads), u64::from(state_width));
                let inner = h * u64::from(head_width);
                // rows in the order z, x, B, C, dt, λ
                let rows = 2 * inner + 2 * n + h + m.level_rows();
                self.add("in.weight", &[rows, d], Role::Reader);
                self.add("conv.weight", &[inner + 2 * n, CONV_WIDTH], Role::ConvWeight);
                self.add("conv.bias", &[inner + 2 * n], Role::ConvBias);
                self.add("A_log", &[h], Role::ALog);
                self.add("dt_bias", &[h], Role::DtBias);
                self.add("D", &[h], Role::SkipD);
                if let Some(levels) = levels {
                    self.add("L", &[h, levels.into()], Role::LevelScale);
                }
                self.add("norm.weight", &[inner], Role::NormWeight);
                self.add("out.weight", &[d, inner], Role::Writer);
            }
        }
        if let Some(phases) = mixer.phases() {
            let angles = phases.channels();
            self.add("phi_down.weight", &[Phases::RANK, d], Role::Reader);
            self.add("phi_up.weight", &[angles, Phases::RANK], Role::Inner);
            self.add("phi_conv.weight", &[angles, CONV_WIDTH], Role::ConvWeight);
        }
    }

    fn delta(&mut self, d: u64, family: &DeltaFamily) {
        let (steps, heads) = (u64::from(family.steps), u64::from(family.value_heads));
        let (k_rows, v_rows) = (family.key_rows(), family.value_rows());
        self.add("q.weight", &[k_rows, d], Role::Reader);
        self.add("k.weight", &[steps * k_rows, d], Role::Reader);
        self.add("v.weight", &[steps * v_rows, d], Role::Reader);
        self.add("b.weight", &[steps * heads, d], Role::Reader);
        if family.decay {
            self.add("a.weight", &[heads, d], Role::Reader);
        }
        if family.output_gate {
            self.add("g.weight", &[v_rows, d], Role::Reader);
        }
        if family.decay {
            self.add("A_log", &[heads], Role::ALog);
            self.add("dt_bias", &[heads], Role::DtBias);
        }
        if let Some(levels) = family.levels {
            self.add("l.weight", &[family.level_rows(), d], Role::Reader);
            self.add("L", &[heads, levels.into()], Role::LevelScale);
        }
        if family.short_conv {
            self.add("q_conv.weight", &[k_rows, CONV_WIDTH], Role::ConvWeight);
            self.add("k_conv.weight", &[steps * k_rows, CONV_WIDTH], Role::ConvWeight);
            self.add("v_conv.weight", &[steps * v_rows, CONV_WIDTH], Role::ConvWeight);
        }
        self.add("norm.weight", &[family.value_width.into()], Role::NormWeight);
        self.add("o.weight", &[d, v_rows], Role::Writer);
    }
}

/// Trainable parameters of `architecture`: the closed form of the sum over [`tensors`].
pub fn parameters(architecture: &Architecture) -> u64 {
    let d = u64::from(architecture.d_model());
    let table = u64::from(architecture.vocab()) * d;
    let head = if architecture.tied_embeddings() { 0 } else { table };
    // One layer stays inside u64 by the limits on widths; thousands of the widest would not.
    let layers = architecture
        .layers()
        .iter()
        .map(|layer| layer_parameters(d, layer))
        .fold(0, u64::saturating_add);
    let meta = u64::from(architecture.meta_tokens()) * d;
    (table + meta + d + head).saturating_add(layers)
}

fn layer_parameters(d: u64, layer: &Layer) -> u64 {
    let mixer = layer.mixer.map_or(0, |mixer| d + mixer_parameters(d, &mixer));
    let ffn = layer.ffn_width.map_or(0, |width| d + ffn_parameters(d, width.into()));
    mixer + ffn
}

/// Parameters of a SwiGLU of hidden width `f`, its pre-norm not included: 3·f·d.
pub fn ffn_parameters(d: u64, f: u64) -> u64 {
    3 * f * d
}

/// Parameters of a mixer at width `d`, its pre-norm not included.
pub fn mixer_parameters(d: u64, mixer: &Mixer) -> u64 {
    let phases = mixer.phases().map_or(0, |phases| phases.parameters(d));
    phases
        + match *mixer {
            // q, o: h·k·d; k, v: h_kv·k·d; the two norms: k
            Mixer::Attention(Attention { heads, kv_heads, head_width, qk_norm, .. }) => {
                let k = u64::from(head_width);
                2 * d * k * (u64::from(heads) + u64::from(kv_heads))
                    + if qk_norm { 2 * k } else { 0 }
            }
            // q: h·K·d; k: n·h·K·d; v: n·H·V·d, H value heads; their convolutions: 4 each; b: n·H·d; a: H·d;
            // g, o: H·V·d; A_log, dt_bias: H; norm: V; with levels λ: H·l·(d + 1)
            Mixer::DeltaNet(_) | Mixer::GatedDeltaNet(_) | Mixer::DeltaProduct(_) => {
                let family = mixer.delta().expect("a member of the family");
                let (n, h) = (u64::from(family.steps), u64::from(family.value_heads));
                let taps = if family.short_conv { CONV_WIDTH } else { 0 };
                let decay = if family.decay { h * (d + 2) } else { 0 };
                let outputs = if family.output_gate { 2 } else { 1 };
                family.channels() * (d + taps)
                    + n * h * d
                    + decay
                    + family.level_rows() * (d + 1)
                    + outputs * family.value_rows() * d
                    + u64::from(family.value_width)
            }
            // I = h·P. in: (2I + 2N + h)·d; conv: (I + 2N)·5; A_log, dt_bias, D: h; norm: I; out: d·I; with levels λ:
            // h·l·(d + 1)
            Mixer::Mamba2(m @ Mamba2 { heads, head_width, state_width, .. }) => {
                let (h, n) = (u64::from(heads), u64::from(state_width));
                let inner = h * u64::from(head_width);
                (2 * inner + 2 * n + h) * d
                    + (inner + 2 * n) * (CONV_WIDTH + 1)
                    + 3 * h
                    + inner
                    + d * inner
                    + m.level_rows() * (d + 1)
            }
        }
}
