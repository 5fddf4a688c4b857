//! `deltafront export`

mod chosen;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use db::snapshot::{Candidate, Snapshot};

use self::chosen::{Chosen, Setting, Wanted, file, find, folder, refuse_obstacles};
use super::{block_on, candidate, open};
use crate::export::{
    Files, Form, TARGETS, TableForm, Target, TextForm, fill, gguf, table, target, targets_text,
};
use crate::whole;

fn help() -> String {
    format!(
        "\
Targets:
{}
Examples:
  deltafront export my-campaign 17                             the stack and what is known of it, JSON on stdout
  deltafront export my-campaign 17 --to hf                     its trained proxy as a folder for transformers
  deltafront export my-campaign 17 --to hf --random --dtype bf16   the stack itself, ready for a real training
  deltafront export my-campaign 17 --check                     which targets hold it, and what would have to change
  deltafront export my-campaign --front --to hf -o front       every member of the front, a folder each
  deltafront export my-campaign --to optuna -o study.db        the whole campaign, for optuna-dashboard
  deltafront export stack.json --to hf --random                a stack that is in no campaign",
        targets_text()
    )
}

/// Writes a stack, or a whole campaign, in a form that other software reads.
#[derive(clap::Args)]
#[command(after_help = help())]
pub(crate) struct Args {
    /// The campaign; without a candidate: a stack, as its text or a file that holds it.
    campaign: String,
    /// The candidate: its number, the first digits of its id, or the name of its reference stack.
    candidate: Option<String>,
    /// What to write; else by the ending of the file, else json.
    #[arg(long, value_parser = target, value_name = "TARGET", conflicts_with = "format")]
    to: Option<&'static Target>,
    /// The same for json and toml.
    #[arg(long, value_enum)]
    format: Option<TextForm>,
    /// Where to write it; else texts go to stdout, folders to CAMPAIGN-NUMBER-TARGET.
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// Overwrite a file that is there already, or a folder that an export wrote.
    #[arg(long)]
    force: bool,
    /// Every member of the front, into one folder.
    #[arg(long, conflicts_with = "candidate")]
    front: bool,
    /// Say for every target whether it holds the stack, and what would have to change.
    #[arg(long, conflicts_with_all = ["to", "format", "output", "front"])]
    check: bool,
    #[command(flatten)]
    wanted: Wanted,
}

