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
