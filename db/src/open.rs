//! Opening the file: whose it is, which version it has, and bringing it up to date.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection, SqliteConnection, SqlitePool};

use crate::error::DbError;
use crate::file::FileId;
use crate::way::Way;

static MIGRATOR: Migrator = sqlx::migrate!("./migrations");

/// The schema that this program writes: the number of the newest file in `migrations/`, and SQLite's `user_version`.
pub const SCHEMA_VERSION: i64 = 11;

/// SQLite's `application_id` of our files: "dFnt".
const APPLICATION_ID: i64 = 0x6446_6e74;

/// How long a statement waits for another process's write.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// What a store is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The driver: makes the file if it is not there, brings it up to date.
    ReadWrite,
    /// Viewers: the file must be there; nothing is changed, and nothing made beside it.
    ReadOnly,
}

/// An open database.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) pool: SqlitePool,
    pub(crate) path: PathBuf,
    pub(crate) way: Way,
}

impl Store {
    /// Opens the database at `path`.
    ///
    /// # Errors
    /// When the file is missing (read-only), not ours, of a newer version, not writable, or the disk is full.
    pub async fn open(path: &Path, access: Access) -> Result<Self, DbError> {
        let found = header_version(path)?;
        if let Some(found) = found.filter(|found| *found > SCHEMA_VERSION) {
            return Err(newer(path, found));
        }
        match access {
            Access::ReadOnly => Self::view(path).await,
            Access::ReadWrite => Self::open_for_writing(path).await,
        }
    }

    async fn open_for_writing(path: &Path) -> Result<Self, DbError> {
        let sql = |source| DbError::sql("opening the database", path, source);
        // The journal mode is not set here: a file that turns out to be of a newer version is not to be touched.
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        let mut connection = SqliteConnection::connect_with(&options).await.map_err(sql)?;
        check_ours(&mut connection, path).await?;
        switch_to_wal(&mut connection, path).await?;
        migrate(&mut connection, path).await?;
        connection.close().await.map_err(sql)?;
        let options =
            options.journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Full);
        let pool = one_connection(options).await.map_err(sql)?;
        let Some(file) = FileId::of(path) else {
            return Err(DbError::Gone { path: path.to_owned() });
        };
        Ok(Self { pool, path: path.to_owned(), way: Way::Writing(file) })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Closes the file and waits until that is done.
    pub async fn close(self) {
        self.pool.close().await;
    }

    /// Refuses to let the file grow beyond `bytes`, as a full disk would; for quotas, and for tests of that.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub async fn limit_size(&self, bytes: u64) -> Result<(), DbError> {
        const PAGE_BYTES: u64 = 4096;
        let pages = bytes.div_ceil(PAGE_BYTES);
        sqlx::query(sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {pages}")))
            .execute(&self.pool)
            .await
            .map_err(|source| self.sql("limiting the size", source))?;
        Ok(())
    }

    /// SQLite's own check of the whole file; `Ok(())` when it finds nothing.
    ///
    /// # Errors
    /// [`DbError::Corrupt`] with the first finding.
    pub async fn integrity_check(&self) -> Result<(), DbError> {
        let finding: String = sqlx::query_scalar("PRAGMA integrity_check")
            .fetch_one(&self.pool)
            .await
            .map_err(|source| self.sql("checking the file", source))?;
        if finding == "ok" {
            Ok(())
        } else {
            Err(DbError::Corrupt {
                path: self.path.clone(),
                what: "the file".to_owned(),
                why: finding,
            })
        }
    }

    pub(crate) fn sql(&self, op: &'static str, source: sqlx::Error) -> DbError {
        DbError::sql(op, &self.path, source)
    }

    pub(crate) fn corrupt(&self, what: impl Into<String>, why: impl std::fmt::Display) -> DbError {
        DbError::Corrupt { path: self.path.clone(), what: what.into(), why: why.to_string() }
    }
}

/// Rows that SQLite's thread may be ahead of the reader's: each wait of one for the other costs more than a row.
const ROWS_AHEAD: usize = 4096;

/// One connection: the writer is one task, and a viewer reads one snapshot at a time.
pub(crate) async fn one_connection(
    options: SqliteConnectOptions,
) -> Result<SqlitePool, sqlx::Error> {
    SqlitePoolOptions::new()
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_with(options.row_buffer_size(ROWS_AHEAD))
        .await
}

