//! Exports: what a campaign found, in the forms that other software reads.
//!
//! A target is one value of [`TARGETS`]; help, `export --check` and the guide (docs/exports.md) read that table. A target
//! that is a text is a function of the [`StackFile`]. One that is a folder is a [`Dialect`]: it says what of a stack it cannot
//! hold, and gives files and tensors; which values they have is [`Weights`]' affair. A whole campaign is a [`table`] of its
//! candidates.

mod bytes_tokenizer;
mod dialect;
mod fla;
mod folder;
pub(crate) mod gguf;
mod hf;
pub(crate) mod schema;
mod stack_file;
pub(crate) mod table;
mod theirs;
mod transformers;
mod verdict;
mod weights;

pub(crate) use dialect::{Dialect, fill};
pub(crate) use folder::{Folder, Tokens};
pub(crate) use stack_file::{
    FORMAT, Latency, Provenance, StackFile, TextForm, Training, Worker, looks_like_a_file, read,
    read_with_conditions,
};
pub(crate) use table::TableForm;
pub(crate) use verdict::Obstacle;
pub(crate) use weights::{Element, Weights};

/// A form that other software reads.
pub(crate) struct Target {
    /// The word after `--to`.
    pub(crate) name: &'static str,
    /// What it is for, in half a line.
    pub(crate) about: &'static str,
    /// What is written.
    pub(crate) form: Form,
}

/// What an export writes.
#[derive(Clone, Copy)]
pub(crate) enum Form {
    /// One text of a stack and what is known of it.
    Text(TextForm),
    /// A folder with weights.
    Folder(&'static dyn Dialect),
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
    },
    Target { name: "toml", about: "the same in TOML", form: Form::Text(TextForm::Toml) },
    Target {
        name: "hf",
        about: "a folder for transformers, any stack: modelling file in PyTorch, weights, tokenizer, train.py",
        form: Form::Folder(&hf::Hf),
    },
    built_in("llama", "transformers' own type: full attention", &transformers::LLAMA),
    built_in("ministral", "the same with windows", &transformers::MINISTRAL),
    built_in("qwen3", "the same with windows and norms of q and k", &transformers::QWEN3),
    built_in("qwen3_5_text", "Gated DeltaNet, full attention", &transformers::Qwen35),
    built_in(
        "olmo_hybrid",
        "Gated DeltaNet, attention with norms after it",
        &transformers::OlmoHybrid,
    ),
    built_in("granitemoehybrid", "Mamba2, full attention", &transformers::GraniteMoeHybrid),
    built_in("mamba2", "Mamba2 without FFNs", &transformers::Mamba2),
    built_in(
        "nemotron_h",
        "Mamba2, attention without positions, relu² FFNs",
        &transformers::NemotronH,
    ),
    built_in("lfm2", "gated short convolutions, full attention", &transformers::Lfm2),
    Target {
        name: "fla",
        about: "flash-linear-attention: DeltaNet, Gated DeltaNet or DeltaProduct, attention of any shapes",
        form: Form::Folder(&fla::Fla),
    },
    Target {
        name: "gguf",
        about: "a file for llama.cpp: its llama, qwen3, lfm2, mamba2, granitehybrid, qwen35",
        form: Form::Gguf,
    },
    Target {
        name: "csv",
        about: "the whole campaign: a row for each candidate, values with errors",
        form: Form::Table(TableForm::Csv),
    },
    Target {
        name: "jsonl",
        about: "the same, an object a line, with layers and curves",
        form: Form::Table(TableForm::Jsonl),
    },
    Target {
        name: "optuna",
        about: "the whole campaign as an SQLite study; optuna-dashboard shows its Pareto plot",
        form: Form::Table(TableForm::Optuna),
    },
];

/// A type that transformers has built in.
const fn built_in(
    name: &'static str,
    about: &'static str,
    dialect: &'static dyn Dialect,
) -> Target {
    Target { name, about, form: Form::Folder(dialect) }
}

impl Form {
    /// What of `stack` it cannot hold; none of a form that is no stack's.
    pub(crate) fn obstacles(self, stack: &search::Architecture) -> Option<Vec<Obstacle>> {
        match self {
            Self::Text(_) => Some(Vec::new()),
            Self::Folder(dialect) => Some(dialect.obstacles(stack)),
            Self::Gguf => Some(gguf::obstacles(stack)),
            Self::Table(_) => None,
        }
    }

    /// Whether its models can divide logits by the norms of the head's rows.
    pub(crate) fn divides_logits(self) -> bool {
        matches!(self, Self::Folder(dialect) if dialect.divides_logits())
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
