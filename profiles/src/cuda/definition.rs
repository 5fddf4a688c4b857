//! What a decode step computes, in f64 and plain loops: the families' definitions put together to a model.
//!
//! Rounded where the GPU's contract says so, and nowhere else: keys and values are bf16, matrices too unless they are kept in
//! 8 bits. With
//! [`Definition::in_bf16`] what passes from one operation to the next is bf16 as well: how far that lies from the
//! definition is what a good implementation in bf16 may be off by.

mod attention;
mod delta;
mod gated_conv;
mod kda;
mod levels;
mod mamba2;
mod parallel;
mod phases;
mod token;
mod weights;

use kernels::cuda::decode::Storage;
use kernels::moe::{Chosen, route_definition};
use kernels::norm::{RMS_EPS, rms_norm_definition};
use kernels::{relu2, swiglu};
use search::Architecture;
use search::architecture::{Experts, Ffn, FfnKind, Mixer};

use self::token::Token;
use self::weights::{Keep, bf16, exact, product, wide};
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
    ffn: Option<(Vec<f64>, Network)>,
    /// Whether the norms stand behind mixer and FFN.
    after: bool,
}

/// An FFN by its matrices, `[out, in]`.
#[derive(Debug)]
enum Network {
    Swiglu([Vec<f32>; 3]),
    Relu2([Vec<f32>; 2]),
    Moe(Mixture),
}

/// A mixture of experts: tensors of all of them, `[E, out, in]`, and the shared one.
#[derive(Debug)]
struct Mixture {
    of: Experts,
    router: Vec<f32>,
    experts: [Vec<f32>; 3],
    shared: Option<[Vec<f32>; 3]>,
}

impl Mixture {
    fn new(of: Experts, width: usize, d: usize, (storage, load): (Storage, Load)) -> Self {
        let experts = of.experts as usize;
        let shared = width * of.shared as usize;
        let router = storage.kept(load("router.weight", experts * d), d);
        let mut matrices = |prefix: &str, count: usize, width: usize| {
            [("gate", d), ("up", d), ("down", width)].map(|(name, columns)| {
                storage.kept(load(&format!("{prefix}{name}.weight"), count * width * d), columns)
            })
        };
        Self {
            of,
            router,
            experts: matrices("", experts, width),
            shared: (shared > 0).then(|| matrices("shared.", 1, shared)),
        }
    }

    fn of(&self, u: &[f64], keep: Keep) -> Vec<f64> {
        let mut sum = vec![0.0; u.len()];
        let logits = product(&self.router, u);
        for Chosen { expert, weight } in route_definition(&logits, self.of.per_token as usize) {
            let own = self.experts.each_ref().map(|all| {
                let size = all.len() / self.of.experts as usize;
                &all[expert * size..][..size]
            });
            let y = keep(swiglu(own, u, keep).iter().map(|y| weight * y).collect());
            add(&mut sum, &y);
        }
        if let Some(shared) = &self.shared {
            add(&mut sum, &keep(swiglu(shared.each_ref().map(Vec::as_slice), u, keep)));
        }
        sum
    }
}

/// down(SiLU(gate u) ⊙ up u)
fn swiglu([gate, up, down]: [&[f32]; 3], u: &[f64], keep: Keep) -> Vec<f64> {
    let [gate, up] = [gate, up].map(|matrix| keep(product(matrix, u)));
    product(down, &keep(swiglu::definition(&gate, &up)))
}

impl Network {
    fn new(ffn: Ffn, d: usize, (storage, load): (Storage, Load)) -> Self {
        let width = ffn.width as usize;
        let matrix = |(name, columns): (&str, usize)| {
            storage.kept(load(&format!("{name}.weight"), width * d), columns)
        };
        match ffn.kind {
            FfnKind::SwiGlu => Self::Swiglu([("gate", d), ("up", d), ("down", width)].map(matrix)),
            FfnKind::Relu2 => Self::Relu2([("up", d), ("down", width)].map(matrix)),
            FfnKind::Moe(of) => Self::Moe(Mixture::new(of, width, d, (storage, load))),
        }
    }