fn newer(path: &Path, found: i64) -> DbError {
    DbError::Newer { path: path.to_owned(), found, known: SCHEMA_VERSION }
}

/// The `user_version` in the file's header, read without SQLite so that a foreign or newer file is not even locked.
/// None: no file, or an empty one.
pub(crate) fn header_version(path: &Path) -> Result<Option<i64>, DbError> {
    let foreign = |why: &str| DbError::Foreign { path: path.to_owned(), why: why.to_owned() };
    let mut header = [0_u8; 100];
    let mut file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(DbError::NotReadable { path: path.to_owned(), why: error.to_string() });
        }
    };
    if path.is_dir() {
        return Err(foreign("it is a folder"));
    }
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    if length == 0 {
        return Ok(None);
    }
    if file.read_exact(&mut header).is_err() || !header.starts_with(b"SQLite format 3\0") {
        return Err(foreign("it is not an SQLite file"));
    }
    let word = |at: usize| {
        i64::from(u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]))
    };
    // Offsets 60 and 68 of https://www.sqlite.org/fileformat.html. While the first transaction is still in the
    // write-ahead log, both are 0: SQLite is asked again below.
    let (version, application) = (word(60), word(68));
    if application != APPLICATION_ID && (application != 0 || version != 0) {
        return Err(foreign("it belongs to another program"));
    }
    Ok(Some(version))
}

async fn pragmas(
    connection: &mut SqliteConnection,
    path: &Path,
) -> Result<(i64, i64, i64), DbError> {
    sqlx::query_as(
        "SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version), \
         (SELECT count(*) FROM sqlite_schema)",
    )
    .fetch_one(connection)
    .await
    .map_err(|source| DbError::sql("reading the version", path, source))
}

/// Checks that the file is ours, or empty, and not newer; gives its version.
async fn check_ours(connection: &mut SqliteConnection, path: &Path) -> Result<i64, DbError> {
    let (application, version, tables) = pragmas(connection, path).await?;
    if application != APPLICATION_ID && (application != 0 || version != 0 || tables != 0) {
        return Err(DbError::Foreign {
            path: path.to_owned(),
            why: "it belongs to another program".to_owned(),
        });
    }
    if version > SCHEMA_VERSION { Err(newer(path, version)) } else { Ok(version) }
}

pub(crate) async fn check_readable(
    connection: &mut SqliteConnection,
    path: &Path,
) -> Result<(), DbError> {
    match check_ours(connection, path).await? {
        0 => Err(DbError::Missing { path: path.to_owned() }),
        SCHEMA_VERSION => Ok(()),
        found => Err(DbError::Older { path: path.to_owned(), found, known: SCHEMA_VERSION }),
    }
}

/// Has changes written to a log beside the file. SQLite waits for no lock here where two programs want to switch at once and
/// each reads what the other would write, but says at once that the file is busy; so the wait is this one's.
async fn switch_to_wal(connection: &mut SqliteConnection, path: &Path) -> Result<(), DbError> {
    let begin = Instant::now();
    loop {
        let switched = sqlx::query("PRAGMA journal_mode = WAL").execute(&mut *connection).await;
        let error = match switched {
            Ok(_) => return Ok(()),
            Err(source) => DbError::sql("switching to WAL", path, source),
        };
        if !matches!(error, DbError::Locked { .. }) || begin.elapsed() > BUSY_TIMEOUT {
            return Err(error);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Brings the schema up to date, all or nothing; two programs that do it at once wait for each other.
async fn migrate(connection: &mut SqliteConnection, path: &Path) -> Result<(), DbError> {
    let sql = |source| DbError::sql("bringing the schema up to date", path, source);
    if check_ours(connection, path).await? == SCHEMA_VERSION {
        return Ok(());
    }
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(sql)?;
    // Not `run`, whose bound on the connection keeps the future from being `Send`.
    MIGRATOR.run_direct(None, &mut *transaction, false).await.map_err(|error| match error {
        MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => sql(source),
        MigrateError::VersionMissing(found) => newer(path, found),
        other => DbError::Corrupt {
            path: path.to_owned(),
            what: "the list of migrations".to_owned(),
            why: other.to_string(),
        },
    })?;
    transaction.commit().await.map_err(sql)
}
