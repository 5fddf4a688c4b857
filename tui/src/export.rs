//! Exports: what a campaign found, in the forms that other software reads.
//!
//! A target is one value of [`TARGETS`]; help, `export --check` and the guide (docs/exports.md) read that table. A target
//! that is a text is a function of the [`StackFile`], one without weights a function of the stack. One that is a folder with
//! weights is a [`Dialect`]: it gives files and tensors; which values they have is [`Weights`]' affair. Which stacks a target
//! holds is said by a rule in [`search::targets`]. A whole campaign is a [`table`] of its candidates.

mod bytes_tokenizer;
mod dialect;
mod fla;
mod folder;
pub(crate) mod gguf;
mod hf;
mod lm_engine;
mod megatron;
mod nemotron_flash;
pub(crate) mod returned;
pub(crate) mod schema;
mod sglang;
mod stack_file;
pub(crate) mod table;
mod theirs;
mod transformers;
mod weights;
mod yaml;

pub(crate) use dialect::{Dialect, Logits, fill};
pub(crate) use folder::{Folder, Tokens};
pub(crate) use stack_file::{
    FORMAT, Latency, Provenance, StackFile, TextForm, Training, Worker, is_checkpoint,
    looks_like_a_file, read, read_with_conditions,
};
pub(crate) use table::TableForm;
pub(crate) use weights::{Element, Weights};

use search::targets::{Obstacle, Target as Rule};

/// A form that other software reads.
pub(crate) struct Target {
    /// The word after `--to`.
    pub(crate) name: &'static str,
    /// What it is for, in half a line.
    pub(crate) about: &'static str,
    /// What is written.
    pub(crate) form: Form,
    /// The rule by which a stack fits it; none: it takes any.
    pub(crate) rule: Option<Rule>,
}

/// The files of a description, by name.
pub(crate) type Files = fn(&search::Architecture) -> Vec<(String, String)>;

/// What an export writes.
#[derive(Clone, Copy)]
pub(crate) enum Form {
    /// One text of a stack and what is known of it.
    Text(TextForm),
    /// A folder with weights.
    Folder(&'static dyn Dialect),
    /// A folder without weights: files by name.
    Description(Files),
    /// One file with weights, of llama.cpp.
    Gguf,
    /// A table of a whole campaign.
    Table(TableForm),
}

/// Every target, in the order in which help and checks list them.
pub(crate) const TARGETS: &[Target] = &[
    Target {
        name: "json",
        about: "the stack layer by layer and what is known of it; `deltafront schema stack`",
        form: Form::Text(TextForm::Json),
        rule: None,
    },
    Target {
        name: "toml",
        about: "the same in TOML",
        form: Form::Text(TextForm::Toml),
        rule: None,
    },
    Target {
        name: "hf",
        about: "a folder for transformers, any stack: modelling file in PyTorch, weights, tokenizer, train.py",
        form: Form::Folder(&hf::Hf),
        rule: None,
    },
    built_in(Rule::Llama, "transformers' own type: full attention", &transformers::LLAMA),
    built_in(Rule::Ministral, "the same with windows", &transformers::MINISTRAL),
    built_in(Rule::Qwen3, "the same with windows and norms of q and k", &transformers::QWEN3),
    built_in(Rule::Qwen35Text, "Gated DeltaNet, full attention", &transformers::Qwen35),
    built_in(
        Rule::OlmoHybrid,
        "Gated DeltaNet, attention with norms after it",
        &transformers::OlmoHybrid,
    ),
    built_in(Rule::GraniteMoeHybrid, "Mamba2, full attention", &transformers::GraniteMoeHybrid),
    built_in(Rule::Mamba2, "Mamba2 without FFNs", &transformers::Mamba2),
    built_in(
        Rule::NemotronH,
        "Mamba2, attention without positions, relu² FFNs",
        &transformers::NemotronH,
    ),
    built_in(Rule::Lfm2, "gated short convolutions, full attention", &transformers::Lfm2),
    built_in(
        Rule::NemotronFlash,
        "Nemotron-Flash's type: DeltaNet, Mamba2, full attention, FFNs, meta tokens",
        &nemotron_flash::NemotronFlash,
    ),
    Target {
        name: "fla",
        about: "flash-linear-attention: DeltaNet, Gated DeltaNet or DeltaProduct, attention of any shapes",
        form: Form::Folder(&fla::Fla),
        rule: Some(Rule::Fla),
    },
    Target {
        name: "gguf",
        about: "a file for llama.cpp: its llama, qwen3, lfm2, mamba2, granitehybrid, qwen35",
        form: Form::Gguf,
        rule: Some(Rule::Gguf),
    },
    Target {
        name: Rule::Sglang.name(),
        about: "a folder for SGLang: a plug-in that serves any mixers, weights",
        form: Form::Folder(&sglang::Sglang),
        rule: Some(Rule::Sglang),
    },
    Target {
        name: Rule::LmEngine.name(),
        about: "the trainer lm-engine: lists of mixers and FFNs with sizes of their own, and weights",
        form: Form::Folder(&lm_engine::LmEngine),
        rule: Some(Rule::LmEngine),
    },
    Target {
        name: Rule::Megatron.name(),
        about: "the trainer Megatron-core: pattern of its HybridModel, list of layer configs",
        form: Form::Description(megatron::files),
        rule: Some(Rule::Megatron),
    },
    Target {
        name: "csv",
        about: "the whole campaign: a row for each candidate, values with errors",
        form: Form::Table(TableForm::Csv),
        rule: None,
    },
    Target {
        name: "jsonl",
        about: "the same, an object a line, with layers and curves",
        form: Form::Table(TableForm::Jsonl),
        rule: None,
    },
    Target {
        name: "optuna",
        about: "the whole campaign as an SQLite study; optuna-dashboard shows its Pareto plot",
        form: Form::Table(TableForm::Optuna),
        rule: None,
    },
];

/// A type that transformers or its maker's code has.
const fn built_in(rule: Rule, about: &'static str, dialect: &'static dyn Dialect) -> Target {
    Target { name: rule.name(), about, form: Form::Folder(dialect), rule: Some(rule) }
}

impl Target {
    /// What of `stack` it cannot hold; none of a target that is no stack's.
    pub(crate) fn obstacles(&self, stack: &search::Architecture) -> Option<Vec<Obstacle>> {
        match self.form {
            Form::Table(_) => None,
            _ => Some(self.rule.map_or(Vec::new(), |rule| rule.obstacles(stack))),
        }
    }
}

impl Form {
    /// What its models do with logits.
    pub(crate) fn logits(self) -> Logits {
        match self {
            Self::Folder(dialect) => dialect.logits(),
            _ => Logits::Plain,
        }
    }
}

/// The target of a name.
pub(crate) fn target(name: &str) -> Result<&'static Target, String> {
    TARGETS.iter().find(|target| target.name == name).ok_or_else(|| {
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        format!("there is no such target; there are {}", names.join(", "))
    })
}

/// The table of targets, for help.
pub(crate) fn targets_text() -> String {
    let row = |target: &Target| format!("  {:<16} {}\n", target.name, target.about);
    TARGETS.iter().map(row).collect()
}