    fn of(&self, u: &[f64], keep: Keep) -> Vec<f64> {
        match self {
            Self::Swiglu(matrices) => swiglu(matrices.each_ref().map(Vec::as_slice), u, keep),
            Self::Moe(mixture) => mixture.of(u, keep),
            Self::Relu2([up, down]) => {
                product(down, &keep(relu2::definition(&keep(product(up, u)))))
            }
        }
    }
}

/// h += f(norm(h)), or h += norm(f(h)).
fn half(
    h: &mut Vec<f64>,
    (norm, after): (&[f64], bool),
    keep: Keep,
    f: impl FnOnce(&[f64]) -> Vec<f64>,
) {
    let y = if after {
        rms_norm_definition(&keep(f(h)), norm, RMS_EPS)
    } else {
        f(&keep(rms_norm_definition(h, norm, RMS_EPS)))
    };
    add(h, &y);
    *h = keep(std::mem::take(h));
}

fn add(h: &mut [f64], y: &[f64]) {
    h.iter_mut().zip(y).for_each(|(h, y)| *h += y);
}

impl Definition {
    /// Takes the weights by name and size, as [`super::stream::Decoder::new`] does.
    pub fn new(architecture: &Architecture, load: Load) -> Self {
        Self::with_storage(architecture, Storage::Bf16, load)
    }

    /// The same with matrices kept as `storage`.
    pub fn with_storage(architecture: &Architecture, storage: Storage, load: Load) -> Self {
        let (d, vocabulary) = (architecture.d_model() as usize, architecture.vocab() as usize);
        let embedding = storage.kept(load("embedding.weight", vocabulary * d), d);
        let head = (!architecture.tied_embeddings())
            .then(|| storage.kept(load("head.weight", vocabulary * d), d));
        let layers = architecture.layers().iter().enumerate();
        let layers = layers
            .map(|(i, layer)| Layer {
                mixer: layer.mixer.as_ref().map(|shape| {
                    let norm = wide(&load(&format!("layers.{i}.mixer_norm.weight"), d));
                    let here = &mut |name: &str, count: usize| {
                        load(&format!("layers.{i}.mixer.{name}"), count)
                    };
                    (norm, mixer(shape, d, (storage, here)))
                }),
                ffn: layer.ffn.map(|ffn| {
                    let norm = wide(&load(&format!("layers.{i}.ffn_norm.weight"), d));
                    let here = &mut |name: &str, count: usize| {
                        load(&format!("layers.{i}.ffn.{name}"), count)
                    };
                    (norm, Network::new(ffn, d, (storage, here)))
                }),
                after: layer.norms_after(),
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
            let position = self.position;
            if let Some((norm, mixer)) = &mut layer.mixer {
                let norm = (norm.as_slice(), layer.after);
                half(&mut h, norm, keep, |u| mixer.step(u, position, keep));
            }
            if let Some((norm, ffn)) = &layer.ffn {
                half(&mut h, (norm, layer.after), keep, |u| ffn.of(u, keep));
            }
        }
        self.position += 1;
        product(
            self.head.as_ref().unwrap_or(&self.embedding),
            &keep(rms_norm_definition(&h, &self.final_norm, RMS_EPS)),
        )
    }
}

fn mixer(mixer: &Mixer, d: usize, weights: (Storage, Load)) -> Box<dyn Token> {
    match mixer {
        Mixer::Attention(shape) => {
            Box::new(attention::Token::new(shape, mixer.phases(), d, weights))
        }
        Mixer::Delta(shape) => Box::new(delta::Token::new(shape, mixer.phases(), d, weights)),
        Mixer::Mamba2(shape) => Box::new(mamba2::Token::new(shape, d, weights)),
        Mixer::Kda(shape) => Box::new(kda::Token::new(shape, d, weights)),
        Mixer::Parallel(shape) => Box::new(parallel::Token::new(shape, d, weights, self::mixer)),
        Mixer::GatedConv(shape) => Box::new(gated_conv::Token::new(*shape, d, weights)),
    }
}
