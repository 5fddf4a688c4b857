//! How far candidates are, and who contends for the front: as [`search::campaign::front`] has it, without reading more.

use search::objective::Objective;
use search::pareto::{NotFinite, Objectives};
use search::value::Value;
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Row};

use crate::columns::{PAGE, bound, pages, value, value_columns, value_joins};
use crate::error::DbError;
use crate::open::Store;
use crate::snapshot::Counts;

/// A candidate that is done at the fidelity of the front.
pub(crate) struct Contender {
    pub(crate) number: u32,
    pub(crate) reference: Option<String>,
    /// In the order in which they were asked for.
    pub(crate) values: Vec<Option<Value>>,
}

/// Values of the objectives in their order, as they are minimised.
pub(crate) fn as_minimised(
    objectives: &[Objective],
    values: &[Value],
) -> Result<Objectives, NotFinite> {
    let turned = objectives.iter().zip(values).map(|(of, value)| of.turned(value.mean));
    Objectives::new(turned)
}

impl Store {
    /// How far the candidates are, and the highest fidelity that one is done at.
    pub(crate) async fn counts(
        &self,
        connection: &mut SqliteConnection,
        campaign_id: i64,
    ) -> Result<(Counts, i64), DbError> {
        let (all, done, failed, infeasible, top): (i64, i64, i64, i64, i64) = sqlx::query_as(
            "SELECT count(*), coalesce(sum(state = 'done'), 0), coalesce(sum(state = 'failed'), 0), \
             coalesce(sum(state = 'infeasible'), 0), coalesce(max(CASE WHEN state = 'done' THEN fidelity END), 0) \
             FROM candidates WHERE campaign_id = ?",
        )
        .bind(campaign_id)
        .fetch_one(connection)
        .await
        .map_err(|source| self.sql("counting the candidates", source))?;
        let [all, done, failed, infeasible] = [all, done, failed, infeasible].map(|n| n as usize);
        Ok((Counts { all, done, failed, infeasible }, top))
    }

    /// Hands over who is done at this fidelity, by number, with these values.
    pub(crate) async fn contenders(
        &self,
        connection: &mut SqliteConnection,
        (campaign_id, fidelity): (i64, i64),
        names: &[&str],
        mut take: impl FnMut(Contender),
    ) -> Result<(), DbError> {
        let sql = |source| self.sql("reading the candidates", source);
        let text = format!(
            "SELECT c.number, c.reference{} FROM candidates c{} WHERE c.campaign_id = ? AND c.number > ? \
             AND c.state = 'done' AND c.fidelity = ? ORDER BY c.number LIMIT ?",
            value_columns(names),
            value_joins(names),
        );
        let page = |after| {
            let query = bound(sqlx::query(AssertSqlSafe(text.clone())), names);
            query.bind(campaign_id).bind(after).bind(fidelity).bind(PAGE)
        };
        pages(connection, page, sql, |row| {
            take(Contender {
                number: row.try_get(0).map_err(sql)?,
                reference: row.try_get(1).map_err(sql)?,
                values: (0..names.len())
                    .map(|place| value(row, 2 + 2 * place))
                    .collect::<Result<_, _>>()
                    .map_err(sql)?,
            });
            Ok(())
        })
        .await
    }
}
