//! Files that are not for this program are left as they are.

use db::{Access, DbError, SCHEMA_VERSION, Store};

use crate::samples::{folder, store};

/// Runs SQL on a file as another program would.
async fn sql(path: &std::path::Path, statement: &'static str) {
    use sqlx::Connection;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn a_newer_file_is_refused_untouched() {
    let (store, _) = store("newer").await;
    let path = store.path().to_owned();
    store.close().await;
    sql(&path, "PRAGMA user_version = 99").await;
    let before = std::fs::read(&path).unwrap();
    for access in [Access::ReadOnly, Access::ReadWrite] {
        let error = Store::open(&path, access).await.unwrap_err();
        assert!(
            matches!(error, DbError::Newer { found: 99, known: SCHEMA_VERSION, .. }),
            "{error}"
        );
    }
    assert_eq!(std::fs::read(&path).unwrap(), before);
    let neighbours = std::fs::read_dir(path.parent().unwrap()).unwrap().count();
    assert_eq!(neighbours, 1, "no -wal, no -shm");
}

#[tokio::test]
async fn a_newer_version_that_is_still_in_the_log_is_refused() {
    use sqlx::Connection;
    let (store, _) = store("newer_wal").await;
    let path = store.path().to_owned();
    // Another program holds the file open: its change of the version is in the -wal, not in the header.
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let mut other = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql("PRAGMA user_version = 99").execute(&mut other).await.unwrap();
    for access in [Access::ReadOnly, Access::ReadWrite] {
        let error = Store::open(&path, access).await.unwrap_err();
        assert!(matches!(error, DbError::Newer { found: 99, .. }), "{error}");
    }
}

#[tokio::test]
async fn a_file_of_another_program_is_refused_untouched() {
    let folder = folder("foreign");
    let text = folder.join("notes.db");
    std::fs::write(&text, "my notes, longer than a header ".repeat(20)).unwrap();
    let short = folder.join("short.db");
    std::fs::write(&short, "x").unwrap();
    let other = folder.join("other.db");
    sql(&other, "CREATE TABLE notes (text)").await;
    let other_id = folder.join("other_id.db");
    sql(&other_id, "PRAGMA application_id = 5; CREATE TABLE notes (text)").await;
    for path in [text, short, other, other_id, folder.clone()] {
        let before = std::fs::read(&path).ok();
        for access in [Access::ReadOnly, Access::ReadWrite] {
            let error = Store::open(&path, access).await.unwrap_err();
            assert!(matches!(error, DbError::Foreign { .. }), "{}: {error}", path.display());
        }
        assert_eq!(std::fs::read(&path).ok(), before, "{}", path.display());
    }
}

#[tokio::test]
async fn an_empty_file_becomes_a_database() {
    let path = folder("empty").join("empty.db");
    std::fs::write(&path, "").unwrap();
    assert!(matches!(Store::open(&path, Access::ReadOnly).await, Err(DbError::Missing { .. })));
    let store = Store::open(&path, Access::ReadWrite).await.unwrap();
    assert!(store.campaigns().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_may_make_the_same_file_at_once() {
    let path = folder("at_once").join("new.db");
    let opens: Vec<_> = (0..8)
        .map(|_| {
            let path = path.clone();
            tokio::spawn(async move { Store::open(&path, Access::ReadWrite).await.map(|_| ()) })
        })
        .collect();
    for open in opens {
        open.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn the_schema_number_is_that_of_the_newest_migration() {
    let newest = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations"))
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap()[..4].parse::<i64>().unwrap())
        .max();
    assert_eq!(newest, Some(SCHEMA_VERSION));
    let (store, _) = store("number").await;
    let path = store.path().to_owned();
    store.close().await;
    let header = std::fs::read(&path).unwrap();
    assert_eq!(&header[68..72], b"dFnt");
    assert_eq!(i64::from(header[63]), SCHEMA_VERSION);
}

/// A file as the first version wrote it, with one candidate that is done and one in training.
const FIRST: &str = "
    INSERT INTO campaigns VALUES (1, 'old', 'name = \"old\"', '/data', 3, 2, 4096, '[\"bits_per_byte\",\"decode_us\"]', '{}', 0, 5, 9);
    INSERT INTO candidates VALUES (1, 1, 1, 'd=64,vocab=256 | ffn(8)', 'a', NULL, 'random', 3, 'done', NULL, NULL, 0, 4096, 2.5, NULL);
    INSERT INTO candidates VALUES (2, 1, 2, 'd=64,vocab=256 | ffn(9)', 'b', NULL, 'random', 3, 'training', NULL, NULL, 0, 512, 0.5, NULL);
    INSERT INTO candidate_values VALUES (1, 'bits_per_byte', 2.5, 0.1), (1, 'decode_us', 9.0, 0.2), (2, 'decode_us', 8.0, NULL);
";

/// A file of an older version with these rows in it: each migration as sqlx does it, and its row in a table of migrations.
async fn older(name: &str, version: i64, rows: &str) -> std::path::PathBuf {
    let path = folder(name).join("old.db");
    let mut text = "CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL, \
         installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, success BOOLEAN NOT NULL, checksum BLOB NOT NULL, \
         execution_time BIGINT NOT NULL);"
        .to_owned();
    for migration in sqlx::migrate!("./migrations").iter().filter(|m| m.version <= version) {
        let hex =
            migration.checksum.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        text = format!(
            "{text} {} ; INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             VALUES ({}, '{}', TRUE, x'{hex}', 1);",
            migration.sql.as_str(),
            migration.version,
            migration.description
        );
    }
    sql(&path, format!("{text} {rows}").leak()).await;
    path
}

#[tokio::test]
async fn an_older_file_is_brought_up_to_date_and_keeps_what_it_held() {
    let path = older("older", 1, FIRST).await;
    let error = Store::open(&path, Access::ReadOnly).await.unwrap_err();
    assert!(
        error.to_string().contains("the next `deltafront run` on it brings it up to date"),
        "{error}"
    );
    let store = Store::open(&path, Access::ReadWrite).await.unwrap();
    let snapshot = store.snapshot("old").await.unwrap();
    let [done, training] = snapshot.candidates.as_slice() else { panic!("two candidates") };
    assert_eq!((done.row.fidelity, done.rank, training.row.fidelity), (4096, Some(0), 0));
    let [trained] = done.row.trained.as_slice() else { panic!("one training") };
    assert_eq!((trained.tokens, trained.seed, trained.seconds), (4096, 3, 2.5));
    assert_eq!(
        trained.values.keys().map(search::value::Name::as_str).collect::<Vec<_>>(),
        ["bits_per_byte"]
    );
    assert!(training.row.trained.is_empty());
    drop(store);
    Store::open(&path, Access::ReadOnly).await.unwrap();
}

/// Three campaigns as version 4 left them: one that gave up because of candidates 2 and 12, and was not gone on with; the same
/// after a run that went on; one that ended by another error.
const GAVE_UP: &str = "
    INSERT INTO campaigns (id, name, config_toml, config_folder, seed, evaluations, tokens, objectives, latency, created_unix_s) VALUES
        (1, 'gave up', '# Made by `deltafront optimize`. Not by itself', '/', 3, 9, 1, '[]', '{}', 5),
        (2, 'went on', '', '/', 3, 9, 1, '[]', '{}', 5), (3, 'broke', '', '/', 3, 9, 1, '[]', '{}', 5);
    INSERT INTO candidates (campaign_id, number, architecture, hash, origin, seed, state, reason, failed_attempts, tokens, train_seconds)
        SELECT c.id, n.value, 'd=64,vocab=256 | ffn(' || (7 + n.value) || ')', 'h' || n.value, 'random', 3, 'failed', 'died', 1, 0, 0.0
        FROM campaigns c JOIN json_each('[1, 2, 12]') n;
    INSERT INTO runs (id, campaign_id, host, pid, version, started_unix_s, heartbeat_unix_s, ended_unix_s, end)
        SELECT id, id, 'host', 1, '0.1.0', 1, 2, 3, 'failed' FROM campaigns;
    INSERT INTO runs (id, campaign_id, host, pid, version, started_unix_s, heartbeat_unix_s, ended_unix_s, end)
        VALUES (9, 2, 'host', 1, '0.1.0', 4, 5, 6, 'paused');
    INSERT INTO events (campaign_id, seq, at_unix_s, kind, body) VALUES
        (1, 1, 1, 'start', 'a run begins'), (1, 2, 2, 'gave up', '2, 12'), (1, 3, 3, 'failed attempt', 'candidate 1'),
        (2, 1, 1, 'start', 'a run begins'), (2, 2, 2, 'gave up', '2, 12'),
        (3, 1, 1, 'gave up', '2, 12'), (3, 2, 2, 'start', 'a run begins');
";

#[tokio::test]
async fn candidates_that_an_older_program_gave_up_because_of_are_tried_again() {
    let path = older("gave_up", 4, GAVE_UP).await;
    let store = Store::open(&path, Access::ReadWrite).await.unwrap();
    let mut given_up = Vec::new();
    for name in ["gave up", "went on", "broke"] {
        assert!(!store.campaign(name).await.unwrap().is_black_box(), "{name}");
        for row in store.history(name).await.unwrap().candidates {
            if row.given_up {
                given_up.push((name, row.number));
            }
        }
    }
    assert_eq!(given_up, [("gave up", 2), ("gave up", 12)]);
}

/// Which names the third version took for those of values that are known without training: a migration is never changed,
/// but what it says must have been true of the values that there were.
#[test]
fn what_a_migration_says_of_values_is_what_the_table_of_metrics_says() {
    let text = include_str!("../../migrations/0003_trainings.sql");
    let (_, list) = text.split_once("NOT IN (").unwrap();
    let (list, _) = list.split_once(')').unwrap();
    let listed: Vec<&str> = list.split(',').map(|name| name.trim().trim_matches('\'')).collect();
    let later = ["active_parameters", "memory_bytes", "throughput", "largest_batch"];
    let known = search::metric::Metric::ALL.into_iter();
    let known = known.filter(|metric| metric.is_known_before_training());
    let known: Vec<&str> = known.map(search::metric::Metric::name).collect();
    let of_then: Vec<&str> = known.into_iter().filter(|name| !later.contains(name)).collect();
    assert_eq!(listed, of_then);
}

/// What tables and indices consist of: each column, key and check, without blanks and comments.
async fn definitions(path: &std::path::Path) -> std::collections::BTreeSet<String> {
    use sqlx::Connection;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    let texts: Vec<(String, String)> = sqlx::query_as(
        "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE '\\_%' ESCAPE '\\'",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    let mut definitions = std::collections::BTreeSet::new();
    for (name, text) in texts {
        let bare = text.lines().map(|line| line.split("--").next().unwrap_or_default());
        let bare: String = bare.collect::<String>().split_whitespace().collect();
        let (mut depth, mut definition) = (0, String::new());
        for c in bare.chars() {
            depth += i32::from(c == '(') - i32::from(c == ')');
            if depth == 1 && matches!(c, ',' | '(') || depth == 0 && c == ')' {
                definitions.insert(format!("{name}: {definition}"));
                definition.clear();
            } else {
                definition.push(c);
            }
        }
        definitions.insert(format!("{name}: {definition}"));
    }
    definitions
}

#[tokio::test]
async fn the_schema_to_read_is_that_of_a_new_database() {
    let (store, _) = store("schema").await;
    let made = store.path().to_owned();
    store.close().await;
    let read = folder("schema_sql").join("read.db");
    sql(&read, include_str!("../../schema.sql")).await;
    let (read, made) = (definitions(&read).await, definitions(&made).await);
    assert!(made.len() > 80, "{made:?}");
    let differ: Vec<&String> = read.symmetric_difference(&made).collect();
    assert!(differ.is_empty(), "{differ:#?}");
}
