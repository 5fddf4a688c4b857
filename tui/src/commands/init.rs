//! `deltafront init`

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::ValueEnum;
use search::config::{CampaignFile, Preset};

/// Without `--preset` every key stands in it with its meaning and its default; edit it, then `deltafront run`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where to write it.
    #[arg(default_value = "campaign.toml")]
    path: PathBuf,
    /// What the campaign is for.
    #[arg(long, value_name = "NAME", default_value = "demo")]
    preset: Purpose,
    /// Text to train on, written into the file: a text file, a folder of .txt, a .jsonl or u16 tokens (.bin).
    #[arg(long, value_name = "PATH")]
    corpus: Option<PathBuf>,
    /// Name of the campaign, written into the file; else that of the folder.
    #[arg(long)]
    name: Option<String>,
    /// Overwrite a file that is there.
    #[arg(long)]
    force: bool,
}

/// A preset as an argument.
#[derive(Debug, Clone, Copy)]
struct Purpose(Preset);

impl ValueEnum for Purpose {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [Purpose; 4] = [
            Purpose(Preset::ALL[0]),
            Purpose(Preset::ALL[1]),
            Purpose(Preset::ALL[2]),
            Purpose(Preset::ALL[3]),
        ];
        &ALL
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(self.0.name()).help(self.0.about()))
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let path = if args.path.is_dir() { args.path.join("campaign.toml") } else { args.path.clone() };
    let mut text = args.preset.0.text().to_owned();
    if let Some(name) = args.name.clone().or_else(|| folder_name(&path)) {
        text = with_value(&text, "name", &name)?;
    }
    if let Some(corpus) = &args.corpus {
        if !corpus.exists() {
            bail!("there is no {}; --corpus names a text to train on", corpus.display());
        }
        // As it is given if that is found from the file too, else absolute.
        let folder = path.parent().unwrap_or(Path::new(""));
        let value = if corpus.is_absolute() || folder.as_os_str().is_empty() {
            corpus.clone()
        } else {
            std::path::absolute(corpus).context("cannot make the path of the corpus absolute")?
        };
        let value = value.to_str().context("the path of the corpus is not UTF-8")?;
        text = with_value(&text, "corpus", value)?;
    }
    CampaignFile::parse(&text).context("the new campaign file would not be valid")?;
    if let Some(folder) = path.parent()
        && !folder.as_os_str().is_empty()
    {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    let mut options = OpenOptions::new();
    options.write(true);
    if args.force {
        options.create(true).truncate(true);
    } else {
        options.create_new(true);
    }
    let mut file = match options.open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            bail!("{} is there already and was left alone; --force overwrites it", path.display())
        }
        Err(error) => {
            return Err(error).with_context(|| format!("cannot write {}", path.display()));
        }
    };
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "wrote {}: {}", path.display(), args.preset.0.about())?;
    if args.corpus.is_none() {
        writeln!(stdout, "next: set `corpus` in it to a text of yours, then")?;
    } else {
        writeln!(stdout, "next:")?;
    }
    let program = crate::words::program();
    let file = if path.as_os_str() == "campaign.toml" {
        String::new()
    } else {
        format!(" {}", crate::words::quoted(&path.to_string_lossy()))
    };
    writeln!(stdout, "  {program} run{file}")?;
    Ok(ExitCode::SUCCESS)
}

/// The name of the folder that the file will lie in, if it can be a campaign's name.
fn folder_name(path: &Path) -> Option<String> {
    let path = std::path::absolute(path).ok()?;
    let name = path.parent()?.file_name()?.to_str()?.to_owned();
    let is_plain = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    (!name.is_empty() && name.len() <= 60 && name.chars().all(is_plain)).then_some(name)
}

/// The template with another value at a key, its comment kept.
fn with_value(text: &str, key: &str, value: &str) -> anyhow::Result<String> {
    let mut found = false;
    let quoted = toml::Value::String(value.to_owned()).to_string();
    let lines: Vec<String> = text
        .lines()
        .map(|line| match line.strip_prefix(key).map(str::trim_start) {
            Some(rest) if rest.starts_with('=') && !found => {
                found = true;
                let comment = line.find('#').map_or("", |at| &line[at..]);
                format!("{:<40}{comment}", format!("{key} = {quoted} ")).trim_end().to_owned()
            }
            _ => line.to_owned(),
        })
        .collect();
    if !found {
        bail!("the template has no `{key}`");
    }
    Ok(lines.join("\n") + "\n")
}
