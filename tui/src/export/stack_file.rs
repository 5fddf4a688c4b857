//! The file of a stack: its layers, what was measured of it and under which conditions; and how such a file is read back.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, bail};
use schemars::JsonSchema;
use search::Architecture;
use search::config::LatencyConfig;
use search::latency::Timing;
use search::subject::Assignment;
use search::wire::Value;
use serde::{Deserialize, Serialize};

/// Name and version of this form.
pub(crate) const FORMAT: &str = "deltafront-stack-1";

/// Form of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum TextForm {
    Json,
    Toml,
}

impl TextForm {
    /// The ending of its files.
    pub(crate) fn ending(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Toml => "toml",
        }
    }
}

/// A stack and what is known of it, as `deltafront export` writes it. The names in it are read by other software: they only
/// ever grow. Of a file written by hand `text` or `architecture` is enough.
#[derive(Clone, Serialize, JsonSchema)]
#[schemars(rename = "Stack")]
pub(crate) struct StackFile {
    /// Name and version of this form.
    pub(crate) format: &'static str,
    /// The canonical text of the architecture, which parses back to it.
    pub(crate) text: String,
    /// The identity of the architecture.
    pub(crate) id: String,
    /// The same layer by layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) architecture: Option<Architecture>,
    /// Of a black box.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<BTreeMap<String, serde_json::Value>>")]
    pub(crate) parameters: Option<Assignment>,
    /// Values by name; `mean` and, where it is known, `standard_error`.
    pub(crate) values: BTreeMap<String, Value>,
    /// Its latency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) latency: Option<Latency>,
    /// Its training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) training: Option<Training>,
    /// Where it is from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) provenance: Option<Provenance>,
}

/// How long it takes, and where that was measured.
#[derive(Clone, Serialize, JsonSchema)]
pub(crate) struct Latency {
    /// The device by name, as the profiler reported it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) device: Option<String>,
    /// What was timed.
    pub(crate) conditions: LatencyConfig,
    /// One token by the whole model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) decode_whole: Option<Timing>,
    /// A prompt by the whole model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) prefill_whole: Option<Timing>,
}

/// How its proxy was trained.
#[derive(Clone, Serialize, JsonSchema)]
pub(crate) struct Training {
    /// Tokens seen.
    pub(crate) tokens: u64,
    /// How long that took.
    pub(crate) seconds: f64,
    /// Of initialisation and data order.
    pub(crate) seed: u64,
    /// Where its weights lie.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) checkpoint: Option<String>,
}

/// Which campaign found it, when and with what.
#[derive(Clone, Serialize, JsonSchema)]
pub(crate) struct Provenance {
    /// The campaign's name.
    pub(crate) campaign: String,
    /// Its number there.
    pub(crate) candidate: u32,
    /// How it was proposed.
    pub(crate) origin: String,
    /// The name of the reference stack that it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reference: Option<String>,
    /// Rank of non-domination in the campaign when this was exported; 0: on the front.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rank: Option<u32>,
    /// The seed of the campaign's proposals.
    pub(crate) campaign_seed: u64,
    /// When the campaign was made.
    pub(crate) campaign_created_unix_s: i64,
    /// The version that wrote this.
    pub(crate) deltafront: &'static str,
    /// Who trained and timed.
    pub(crate) workers: Vec<Worker>,
    /// The campaign file.
    pub(crate) campaign_file: String,
}

/// A program that trained or timed.
#[derive(Clone, Serialize, JsonSchema)]
pub(crate) struct Worker {
    /// `trainer` or `profiler`.
    pub(crate) role: String,
    /// Name and version.
    #[serde(rename = "worker")]
    pub(crate) program: String,
    /// Where it computed.
    pub(crate) device: String,
}

impl StackFile {
    /// Of a stack of which nothing else is known.
    pub(crate) fn bare(stack: Architecture) -> Self {
        Self {
            format: FORMAT,
            text: stack.to_string(),
            id: stack.id().to_string(),
            architecture: Some(stack),
            parameters: None,
            values: BTreeMap::new(),
            latency: None,
            training: None,
            provenance: None,
        }
    }

    pub(crate) fn text(&self, form: TextForm) -> anyhow::Result<String> {
        Ok(match form {
            TextForm::Json => serde_json::to_string_pretty(self)? + "\n",
            TextForm::Toml => {
                toml::to_string_pretty(self).context("cannot write the config as TOML")?
            }
        })
    }
}

/// Whether a word on the command line or in a campaign file rather names a file than a stack.
pub(crate) fn looks_like_a_file(word: &str) -> bool {
    !word.contains('|')
}

/// Whether a path is one of a checkpoint, which says of which stack it is.
pub(crate) fn is_checkpoint(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "safetensors")
}

/// The stack that a word names: its text, or a file that holds it, as an export or by hand, in JSON or TOML or as the text
/// alone; the folder of an export; or a checkpoint.
pub(crate) fn read(word: &str) -> anyhow::Result<Architecture> {
    Ok(read_with_conditions(word)?.0)
}

