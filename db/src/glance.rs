//! What the first screen shows of a large campaign, read in a fraction of the time that all its candidates take: who is in
//! the plot, how many are how far, and the first rows of the table.

use std::collections::{BTreeMap, BTreeSet};

use search::objective::Objective;
use search::pareto::{Objectives, ranks};
use search::value::Value;
use sqlx::Connection;

use crate::contenders::{Contender, as_minimised};
use crate::error::DbError;
use crate::open::Store;
use crate::outline::shown;
use crate::snapshot::{Candidate, Counts, Snapshot};

/// Campaigns of fewer candidates are read whole in less time than the eye takes.
const FEWEST: i64 = 2000;

/// Rows of a table that are read at least, where there are so many contenders for the front.
const ROWS: usize = 200;

/// A campaign at a glance.
#[derive(Debug, Clone, PartialEq)]
pub struct Glance {
    /// The campaign with those of its candidates that are first in the table: the best ranks of non-domination, each
    /// whole. Of trainings of several lengths, which all candidates have a part in, nothing is said.
    pub snapshot: Snapshot,
    /// All contenders for the front, by number.
    pub marks: Vec<Mark>,
    /// How far all candidates are.
    pub counts: Counts,
}

/// A contender for the front, as a plot shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    /// The number of the candidate.
    pub number: u32,
    /// The name of the reference stack that it is.
    pub reference: Option<String>,
    /// Its objectives, in the order of the campaign's.
    pub values: Vec<Value>,
    /// Its rank of non-domination, 0 on the front.
    pub rank: u32,
}

impl Store {
    /// A campaign at a glance; none for one that is small enough to be read at once, of which no candidate is done, or whose
    /// front may be foretold, which takes all candidates.
    ///
    /// # Errors
    /// When there is no such campaign or the file cannot be read.
    pub async fn glance(&self, name: &str) -> Result<Option<Glance>, DbError> {
        let sql = |source| self.sql("reading the campaign", source);
        let campaign_id = self.campaign_id(name).await?;
        let mut connection = self.pool.acquire().await.map_err(sql)?;
        let mut transaction = connection.begin().await.map_err(sql)?;
        let last: i64 = sqlx::query_scalar(
            "SELECT coalesce(max(number), 0) FROM candidates WHERE campaign_id = ?",
        )
        .bind(campaign_id)
        .fetch_one(&mut *transaction)
        .await
        .map_err(sql)?;
        if last < FEWEST {
            return Ok(None);
        }
        let (campaign, revision) = self.head_in(&mut transaction, campaign_id).await?;
        let (counts, top) = self.counts(&mut transaction, campaign_id).await?;
        if campaign.aims_beyond(top) {
            return Ok(None);
        }
        let names: Vec<&str> = campaign.objectives.iter().map(Objective::name).collect();
        let (mut marks, mut points) = (Vec::new(), Vec::new());
        self.contenders(&mut transaction, (campaign_id, top), &names, |contender| {
            let Contender { number, reference, values } = contender;
            let values: Option<Vec<Value>> = values.into_iter().collect();
            if let Some(values) = values
                && let Ok(point) = as_minimised(&campaign.objectives, &values)
            {
                marks.push(Mark { number, reference, values, rank: 0 });
                points.push(point);
            }
        })
        .await?;
        let Some(first) = rank(&mut marks, &points) else { return Ok(None) };
        let names = shown(&campaign);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let (rows, ids) =
            self.outlined(&mut transaction, campaign_id, &names, Some(&first)).await?;
        let mut candidates = Candidate::unranked(rows, ids);
        for candidate in &mut candidates {
            let of = |mark: &Mark| mark.number.cmp(&candidate.row.number);
            candidate.rank = marks.binary_search_by(of).ok().map(|place| marks[place].rank);
        }
        self.mark_disturbed(&mut transaction, (campaign_id, &campaign), &mut candidates).await?;
        transaction.commit().await.map_err(sql)?;
        let (agreements, predictions, between_s) = (Vec::new(), Vec::new(), BTreeMap::new());
        let snapshot =
            Snapshot { campaign, candidates, agreements, predictions, between_s, revision };
        Ok(Some(Glance { snapshot, marks, counts }))
    }
}

/// Gives marks their ranks, and says who is first in a table; none where there are no marks.
fn rank(marks: &mut [Mark], points: &[Objectives]) -> Option<BTreeSet<u32>> {
    let mut of_rank: Vec<Vec<u32>> = Vec::new();
    for (mark, rank) in marks.iter_mut().zip(ranks(points)) {
        mark.rank = rank;
        let place = rank as usize;
        of_rank.resize(of_rank.len().max(place + 1), Vec::new());
        of_rank[place].push(mark.number);
    }
    let mut first = BTreeSet::new();
    for numbers in of_rank {
        first.extend(numbers);
        if first.len() >= ROWS {
            break;
        }
    }
    (!first.is_empty()).then_some(first)
}