pub(crate) fn run(db: &Path, args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(Target { form: Form::Table(form), .. }) = args.to {
        return table(db, args, *form);
    }
    let (setting, mut chosen) =
        block_on(find(db, &args.campaign, args.candidate.as_deref(), args.front))?;
    if args.check {
        let [one] = chosen.as_slice() else { bail!("name the candidate that is to be checked") };
        return check(one);
    }
    let target = target_of(args)?;
    if args.front {
        return front(&setting, &chosen, target, args);
    }
    let one = chosen.swap_remove(0);
    if !one.is_done {
        say(&format!(
            "note: candidate {} is not trained and timed; the config holds what is known of it so far",
            one.number.unwrap_or_default()
        ))?;
    }
    match target.form {
        Form::Table(_) => bail!("this target is of a whole campaign"),
        Form::Text(form) => {
            let text = one.file.text(form)?;
            match &args.output {
                None => std::io::stdout().write_all(text.as_bytes())?,
                Some(file) => {
                    whole::write(file, &text, args.force, db)?;
                    say(&format!("wrote {}", file.display()))?;
                }
            }
        }
        Form::Description(files) => {
            let place = place(args, &setting, &one, '-', target);
            refuse_obstacles(&one, &one.stack()?, target)?;
            whole::write_folder(&place, args.force, |part| describe(&one, files, part))?;
            say(&format!("wrote {}: no weights, it is trained there", place.display()))?;
        }
        Form::Folder(_) | Form::Gguf => {
            let (between, dialect) = match target.form {
                Form::Folder(dialect) => ('-', Some(dialect)),
                _ => ('.', None),
            };
            let place = place(args, &setting, &one, between, target);
            let folder = folder(&setting, &one, &args.wanted, target)?;
            match dialect {
                Some(dialect) => {
                    whole::write_folder(&place, args.force, |part| fill(dialect, &folder, part))?;
                }
                None => {
                    whole::write_by(&place, args.force, db, |part| gguf::write(&folder, part))?;
                }
            }
            let what = if folder.weights.are_trained() { "trained" } else { "random" };
            let proxy = if *folder.weights.stack() == one.stack()? { "" } else { " of the proxy" };
            say(&format!("wrote {}: {what} weights{proxy}", place.display()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Where it is written: where the command line says, else beside the name of the campaign.
fn place(args: &Args, setting: &Setting, one: &Chosen, between: char, target: &Target) -> PathBuf {
    let number = one.number.map_or(String::new(), |number| format!("-{number}"));
    let usual = || PathBuf::from(format!("{}{number}{between}{}", setting.name, target.name));
    args.output.clone().unwrap_or_else(usual)
}

/// Writes files without weights, and what is known of the stack.
fn describe(one: &Chosen, files: Files, place: &Path) -> anyhow::Result<()> {
    std::fs::write(place.join(whole::MARKS[0]), one.file.text(TextForm::Json)?)?;
    for (name, text) in files(&one.stack()?) {
        std::fs::write(place.join(name), text)?;
    }
    Ok(())
}

/// Writes every member of the front into one folder, with an index.
fn front(
    setting: &Setting,
    chosen: &[Chosen],
    target: &Target,
    args: &Args,
) -> anyhow::Result<ExitCode> {
    let place = args
        .output
        .as_ref()
        .context("-o names the folder that the members of the front are written into")?;
    whole::write_folder(place, args.force, |part| {
        let mut index = String::new();
        for one in chosen {
            let number = one.number.context("members of a front are in a campaign")?;
            let path = match target.form {
                Form::Text(form) => {
                    let path = format!("{number}.{}", form.ending());
                    std::fs::write(part.join(&path), one.file.text(form)?)?;
                    path
                }
                Form::Folder(dialect) => {
                    let path = part.join(number.to_string());
                    std::fs::create_dir(&path)?;
                    fill(dialect, &folder(setting, one, &args.wanted, target)?, &path)?;
                    number.to_string()
                }
                Form::Description(files) => {
                    let path = part.join(number.to_string());
                    std::fs::create_dir(&path)?;
                    refuse_obstacles(one, &one.stack()?, target)?;
                    describe(one, files, &path)?;
                    number.to_string()
                }
                Form::Gguf => {
                    let path = format!("{number}.gguf");
                    gguf::write(&folder(setting, one, &args.wanted, target)?, &part.join(&path))?;
                    path
                }
                Form::Table(_) => bail!("a table is one file"),
            };
            let line = serde_json::json!({
                "candidate": number, "path": path, "id": one.file.id, "text": one.file.text,
                "values": one.file.values,
            });
            writeln!(index, "{line}")?;
        }
        Ok(std::fs::write(part.join(whole::MARKS[1]), index)?)
    })?;
    say(&format!("wrote {}, {} stacks", place.display(), chosen.len()))?;
    Ok(ExitCode::SUCCESS)
}

/// Says for every target whether it holds the stack.
fn check(one: &Chosen) -> anyhow::Result<ExitCode> {
    let stack = one.stack()?;
    let mut text = format!("{stack}\n");
    for target in TARGETS {
        let Some(obstacles) = target.obstacles(&stack) else { continue };
        let verdict = if obstacles.is_empty() {
            "loads"
        } else if obstacles.iter().all(|obstacle| obstacle.change.is_some()) {
            "loads after a change"
        } else {
            "cannot"
        };
        writeln!(text, "{:<16} {verdict}", target.name)?;
        for obstacle in obstacles {
            writeln!(text, "{:<16}   {}", "", obstacle.text())?;
        }
    }
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Writes a whole campaign, or its front.
fn table(db: &Path, args: &Args, form: TableForm) -> anyhow::Result<ExitCode> {
    if args.candidate.is_some() {
        bail!(
            "this target is of a whole campaign: leave the candidate out; --front keeps to the front"
        );
    }
    let snapshot = block_on(async { Ok(open(db).await?.snapshot(&args.campaign).await?) })?;
    let candidates: Vec<&Candidate> = snapshot
        .candidates
        .iter()
        .filter(|candidate| !args.front || candidate.rank == Some(0))
        .collect();
    let text = match form {
        TableForm::Csv => table::csv(&candidates),
        TableForm::Jsonl => table::jsonl(&candidates)?,
        TableForm::Optuna => {
            let Some(file) = &args.output else { bail!("-o names the file of the study") };
            let study = table::study(&snapshot.campaign, &candidates);
            whole::write_by(file, args.force, db, |part| {
                block_on(async { Ok(study.write(part).await?) })
            })?;
            say(&format!("wrote {}; optuna-dashboard sqlite:///{0} shows it", file.display()))?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    match &args.output {
        None => std::io::stdout().write_all(text.as_bytes())?,
        Some(file) => {
            whole::write(file, &text, args.force, db)?;
            say(&format!("wrote {}, {} candidates", file.display(), candidates.len()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes the config of a candidate as JSON into a new file in the current folder, for the screens; says which.
pub(super) fn to_new_file(db: &Path, snapshot: &Snapshot, number: u32) -> anyhow::Result<PathBuf> {
    let name = &snapshot.campaign.name;
    let config = block_on(async {
        let store = open(db).await?;
        let snapshot = store.snapshot(name).await?;
        let candidate = candidate(&snapshot, &number.to_string())?;
        file(&store, &snapshot, candidate).await
    })?;
    let file = PathBuf::from(format!("{}-{number}.json", super::file_name(name)));
    whole::write(&file, &config.text(TextForm::Json)?, false, db)?;
    Ok(file)
}

/// What to write.
fn target_of(args: &Args) -> anyhow::Result<&'static Target> {
    let ending =
        args.output.as_deref().and_then(Path::extension).and_then(|ending| ending.to_str());
    let name = match (args.to, args.format, ending) {
        (Some(target), ..) => return Ok(target),
        (None, Some(form), _) => form.ending(),
        (None, None, _) if args.front => "json",
        (None, None, Some("toml")) => "toml",
        (None, None, Some("json") | None) => "json",
        (None, None, Some(other)) => bail!(
            "the form of a .{other} file is unknown: add --format json or --format toml, or --to with a target"
        ),
    };
    target(name).map_err(anyhow::Error::msg)
}

fn say(text: &str) -> std::io::Result<()> {
    writeln!(std::io::stderr(), "{text}")
}