/// The same, with the conditions of the campaign that it was exported from, where the file has them.
pub(crate) fn read_with_conditions(
    word: &str,
) -> anyhow::Result<(Architecture, Option<LatencyConfig>)> {
    let mut path = Path::new(word).to_owned();
    if path.is_dir() {
        path = ["stack.json", "config.json"]
            .map(|name| path.join(name))
            .into_iter()
            .find(|file| file.exists())
            .with_context(|| {
                format!(
                    "{word} holds neither stack.json nor config.json; name the folder of an export"
                )
            })?;
    }
    if is_checkpoint(&path) {
        return Ok((super::Weights::trained(&path)?.stack().clone(), None));
    }
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(_) if !looks_like_a_file(word) => {
            let stack = word.parse().with_context(|| format!("`{word}` does not name a stack"))?;
            return Ok((stack, None));
        }
        Err(error) => bail!(
            "`{word}` is no text of a stack (such as `d=128,vocab=256 | 2*gdn(h=3,k=32,v=64)+ffn(384)`), and it cannot be \
             read as a file: {error}; a candidate is named by its campaign and its number"
        ),
    };
    of_text(&text).with_context(|| format!("`{}` does not name a stack", path.display()))
}

/// What of a stack file says which stack it is.
#[derive(Deserialize)]
struct Named {
    format: Option<String>,
    text: Option<String>,
    id: Option<String>,
    architecture: Option<Architecture>,
    latency: Option<Timed>,
    /// Of config.json of our own modelling file, which holds this form under its name.
    deltafront: Option<Box<Named>>,
}

/// Under which conditions it was timed.
#[derive(Deserialize)]
struct Timed {
    conditions: Option<LatencyConfig>,
}

/// The stack in the text of a file, and the conditions that it was timed under.
fn of_text(text: &str) -> anyhow::Result<(Architecture, Option<LatencyConfig>)> {
    let text = text.trim_start_matches('\u{feff}').trim();
    let named: Named = if text.starts_with('{') {
        let value: serde_json::Value = serde_json::from_str(text).context("it is no JSON")?;
        if value.get("d_model").is_some() {
            // the architecture by itself
            return Ok((serde_json::from_value(value)?, None));
        }
        serde_json::from_value(value)?
    } else if let Ok(table) = text.parse::<toml::Table>() {
        if table.contains_key("d_model") {
            return Ok((table.try_into()?, None));
        }
        table.try_into()?
    } else {
        return Ok((text.parse()?, None));
    };
    stack_of(named)
}

fn stack_of(named: Named) -> anyhow::Result<(Architecture, Option<LatencyConfig>)> {
    if let Some(inner) = named.deltafront {
        return stack_of(*inner);
    }
    let conditions = named.latency.and_then(|timed| timed.conditions);
    if let Some(format) = named.format.filter(|format| format != FORMAT) {
        bail!("it is of the form `{format}`, and this version reads `{FORMAT}`");
    }
    let parsed = named.text.as_deref().map(str::parse::<Architecture>).transpose()?;
    let stack = match (parsed, named.architecture) {
        (Some(text), Some(layers)) if text != layers => {
            bail!(
                "its `text` is `{text}`, but its `architecture` is `{layers}`: leave one of them out"
            )
        }
        (Some(stack), _) | (None, Some(stack)) => stack,
        (None, None) => {
            bail!("it has neither `text` nor `architecture`; `deltafront export` writes both")
        }
    };
    match named.id {
        Some(id) if id != stack.id().as_str() => bail!(
            "its `id` is {id}, but its stack is {}: it was changed by hand; leave the id out",
            stack.id()
        ),
        _ => Ok((stack, conditions)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "d=32,vocab=256,tied | gdn(h=1,k=16,v=32)+ffn(64) | swa(h=2,kv=1,k=16,w=8)";

    #[test]
    fn every_form_is_read_back_to_the_same_identity() {
        let stack: Architecture = TEXT.parse().expect("a stack");
        let file = StackFile::bare(stack.clone());
        let json = file.text(TextForm::Json).expect("JSON");
        let layers = serde_json::to_string(&stack).expect("JSON");
        let forms = [
            json.clone(),
            file.text(TextForm::Toml).expect("TOML"),
            format!("{{\"model_type\": \"deltafront\", \"deltafront\": {json}}}"),
            format!("{{\"text\": {TEXT:?}}}"),
            format!("text = {TEXT:?}\n"),
            format!("{{\"architecture\": {layers}}}"),
            layers,
            toml::to_string(&stack).expect("TOML"),
            format!("\u{feff}  {TEXT}\n"),
        ];
        for form in forms {
            assert_eq!(of_text(&form).expect(&form).0.id(), stack.id(), "{form}");
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let other = TEXT.replace("ffn(64)", "ffn(48)");
        let stack: Architecture = TEXT.parse().expect("a stack");
        let layers = serde_json::to_string(&stack).expect("JSON");
        for (form, said) in [
            (
                format!("{{\"text\": {other:?}, \"architecture\": {layers}}}"),
                "leave one of them out",
            ),
            (format!("{{\"text\": {TEXT:?}, \"id\": \"0123456789abcdef\"}}"), "changed by hand"),
            (
                format!("{{\"format\": \"deltafront-stack-9\", \"text\": {TEXT:?}}}"),
                "this version reads",
            ),
            ("{\"layers\": []}".to_owned(), "neither `text` nor `architecture`"),
            ("{\"text\": ".to_owned(), "no JSON"),
        ] {
            let error = format!("{:#}", of_text(&form).expect_err(&form));
            assert!(error.contains(said), "{error}");
        }
    }
}
