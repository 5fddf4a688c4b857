//! A folder for transformers that needs none of its built-in types: `trust_remote_code` loads a modelling file of our own,
//! put together from the parts that the stack uses.

use search::Architecture;
use search::architecture::Mixer;
use search::foreign;
use search::tensors::tensors;
use serde_json::{Value, json};

use super::dialect::{Dialect, Logits};
use super::folder::{Folder, Tokens};
use super::theirs::Theirs;

/// Any stack.
pub(crate) struct Hf;

const BEGIN: &str = include_str!("hf/modeling/begin.py");
const SHORT_CONV: &str = include_str!("hf/modeling/short_conv.py");
const SELECTIVE_ROPE: &str = include_str!("hf/modeling/selective_rope.py");
const ATTENTION: &str = include_str!("hf/modeling/attention.py");
const CHUNKS: &str = include_str!("hf/modeling/chunks.py");
const LOG_LINEAR: &str = include_str!("hf/modeling/log_linear.py");
const DELTA: &str = include_str!("hf/modeling/delta.py");
const MAMBA2: &str = include_str!("hf/modeling/mamba2.py");
const KDA: &str = include_str!("hf/modeling/kda.py");
const GATED_CONV: &str = include_str!("hf/modeling/gated_conv.py");
const MOE: &str = include_str!("hf/modeling/moe.py");
const END: &str = include_str!("hf/modeling/end.py");
const TRAIN: &str = include_str!("hf/train.py");
/// How the model of symbols says something, …
const SYMBOLS: &str = "print(model.generate(torch.tensor([[1, 2, 3]]), max_new_tokens=64))";
/// … and one of text.
const TEXTS: &str = r#"tokenizer = AutoTokenizer.from_pretrained(".", trust_remote_code=True)
inputs = tokenizer(["My fellow", "The"], padding=True, return_tensors="pt", return_token_type_ids=False)
print(tokenizer.batch_decode(model.generate(**inputs, max_new_tokens=64), skip_special_tokens=True))"#;
const README: &str = include_str!("hf/README.md");

/// The part of a mixer's family.
fn part(mixer: &Mixer) -> &'static str {
    match mixer {
        Mixer::Attention(_) => ATTENTION,
        Mixer::Delta(_) => DELTA,
        Mixer::Mamba2(_) => MAMBA2,
        Mixer::Kda(_) => KDA,
        Mixer::GatedConv(_) => GATED_CONV,
    }
}

/// The modelling file of `stack`: what its mixers are made of, and nothing else.
fn modelling_file(stack: &Architecture) -> String {
    let mixers: Vec<&Mixer> =
        stack.layers().iter().filter_map(|layer| layer.mixer.as_ref()).collect();
    let has = |family: &str| mixers.iter().any(|mixer| part(mixer) == family);
    let selective_rope = mixers.iter().any(|mixer| mixer.phases().is_some());
    let log_linear = mixers.iter().any(|mixer| mixer.levels().is_some());
    let in_chunks = has(DELTA) || has(MAMBA2) || has(KDA);
    let mut ffns = stack.layers().iter().filter_map(|layer| layer.ffn);
    let mut parts = vec![BEGIN];
    parts.extend(ffns.any(|ffn| ffn.kind.experts().is_some()).then_some(MOE));
    parts.extend((in_chunks || has(GATED_CONV) || selective_rope).then_some(SHORT_CONV));
    parts.extend(selective_rope.then_some(SELECTIVE_ROPE));
    parts.extend(in_chunks.then_some(CHUNKS));
    parts.extend(log_linear.then_some(LOG_LINEAR));
    parts.extend([ATTENTION, DELTA, MAMBA2, KDA, GATED_CONV].into_iter().filter(|of| has(of)));
    parts.push(END);
    parts.iter().map(|part| part.trim()).collect::<Vec<_>>().join("\n\n\n") + "\n"
}

impl Dialect for Hf {
    fn config(&self, folder: &Folder) -> Value {
        let stack = folder.weights.stack();
        json!({
            "architectures": ["DeltafrontForCausalLM"],
            "model_type": "deltafront",
            "auto_map": {
                "AutoConfig": "modeling_deltafront.DeltafrontConfig",
                "AutoModel": "modeling_deltafront.DeltafrontModel",
                "AutoModelForCausalLM": "modeling_deltafront.DeltafrontForCausalLM",
            },
            "dtype": folder.element.torch_name(),
            "vocab_size": stack.vocab(),
            "hidden_size": stack.d_model(),
            "layers": stack.layers(),
            "meta_tokens": stack.meta_tokens(),
            "tie_word_embeddings": stack.tied_embeddings(),
            "logits_divided_by_head_norms": folder.weights.divided_logits,
            "deltafront": { "text": stack.to_string(), "id": stack.id() },
        })
    }

    fn tensors(&self, stack: &Architecture) -> Vec<Theirs> {
        let theirs = |spec: search::tensors::TensorSpec| {
            Theirs::rows(foreign::in_our_modelling_file(&spec.name), &spec.shape, &[&spec.name])
        };
        tensors(stack).into_iter().map(theirs).collect()
    }

    fn logits(&self) -> Logits {
        Logits::AsTrained
    }

    fn files(&self, folder: &Folder) -> Vec<(String, String)> {
        let stack = folder.weights.stack();
        let training = json!({
            "seed": folder.seed,
            "rule": search::config::TRAINING_RULE,
            "training": folder.training,
            "validation_fraction": folder.validation_fraction,
        });
        let state = if folder.weights.are_trained() {
            "The weights are those of the trained proxy."
        } else {
            "The weights are random: those that the training rule begins with."
        };
        let prompt = match folder.tokens {
            Tokens::Symbols => SYMBOLS,
            _ => TEXTS,
        };
        let readme = README
            .replace("{text}", &stack.to_string())
            .replace("{id}", stack.id().as_str())
            .replace("{state}", state)
            .replace("{dtype}", folder.element.torch_name())
            .replace("{prompt}", prompt);
        vec![
            ("modeling_deltafront.py".to_owned(), modelling_file(stack)),
            ("train.py".to_owned(), TRAIN.to_owned()),
            ("training.json".to_owned(), format!("{training:#}\n")),
            ("README.md".to_owned(), readme),
        ]
    }
}
