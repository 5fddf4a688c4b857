//! How a viewer reads the file: so that nothing stays beside it, and wherever it may be read at all.
//!
//! SQLite's own reading of a file with a write-ahead log makes the log and its index where they are missing. Those of
//! another account then lock the owner out, and where nothing may be made there is no reading. A driver that has ended in
//! order leaves neither: such a file is read as one that does not change. What is beside a file decides anew before each
//! reading, [`Store::refresh`], as a driver may have begun since.

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{Connection, SqliteConnection};

use crate::error::DbError;
use crate::file::{FileId, Stamp, beside};
use crate::open::{Access, BUSY_TIMEOUT, Store, check_readable, header_version, one_connection};
use crate::way::Way;

/// How often a copy is made again because the files changed meanwhile.
const TRIES: usize = 5;

impl Store {
    /// Opens the file for a viewer.
    pub(crate) async fn view(path: &Path) -> Result<Self, DbError> {
        if header_version(path)?.is_none() {
            return Err(DbError::Missing { path: path.to_owned() });
        }
        match Way::find(path)? {
            Way::Copied { .. } => Self::view_copy(path).await,
            way @ Way::Beside(_) => match Self::view_in_place(path, way).await {
                // Of another account, and not to be read or brought up to date.
                Err(DbError::NotWritable { .. }) => Self::view_copy(path).await,
                result => result,
            },
            way => Self::view_in_place(path, way).await,
        }
    }

    async fn view_in_place(path: &Path, way: Way) -> Result<Self, DbError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .read_only(true)
            .immutable(matches!(way, Way::Still(_)))
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        let sql = |source| DbError::sql("opening the database", path, source);
        let mut connection = SqliteConnection::connect_with(&options).await.map_err(sql)?;
        let checked = check_readable(&mut connection, path).await;
        connection.close().await.map_err(sql)?;
        checked?;
        let pool = one_connection(options).await.map_err(sql)?;
        Ok(Self { pool, path: path.to_owned(), way })
    }

    /// Copies the database and its log into a folder of this process's own, puts the two together there and reads that.
    async fn view_copy(path: &Path) -> Result<Self, DbError> {
        let log = beside(path, "-wal");
        let unreadable = |of: &Path, source: std::io::Error| DbError::NotReadable {
            path: of.to_owned(),
            why: source.to_string(),
        };
        let folder = tempfile::Builder::new()
            .prefix("deltafront-")
            .tempdir()
            .map_err(|source| unreadable(&std::env::temp_dir(), source))?;
        let copy = folder.path().join("copy.db");
        let copy_log = beside(&copy, "-wal");
        let mut tries = 0;
        let way = loop {
            let before = (Stamp::of(path), Stamp::of(&log));
            let (Some(database), Some(of_log)) = before else {
                // The driver has put its log away meanwhile.
                let way = Way::find(path)?;
                return Self::view_in_place(path, way).await;
            };
            std::fs::copy(path, &copy).map_err(|source| unreadable(path, source))?;
            std::fs::copy(&log, &copy_log).map_err(|source| unreadable(&log, source))?;
            if (Stamp::of(path), Stamp::of(&log)) == before {
                break Way::Copied { database, log: of_log };
            }
            tries += 1;
            if tries == TRIES {
                return Err(DbError::Locked { path: path.to_owned() });
            }
        };
        let sql = |source| DbError::sql("reading a copy of the database", path, source);
        let options = SqliteConnectOptions::new().filename(&copy).foreign_keys(true);
        let mut connection = SqliteConnection::connect_with(&options).await.map_err(sql)?;
        let checked = check_readable(&mut connection, path).await;
        connection.close().await.map_err(sql)?;
        checked?;
        // Without a log of its own it needs no second file, and what is open stays when its folder is removed.
        let options = options.journal_mode(SqliteJournalMode::Delete);
        SqliteConnection::connect_with(&options).await.map_err(sql)?.close().await.map_err(sql)?;
        let options = SqliteConnectOptions::new()
            .filename(&copy)
            .read_only(true)
            .immutable(true)
            .foreign_keys(true);
        let pool = one_connection(options).await.map_err(sql)?;
        sqlx::query("SELECT count(*) FROM campaigns").execute(&pool).await.map_err(sql)?;
        Ok(Self { pool, path: path.to_owned(), way })
    }

    /// Before each look at a file that others may be writing: opens it anew if it is to be read another way by now, or is
    /// another file. Says whether it was.
    ///
    /// # Errors
    /// When the file is gone or cannot be opened; the store then reads what it read before.
    pub async fn refresh(&mut self) -> Result<bool, DbError> {
        let now = match self.way {
            Way::Writing(_) => return Ok(false),
            Way::Still(_) | Way::Beside(_) | Way::Copied { .. } => Way::find(&self.path)?,
        };
        let is_same = match (self.way, now) {
            // The index could not be read: the copy is as good as its files are old.
            (Way::Copied { database, log }, Way::Beside(_)) => {
                Stamp::of(&self.path) == Some(database)
                    && Stamp::of(&beside(&self.path, "-wal")) == Some(log)
            }
            (before, now) => before == now,
        };
        if is_same {
            return Ok(false);
        }
        let fresh = Self::open(&self.path, Access::ReadOnly).await?;
        std::mem::replace(self, fresh).close().await;
        Ok(true)
    }

    /// Checks that the path still leads to the file that this store writes. Where it was renamed, all that was written is
    /// put into it, as its log stayed behind.
    pub(crate) async fn still_there(&self) -> Result<(), DbError> {
        let Way::Writing(file) = self.way else { return Ok(()) };
        if FileId::of(&self.path) == Some(file) {
            return Ok(());
        }
        // Nothing is lost by a failure that would not be lost without it.
        let _ = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&self.pool).await;
        Err(DbError::Gone { path: self.path.clone() })
    }
}
