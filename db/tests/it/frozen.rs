//! Databases of every schema version: brought up to date, each column that was there holds what it held, byte for byte,
//! and the campaigns in them read as they did. The rows that version N added stand in `frozen/N.sql`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use db::{Access, SCHEMA_VERSION, Store};
use search::campaign::CandidateState;
use sqlx::Connection;

use crate::samples::folder;

static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

async fn connect(path: &Path) -> sqlx::SqliteConnection {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path).create_if_missing(true);
    sqlx::SqliteConnection::connect_with(&options).await.unwrap()
}

/// A file as the program of that version left it: each migration as sqlx does it, then the rows of its time.
async fn older(test: &str, version: i64) -> PathBuf {
    let path = folder(&format!("frozen_{test}_{version}")).join("old.db");
    let mut connection = connect(&path).await;
    let table = "CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL, \
         installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, success BOOLEAN NOT NULL, checksum BLOB NOT NULL, \
         execution_time BIGINT NOT NULL)";
    sqlx::raw_sql(table).execute(&mut connection).await.unwrap();
    for migration in MIGRATOR.iter().filter(|migration| migration.version <= version) {
        sqlx::raw_sql(migration.sql.clone()).execute(&mut connection).await.unwrap();
        sqlx::query("INSERT INTO _sqlx_migrations VALUES (?, ?, '2026-01-01', TRUE, ?, 1)")
            .bind(migration.version)
            .bind(migration.description.as_ref())
            .bind(migration.checksum.as_ref())
            .execute(&mut connection)
            .await
            .unwrap();
    }
    for part in 1..=version {
        let rows =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/it/frozen/{part}.sql"));
        if let Ok(rows) = std::fs::read_to_string(rows) {
            sqlx::raw_sql(sqlx::AssertSqlSafe(rows)).execute(&mut connection).await.unwrap();
        }
    }
    connection.close().await.unwrap();
    path
}

/// Columns of every table but sqlx's own.
async fn columns(path: &Path) -> BTreeMap<String, Vec<String>> {
    let mut connection = connect(path).await;
    let rows: Vec<(String, String)> = sqlx::query_as(
        "SELECT m.name, c.name FROM sqlite_master m JOIN pragma_table_info(m.name) c \
         WHERE m.type = 'table' AND m.name NOT LIKE '\\_%' ESCAPE '\\' AND m.name NOT LIKE 'sqlite%'",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    let mut columns: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (table, column) in rows {
        columns.entry(table).or_default().push(column);
    }
    columns
}

/// Every row of these columns as SQL literals, in order.
async fn rows(
    path: &Path,
    columns: &BTreeMap<String, Vec<String>>,
) -> BTreeMap<String, Vec<String>> {
    let mut connection = connect(path).await;
    let mut dump = BTreeMap::new();
    for (table, columns) in columns {
        let literals: Vec<String> = columns.iter().map(|c| format!("quote(\"{c}\")")).collect();
        let query = format!("SELECT {} FROM {table} ORDER BY 1", literals.join(" || ',' || "));
        let rows: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(query))
            .fetch_all(&mut connection)
            .await
            .unwrap();
        dump.insert(table.clone(), rows);
    }
    dump
}

#[tokio::test]
async fn every_column_of_every_version_keeps_its_rows() {
    for version in 1..=SCHEMA_VERSION {
        let path = older("rows", version).await;
        let columns = columns(&path).await;
        let before = rows(&path, &columns).await;
        assert!(before["candidates"].len() == 6 && before["events"].len() == 3, "{before:?}");
        Store::open(&path, Access::ReadWrite).await.unwrap().close().await;
        let after = rows(&path, &columns).await;
        for (table, rows) in &before {
            // version 3 gave what was done before it the fidelity and the training that it had
            let kept = after[table].iter().filter(|row| rows.contains(row)).count();
            assert_eq!(
                kept,
                rows.len(),
                "version {version}, {table}: {rows:?} became {:?}",
                after[table]
            );
        }
    }
}

#[tokio::test]
async fn campaigns_of_every_version_read_the_same() {
    for version in 1..=SCHEMA_VERSION {
        let path = older("reads", version).await;
        let store = Store::open(&path, Access::ReadWrite).await.unwrap();
        let stacks = store.snapshot("stacks ü").await.unwrap();
        assert!(!stacks.campaign.is_black_box(), "version {version}");
        assert_eq!(stacks.campaign.seed, u64::MAX - 6);
        assert_eq!(stacks.campaign.latency.decode_budget_us, Some(123.5));
        let states: Vec<&str> = stacks
            .candidates
            .iter()
            .map(|candidate| match &candidate.row.state {
                CandidateState::Proposed => "proposed",
                CandidateState::Training => "training",
                CandidateState::Done => "done",
                CandidateState::Infeasible { reason } => reason,
                CandidateState::Failed { reason, log, .. } => {
                    assert_eq!(log, "line 1\nline 2");
                    reason
                }
            })
            .collect();
        let expected = [
            "done",
            "decode_us is 200, over the budget of 123.5",
            "the loss became NaN",
            "training",
        ];
        assert_eq!(states, expected, "version {version}");
        assert_eq!(stacks.candidates[0].rank, Some(0), "version {version}");
        assert_eq!(stacks.candidates[0].row.curve, [(1024, 5.5), (4096, 3.25)]);
        assert_eq!(
            stacks.candidates[0].row.trained.last().unwrap().tokens,
            4096,
            "version {version}"
        );

        let points = store.snapshot("box").await.unwrap();
        assert!(points.campaign.is_black_box(), "version {version}");
        let words: Vec<String> = points.candidates.iter().map(|c| c.row.subject.words()).collect();
        assert_eq!(words, ["optimizer=sgd layers=3", "optimizer=adam layers=2"]);
        assert_eq!(store.history("stacks ü").await.unwrap().candidates.len(), 4);
    }
}
