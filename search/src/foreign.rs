//! The names that other libraries give to the tensors of a mixer, so that weights go both ways: into the goldens that
//! prove a mixer equal to theirs, and out of a checkpoint into their models.

use crate::architecture::Mixer;
use crate::tensors::{TensorSpec, mixer_tensors};

/// A library whose layers a mixer is equal to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Library {
    /// Hugging Face transformers: Llama and Qwen3 attention, OLMo-hybrid Gated DeltaNet, Mamba2, LFM2's
    /// gated short convolution, Kimi Delta Attention, Falcon-H1's attention beside Mamba2.
    Transformers,
    /// flash-linear-attention, and the papers' own code built on it: log-linear attention, Selective RoPE.
    Fla,
}

/// Where a tensor of ours stands in a library's tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Our tensor, its name as it is after `layers.{i}.mixer.`.
    pub ours: TensorSpec,
    /// Their tensor, its name as it is inside their mixer. Theirs may have dimensions of 1 that ours has not.
    pub theirs: String,
    /// The row of theirs in which ours begins.
    pub first_row: u64,
}

/// The place of every tensor of `mixer` at width `d`. Together they fill the library's tensors.
pub fn places(library: Library, d: u64, mixer: &Mixer) -> Vec<Place> {
    if let Mixer::Parallel(of) = mixer {
        // two layers of theirs, of which only the norms are not a mixer's
        let below = |name: &str, own: Mixer| {
            let place = |mut place: Place| {
                place.ours.name = format!("{name}.{}", place.ours.name);
                place.theirs = format!("{name}.{}", place.theirs);
                place
            };
            places(library, d, &own).into_iter().map(place).collect::<Vec<_>>()
        };
        let norms = mixer_tensors(d, mixer).into_iter().filter(|own| own.name.contains("_norm."));
        let norms = norms.filter(|own| own.name.matches('.').count() == 1);
        return below("attention", of.attention().into())
            .into_iter()
            .chain(below("beside", of.side().into()))
            .chain(norms.map(|own| Place { theirs: own.name.clone(), ours: own, first_row: 0 }))
            .collect();
    }
    let mut fused_rows = 0;
    mixer_tensors(d, mixer)
        .into_iter()
        .map(|ours| {
            let mut first_row = 0;
            let theirs = match (ours.name.as_str(), library) {
                ("f_a.weight" | "f_b.weight", _) => {
                    format!("forget_gate.{}", ours.name.replace('.', "_proj."))
                }
                ("A_log" | "dt_bias", _) if matches!(mixer, Mixer::Kda(_)) => {
                    format!("forget_gate.{}", ours.name)
                }
                ("norm.weight", _) => {
                    if matches!(mixer, Mixer::Mamba2(_)) { "norm.weight" } else { "o_norm.weight" }
                        .to_owned()
                }
                // one convolution over q, k and v, in this order
                ("q_conv.weight" | "k_conv.weight" | "v_conv.weight", Library::Transformers) => {
                    first_row = fused_rows;
                    fused_rows += ours.shape[0];
                    "conv1d.weight".to_owned()
                }
                ("q_norm.weight" | "k_norm.weight", _) => ours.name.clone(),
                ("conv.weight", _) if matches!(mixer, Mixer::GatedConv(_)) => ours.name.clone(),
                ("phi_down.weight", _) => "rotary.phi_proj.0.weight".to_owned(),
                ("phi_up.weight", _) => "rotary.phi_proj.1.weight".to_owned(),
                ("phi_full.weight", _) => "rotary.phi_proj.weight".to_owned(),
                ("phi_scale", _) => "rotary.phi_proj.scalar".to_owned(),
                ("phi_conv.weight", _) => "rotary.phi_conv1d.weight".to_owned(),
                ("phi_bias", _) => "rotary.phi_bias".to_owned(),
                ("phi_temperature", _) => "rotary.temperature".to_owned(),
                ("phi_gate.weight", _) => "rotary.phase_gate_proj.weight".to_owned(),
                ("phi_gate_bias", _) => "rotary.phase_gate_proj.bias".to_owned(),
                (name, _) => match name.rsplit_once('.') {
                    Some((module, tensor)) if module.ends_with("conv") => {
                        format!("{module}1d.{tensor}")
                    }
                    Some((module, tensor)) => format!("{module}_proj.{tensor}"),
                    None => name.to_owned(),
                },
            };
            Place { ours, theirs, first_row }
        })
        .collect()
}

/// The name of one of our tensors in the modelling file that an export for `transformers` brings along: inside `model`,
/// with Selective RoPE as a module of its mixer.
pub fn in_our_modelling_file(name: &str) -> String {
    match name {
        "head.weight" => name.to_owned(),
        "meta.weight" => "model.meta".to_owned(),
        _ => format!("model.{}", name.replace(".phi_", ".phi.")),
    }
}
