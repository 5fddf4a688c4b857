//! Which stacks fit an architecture of llama.cpp: what the type of transformers that its converter reads holds, and a little
//! less.

use super::common::experts;
use super::obstacle::Obstacle;
use super::shapes::{attention_of, first, gated_delta_of, mamba2_of};
use super::transformers;
use crate::architecture::{Architecture, Mixer};

/// The name of an architecture of llama.cpp, and what of a stack it cannot hold.
type Rule = (&'static str, fn(&Architecture) -> Vec<Obstacle>);

const ALL: [Rule; 6] = [
    ("llama", transformers::llama),
    ("qwen3", |stack| both(transformers::qwen3(stack), windows(stack))),
    ("lfm2", transformers::lfm2),
    ("mamba2", transformers::mamba2),
    ("granitehybrid", |stack| both(transformers::granitemoehybrid(stack), twice(stack))),
    ("qwen35", |stack| both(transformers::qwen3_5_text(stack), square(stack))),
];

/// The architecture of llama.cpp that holds a stack.
///
/// # Errors
/// Where none does, the obstacles of the one with the fewest.
pub fn llama_cpp_architecture(stack: &Architecture) -> Result<&'static str, Vec<Obstacle>> {
    let of_each = ALL.map(|(name, rule)| (name, rule(stack)));
    let (name, mut least) =
        of_each.into_iter().min_by_key(|(_, found)| found.len()).expect("there are architectures");
    if least.is_empty() {
        return Ok(name);
    }
    for obstacle in &mut least {
        obstacle.what = format!("{} (llama.cpp's {name} is the closest)", obstacle.what);
    }
    Err(least)
}

fn both(mut these: Vec<Obstacle>, those: Vec<Obstacle>) -> Vec<Obstacle> {
    these.extend(those);
    these
}

fn windows(stack: &Architecture) -> Vec<Obstacle> {
    let what = "a window, which llama.cpp's qwen3 ignores";
    let has = |mixer: &Mixer| attention_of(mixer).is_some_and(|of| of.window.is_some());
    let found = Obstacle::of_layers(stack, what, Some("full attention"), |layer| {
        layer.mixer.as_ref().is_some_and(has)
    });
    found.into_iter().collect()
}

fn twice(stack: &Architecture) -> Vec<Obstacle> {
    let d = stack.d_model();
    let what = "Mamba2 that is not twice as wide as the model, which llama.cpp wants";
    let is_other =
        |mixer: &Mixer| mamba2_of(mixer).is_some_and(|of| of.heads * of.head_width != 2 * d);
    let mut found: Vec<Obstacle> =
        Obstacle::of_layers(stack, what, Some("heads = \"auto\""), |layer| {
            layer.mixer.as_ref().is_some_and(is_other)
        })
        .into_iter()
        .collect();
    found.extend(experts(stack, "export"));
    if first(stack, mamba2_of).is_none() {
        found.push(Obstacle::of_model("no Mamba2, of which granitehybrid wants a layer", None));
    }
    found
}

fn square(stack: &Architecture) -> Vec<Obstacle> {
    let what = "values that are not as wide as keys, which llama.cpp wants";
    let is_other =
        |mixer: &Mixer| gated_delta_of(mixer).is_some_and(|of| of.key_width != of.value_width);
    let found = Obstacle::of_layers(stack, what, Some("value_width = key_width"), |layer| {
        layer.mixer.as_ref().is_some_and(is_other)
    });
    let mut found: Vec<Obstacle> = found.into_iter().collect();
    if first(stack, gated_delta_of).is_none() {
        found.push(Obstacle::of_model("no Gated DeltaNet, of which qwen35 wants a layer", None));
    }
    found
}
