//! The commands, one file each.

pub(crate) mod bench;
pub(crate) mod browse;
mod campaign_file;
pub(crate) mod check_worker;
pub(crate) mod compare;
pub(crate) mod completions;
mod contents;
pub(crate) mod doctor;
pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod init;
pub(crate) mod law;
pub(crate) mod list;
mod notify;
pub(crate) mod optimize;
pub(crate) mod plan;
mod products;
pub(crate) mod profile;
pub(crate) mod replay;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod scale;
pub(crate) mod schema;
mod scratch;
mod setup;
pub(crate) mod show;
mod stack_files;
pub(crate) mod study;
mod training_rule;
mod watching;
pub(crate) mod worker;

use std::path::Path;

use anyhow::{Context, bail};
use db::snapshot::{Candidate, Snapshot};
use db::{Access, Store};

/// Exit code of a campaign that was interrupted and can go on: 128 + SIGINT, as shells have it.
pub(crate) const INTERRUPTED: u8 = 130;

/// A runtime for a command that drives workers.
fn block_on_threads<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(future)
}

/// A runtime for a command that only reads.
fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(future)
}

/// Opens the database of a viewer.
async fn open(db: &Path) -> anyhow::Result<Store> {
    Ok(Store::open(db, Access::ReadOnly).await?)
}

/// The campaign of that name; without a name the only one.
async fn campaign_name(store: &Store, name: Option<&str>) -> anyhow::Result<String> {
    if let Some(name) = name {
        return Ok(name.to_owned());
    }
    let mut campaigns = store.campaigns().await?;
    match campaigns.len() {
        0 => bail!("{} holds no campaign yet; `deltafront run` makes one", store.path().display()),
        1 => Ok(campaigns.remove(0).name),
        _ => {
            let names: Vec<String> = campaigns.into_iter().map(|campaign| campaign.name).collect();
            bail!(
                "{} holds several campaigns, name one: {}",
                store.path().display(),
                names.join(", ")
            )
        }
    }
}

/// The candidate that a word names: its number, the name of its reference stack, or the first digits of its id.
fn candidate<'a>(snapshot: &'a Snapshot, word: &str) -> anyhow::Result<&'a Candidate> {
    let name = &snapshot.campaign.name;
    let word = word.trim_start_matches('#');
    let candidates = &snapshot.candidates;
    let by_number = || {
        let number: u32 = word.parse().ok()?;
        candidates.iter().find(|candidate| candidate.row.number == number)
    };
    let by_reference =
        || candidates.iter().find(|candidate| candidate.row.reference.as_deref() == Some(word));
    if let Some(candidate) = by_number().or_else(by_reference) {
        return Ok(candidate);
    }
    // One or two digits are a mistyped number rather than an id.
    let by_id: Vec<&Candidate> = candidates
        .iter()
        .filter(|candidate| {
            word.len() >= 3 && candidate.id.as_str().starts_with(&word.to_ascii_lowercase())
        })
        .collect();
    match by_id.as_slice() {
        [candidate] => Ok(candidate),
        [] => {
            let last = candidates.last().map_or(0, |candidate| candidate.row.number);
            bail!(
                "campaign `{name}` has no candidate `{word}`; name one by its number (1 to {last}), the first digits \
                 of its id, or its reference name; `deltafront show {name} --all` lists them"
            )
        }
        several => {
            let numbers: Vec<String> = several
                .iter()
                .map(|candidate| format!("{} ({})", candidate.row.number, candidate.id))
                .collect();
            bail!("`{word}` begins the ids of several candidates: {}", numbers.join(", "))
        }
    }
}

/// A name as it can stand in a file's name: a campaign may be called anything.
fn file_name(name: &str) -> String {
    /// Bytes of a name that are left as they are: the longest names of files have 255.
    const MOST: usize = 200;
    let is_plain = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    if name.chars().all(is_plain) && !name.starts_with('.') && name.len() <= MOST {
        return name.to_owned();
    }
    // Other names than this one may look alike then: what is no plain name ends in a mark of its own.
    let plain = name.chars().map(|c| if is_plain(c) { c } else { '_' });
    let plain: String = plain.take(MOST / 4).collect();
    let mark = blake3::hash(name.as_bytes()).to_hex();
    format!("_{plain}~{}", &mark[..8])
}
