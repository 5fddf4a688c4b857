//! What can go wrong with the store, and what to do then.

use std::path::PathBuf;

/// Why the store could not do it. The stored data are as they were before.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// Nothing to read.
    #[error(
        "there is no database at {path}: `deltafront run` makes one, `--db PATH` names another"
    )]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The file is something else.
    #[error(
        "{path} is not a deltafront database ({why}); it was left alone. Name another file with `--db PATH`"
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        why: String,
    },
    /// A newer program wrote it.
    #[error(
        "{path} was written by a newer deltafront (schema {found}, this program knows {known}); it was left \
         untouched. Use the newer program, or another file with `--db PATH`"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest schema this program knows.
        known: i64,
    },
    /// An older program wrote it, and a reader may not bring it up to date.
    #[error(
        "{path} was written by an older deltafront (schema {found}, this program has {known}); \
         the next `deltafront run` on it brings it up to date"
    )]
    Older {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The schema of this program.
        known: i64,
    },
    /// No campaign of that name.
    #[error("there is no campaign `{name}` in {path}{}", known_campaigns(.known))]
    NoCampaign {
        /// The name that was asked for.
        name: String,
        /// The database.
        path: PathBuf,
        /// The names that exist.
        known: Vec<String>,
    },
    /// A campaign of that name exists.
    #[error("a campaign `{name}` exists already in {path}")]
    CampaignExists {
        /// The name.
        name: String,
        /// The database.
        path: PathBuf,
    },
    /// Another driver works on the campaign.
    #[error(
        "another `deltafront run` (process {pid} on {host}) is at work on campaign `{name}`; watch it with \
         `deltafront browse`, stop it with Ctrl-C there, or give this one another name"
    )]
    Busy {
        /// The campaign.
        name: String,
        /// The driver's process.
        pid: i64,
        /// Its machine.
        host: String,
    },
    /// Another driver took the campaign over from this one.
    #[error(
        "this run lost its campaign: another `deltafront run` took it over; nothing more was written by this one"
    )]
    RunLost,
    /// No candidate of that number.
    #[error("the campaign has no candidate {number}")]
    NoCandidate {
        /// The number.
        number: u32,
    },
    /// A number that may not be stored.
    #[error("{what} is {value}: only finite numbers are stored")]
    NotFinite {
        /// What the number is.
        what: String,
        /// The number.
        value: f64,
    },
    /// The file holds something that this program cannot have written.
    #[error(
        "{what} in {path} cannot be read: {why}; restore the file from a copy, or start another with `--db PATH`"
    )]
    Corrupt {
        /// The database.
        path: PathBuf,
        /// Which entry.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// No space.
    #[error(
        "no space left on the disk that holds {path}; everything up to the last finished step is kept. \
         Free some space and run the same command again"
    )]
    DiskFull {
        /// The database.
        path: PathBuf,
    },
    /// Another process writes for too long.
    #[error(
        "{path} is locked by another process; wait for it or end it, then run the same command again"
    )]
    Locked {
        /// The database.
        path: PathBuf,
    },
    /// Not allowed to write.
    #[error("{path} cannot be written: {why}; check the permissions of the file and of its folder")]
    NotWritable {
        /// The database.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// Not allowed to read.
    #[error("{path} cannot be read: {why}; check the permissions of the file and of its folder")]
    NotReadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// The path leads to another file than the one that was opened, or to none.
    #[error(
        "{path} was deleted, renamed or replaced while a campaign was at work in it, which ends here. If it was renamed, \
         all that was finished is in it: go on with `--db NEW-PATH`. If it was deleted, its results are lost: the same \
         command begins anew"
    )]
    Gone {
        /// Where it was.
        path: PathBuf,
    },
    /// Anything else that SQLite says.
    #[error("{op} in {path} failed")]
    Sql {
        /// What was done.
        op: &'static str,
        /// The database.
        path: PathBuf,
        /// What SQLite says.
        source: sqlx::Error,
    },
}

fn known_campaigns(known: &[String]) -> String {
    if known.is_empty() {
        ": it holds none yet".to_owned()
    } else {
        format!("; it holds: {}", known.join(", "))
    }
}

/// SQLite's primary result codes that have a remedy of their own.
const SQLITE_BUSY: i32 = 5;
const SQLITE_READONLY: i32 = 8;
const SQLITE_CORRUPT: i32 = 11;
const SQLITE_FULL: i32 = 13;
const SQLITE_CANTOPEN: i32 = 14;
const SQLITE_NOTADB: i32 = 26;

impl DbError {
    /// Names what SQLite says by its remedy.
    pub(crate) fn sql(op: &'static str, path: &std::path::Path, source: sqlx::Error) -> Self {
        let path = path.to_owned();
        let primary = source
            .as_database_error()
            .and_then(sqlx::error::DatabaseError::code)
            .and_then(|code| code.parse::<i32>().ok())
            .map(|code| code & 0xff);
        match primary {
            Some(SQLITE_FULL) => Self::DiskFull { path },
            Some(SQLITE_BUSY) => Self::Locked { path },
            Some(SQLITE_READONLY | SQLITE_CANTOPEN) => {
                let why = crate::file::shut(&path).unwrap_or_else(|| source.to_string());
                Self::NotWritable { path, why }
            }
            Some(SQLITE_NOTADB) => Self::Foreign { path, why: source.to_string() },
            Some(SQLITE_CORRUPT) => {
                Self::Corrupt { path, what: "the file".to_owned(), why: source.to_string() }
            }
            _ => Self::Sql { op, path, source },
        }
    }
}

/// Refuses a number that is not finite.
pub(crate) fn finite(what: impl FnOnce() -> String, value: f64) -> Result<f64, DbError> {
    if value.is_finite() { Ok(value) } else { Err(DbError::NotFinite { what: what(), value }) }
}
