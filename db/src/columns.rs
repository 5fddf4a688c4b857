//! Rows of many candidates, with their values as columns, a page at a time.

use std::future::{Future as _, poll_fn};
use std::task::Poll;

use search::value::{Value, Values};
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use crate::error::DbError;

/// Mean and standard error of each value, as columns.
pub(crate) fn value_columns(names: &[&str]) -> String {
    let column = |i: usize| format!(", v{i}.mean, v{i}.standard_error");
    (0..names.len()).map(column).collect::<Vec<_>>().concat()
}

pub(crate) fn value_joins(names: &[&str]) -> String {
    let join = |i: usize| {
        format!(" LEFT JOIN candidate_values v{i} ON v{i}.candidate_id = c.id AND v{i}.name = ?")
    };
    (0..names.len()).map(join).collect::<Vec<_>>().concat()
}

/// Rows that are asked for at once.
pub(crate) const PAGE: i64 = 2000;

/// Hands over the rows of page after page, whose first column is the number that the next page begins behind. While those
/// of a page are taken apart, SQLite's thread finds the next ones: neither waits for the other row by row.
pub(crate) async fn pages<'q>(
    connection: &mut SqliteConnection,
    page: impl Fn(i64) -> Query<'q>,
    sql: impl Fn(sqlx::Error) -> DbError,
    mut take: impl FnMut(&SqliteRow) -> Result<(), DbError>,
) -> Result<(), DbError> {
    let mut rows = page(0).fetch_all(&mut *connection).await.map_err(&sql)?;
    loop {
        let Some(last) = rows.last().filter(|_| rows.len() as i64 == PAGE) else {
            return rows.iter().try_for_each(take);
        };
        let mut next = Box::pin(page(last.try_get(0).map_err(&sql)?).fetch_all(&mut *connection));
        // Asked once, it is sent on its way.
        let begun = poll_fn(|context| Poll::Ready(next.as_mut().poll(context))).await;
        rows.iter().try_for_each(&mut take)?;
        rows = match begun {
            Poll::Ready(rows) => rows,
            Poll::Pending => next.await,
        }
        .map_err(&sql)?;
    }
}

pub(crate) type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

/// With the names bound that [`value_joins`] asks for.
pub(crate) fn bound<'q>(query: Query<'q>, names: &[&'q str]) -> Query<'q> {
    names.iter().fold(query, |query, name| query.bind(*name))
}

/// The values in the columns from `first` on.
pub(crate) fn values_from(
    row: &SqliteRow,
    first: usize,
    names: &[&str],
) -> Result<Values, sqlx::Error> {
    let mut values = Values::new();
    for (place, name) in names.iter().enumerate() {
        if let Some(value) = value(row, first + 2 * place)? {
            values.insert((*name).into(), value);
        }
    }
    Ok(values)
}

/// The value whose mean stands in this column.
pub(crate) fn value(row: &SqliteRow, column: usize) -> Result<Option<Value>, sqlx::Error> {
    let mean: Option<f64> = row.try_get(column)?;
    let Some(mean) = mean else { return Ok(None) };
    Ok(Some(Value { mean, standard_error: row.try_get(column + 1)? }))
}
