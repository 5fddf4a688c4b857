//! What a decode step computes, in f64 and plain loops: the families' definitions put together to a model.
//!
//! Rounded where the GPU's contract says so, and nowhere else: matrices, keys and values are bf16. With
//! [`Definition::in_bf16`] what passes from one operation to the next is bf16 as well: how far that lies from the
//! definition is what a good implementation in bf16 may be off by.

mod attention;
mod delta;
mod gated_conv;
mod mamba2;
mod token;
mod weights;

use kernels::norm::{RMS_EPS, rms_norm_definition};
use kernels::swiglu;
use search::Architecture;
use search::architecture::Mixer;

use self::token::Token;
use self::weights::{Keep, bf16, exact, product, rounded, wide};
use super::shapes::Load;

/// A model with its weights and its past.
#[derive(Debug)]
pub struct Definition {
    d_model: usize,
    embedding: Vec<f32>,
    head: Option<Vec<f32>>,
    final_norm: Vec<f64>,
    layers: Vec<Layer>,
    position: usize,
    keep: Keep,
}

#[derive(Debug)]
struct Layer {
    mixer: Option<(Vec<f64>, Box<dyn Token>)>, // with its norm
    ffn: Option<(Vec<f64>, [Vec<f32>; 3])>,
}

fn add(h: &mut [f64], y: &[f64]) {
    h.iter_mut().zip(y).for_each(|(h, y)| *h += y);
}

impl Definition {
    /// Takes the weights by name and size, as [`super::stream::Decoder::new`] does.
    pub fn new(architecture: &Architecture, load: Load) -> Self {
        let (d, vocabulary) = (architecture.d_model() as usize, architecture.vocab() as usize);
        let embedding = rounded(load("embedding.weight", vocabulary * d));
        let head =
            (!architecture.tied_embeddings()).then(|| rounded(load("head.weight", vocabulary * d)));
        let layers = architecture.layers().iter().enumerate();
        let layers = layers
            .map(|(i, layer)| Layer {
                mixer: layer.mixer.as_ref().map(|shape| {
                    let norm = wide(&load(&format!("layers.{i}.mixer_norm.weight"), d));
                    let here = &mut |name: &str, count: usize| {
                        load(&format!("layers.{i}.mixer.{name}"), count)
                    };
                    (norm, mixer(shape, d, here))
                }),
                ffn: layer.ffn.map(|ffn| {
                    let norm = wide(&load(&format!("layers.{i}.ffn_norm.weight"), d));
                    let count = ffn.width as usize * d;
                    let matrix =
                        |name: &str| rounded(load(&format!("layers.{i}.ffn.{name}.weight"), count));
                    (norm, ["gate", "up", "down"].map(matrix))
                }),
            })
            .collect();
        let final_norm = wide(&load("final_norm.weight", d));
        Self { d_model: d, embedding, head, final_norm, layers, position: 0, keep: exact }
    }

    /// The same with activations and the residual stream in bf16.
    #[must_use]
    pub fn in_bf16(self) -> Self {
        Self { keep: bf16, ..self }
    }

    /// Logits after `token`, `[vocabulary]`.
    pub fn step(&mut self, token: u32) -> Vec<f64> {
        let (d, keep) = (self.d_model, self.keep);
        let mut h = wide(&self.embedding[token as usize * d..][..d]);
        for layer in &mut self.layers {
            if let Some((norm, mixer)) = &mut layer.mixer {
                let u = keep(rms_norm_definition(&h, norm, RMS_EPS));
                add(&mut h, &mixer.step(&u, self.position, keep));
                h = keep(h);
            }
            if let Some((norm, [gate, up, down])) = &layer.ffn {
                let u = keep(rms_norm_definition(&h, norm, RMS_EPS));
                let [gate, up] = [gate, up].map(|matrix| keep(product(matrix, &u)));
                add(&mut h, &product(down, &keep(swiglu::definition(&gate, &up))));
                h = keep(h);
            }
        }
        self.position += 1;
        product(
            self.head.as_ref().unwrap_or(&self.embedding),
            &keep(rms_norm_definition(&h, &self.final_norm, RMS_EPS)),
        )
    }
}

fn mixer(mixer: &Mixer, d: usize, load: Load) -> Box<dyn Token> {
    match mixer {
        Mixer::Attention(shape) => Box::new(attention::Token::new(shape, d, load)),
        Mixer::Delta(shape) => Box::new(delta::Token::new(shape, d, load)),
        Mixer::Mamba2(shape) => Box::new(mamba2::Token::new(shape, d, load)),
        Mixer::Kda(_) | Mixer::Parallel(_) => unreachable!("no kernel is compared with it"),
        Mixer::GatedConv(shape) => Box::new(gated_conv::Token::new(*shape, d, load)),
    }
}
