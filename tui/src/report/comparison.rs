//! Stacks at equal latency as a table, as in arXiv 2511.18890: parameters, latency, loss over several seeds.

use db::snapshot::{Candidate, Snapshot};
use search::campaign::CandidateState;
use search::latency::Timing;
use search::metric::Metric;
use search::objective::Objective;
use search::statistics::mean_and_error;
use search::wire::Value;
use serde::Serialize;
use tui::quantity;

use crate::{report, words};

/// The alignment of the table's columns.
pub(super) const ALIGN: &str = "llrrrrrrl";

/// The table.
#[derive(Debug, Serialize)]
pub(crate) struct Comparison {
    /// The value that the stacks are ordered by.
    value: String,
    /// Tokens of each training.
    tokens: u64,
    /// Best first, those without a value last.
    rows: Vec<Row>,
}

/// One stack.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    is_chosen: bool,
    text: String,
    parameters: Option<f64>,
    /// Of the whole model.
    decode: Option<Timing>,
    /// The same with what another timing may differ by.
    #[serde(skip)]
    decode_shown: Option<String>,
    /// The sum of its parts.
    decode_composed: Option<Value>,
    seeds: usize,
    /// Mean over the seeds and its standard error.
    loss: Option<Value>,
    /// Its mean minus that of the chosen stack, over the seeds that both have: the same seed is the same data.
    difference: Option<Value>,
    /// Why there is no value.
    trouble: Option<String>,
}

impl Comparison {
    /// Of a campaign whose candidates were given by name; `chosen` is the name of the one that the others are set beside.
    pub(crate) fn of(snapshot: &Snapshot, chosen: &str) -> Self {
        let candidates = &snapshot.candidates;
        let objectives = &snapshot.campaign.objectives;
        let is_trained = |objective: &&Objective| {
            let has = |c: &Candidate| {
                c.row.trained.iter().any(|t| t.values.contains_key(objective.name()))
            };
            candidates.iter().any(has)
        };
        let objective = objectives.iter().find(is_trained).or(objectives.first()).cloned();
        let objective = objective.unwrap_or_else(|| {
            Objective::new(Metric::BitsPerByte.name(), Metric::BitsPerByte.facts().direction)
        });
        let value = objective.name().to_owned();
        let of_chosen = candidates.iter().find(|c| c.row.reference.as_deref() == Some(chosen));
        let of_chosen = of_chosen.map_or_else(Vec::new, |candidate| losses(candidate, &value));
        let mut rows: Vec<Row> = candidates
            .iter()
            .filter_map(|candidate| {
                let name = candidate.row.reference.clone()?;
                Some(Row::of(candidate, name, chosen, &value, &of_chosen))
            })
            .collect();
        let mean = |row: &Row| row.loss.map_or(f64::INFINITY, |loss| objective.turned(loss.mean));
        rows.sort_by(|a, b| mean(a).total_cmp(&mean(b)).then_with(|| a.name.cmp(&b.name)));
        Self { value, tokens: snapshot.campaign.tokens, rows }
    }

    /// The table as its cells, headings first.
    pub(super) fn cells(&self) -> Vec<Vec<String>> {
        let mut heading: Vec<String> =
            ["", "", Metric::Parameters.facts().title, Metric::DecodeUs.facts().title, "of parts"]
                .map(str::to_owned)
                .to_vec();
        heading.push(quantity::title(&self.value).into_owned());
        heading.extend(["difference", "seeds", "stack"].map(str::to_owned));
        let mut rows = vec![heading];
        let dash = || "–".to_owned();
        for row in &self.rows {
            let mark = if row.is_chosen { "●" } else { "◆" };
            rows.push(vec![
                mark.to_owned(),
                row.name.clone(),
                row.parameters.map_or_else(dash, quantity::scaled),
                row.decode_shown.clone().unwrap_or_else(dash),
                row.decode_composed.map_or_else(dash, quantity::measured),
                row.loss.map_or_else(dash, quantity::measured),
                row.difference.map_or_else(dash, signed),
                row.seeds.to_string(),
                match &row.trouble {
                    Some(trouble) => format!("({trouble})"),
                    None => quantity::shortened(&row.text, 56),
                },
            ]);
        }
        rows
    }

    /// What stands in the table.
    pub(super) fn note(&self) -> String {
        let mut text = format!(
            "●: the stack that was chosen, ◆: hand-designed ones, each as wide as decodes in the same time. Latencies are of \
             whole\nmodels, ± what another timing differs by. Each stack was trained for {} tokens from each seed; ± is one \
             standard error over\nthe seeds; differences are to the chosen stack, seed by seed.\n",
            quantity::scaled(self.tokens as f64)
        );
        if self.rows.iter().filter_map(|row| row.decode.as_ref()).any(Timing::is_disturbed) {
            text.push_str("~: other processes loaded the machine.\n");
        }
        text
    }

    pub(crate) fn text(&self) -> String {
        words::table(ALIGN, &self.cells()) + &self.note()
    }
}

impl Row {
    fn of(
        candidate: &Candidate,
        name: String,
        chosen: &str,
        value: &str,
        of_chosen: &[(u64, f64)],
    ) -> Self {
        let losses = losses(candidate, value);
        let means: Vec<f64> = losses.iter().map(|(_, loss)| *loss).collect();
        let differences: Vec<f64> = losses
            .iter()
            .filter_map(|(seed, loss)| {
                let (_, other) = of_chosen.iter().find(|(other, _)| other == seed)?;
                Some(loss - other)
            })
            .collect();
        let is_chosen = name == chosen;
        Self {
            is_chosen,
            text: candidate.row.subject.to_string(),
            parameters: candidate.row.values.get(Metric::Parameters.name()).map(|value| value.mean),
            decode: candidate.whole(Metric::DecodeUs.name()).cloned(),
            decode_shown: report::whole(candidate, Metric::DecodeUs.name()),
            decode_composed: candidate
                .row
                .sum_us(Metric::DecodeUs.name())
                .map(|mean| Value { mean, standard_error: None })
                .or_else(|| candidate.row.values.get(Metric::DecodeUs.name()).copied()),
            seeds: losses.len(),
            // With one seed the trainer's own error, of the held-out text, says something else.
            loss: over_seeds(&means),
            difference: if is_chosen { None } else { over_seeds(&differences) },
            trouble: match &candidate.row.state {
                CandidateState::Infeasible { reason } | CandidateState::Failed { reason, .. } => {
                    Some(reason.clone())
                }
                CandidateState::Proposed | CandidateState::Training => {
                    Some("unfinished".to_owned())
                }
                CandidateState::Done => None,
            },
            name,
        }
    }
}

/// The value of each finished full training, by seed.
fn losses(candidate: &Candidate, value: &str) -> Vec<(u64, f64)> {
    let full = candidate.row.trained.iter().filter(|t| t.tokens == candidate.row.fidelity);
    full.filter_map(|t| Some((t.seed, t.values.get(value)?.mean))).collect()
}

fn over_seeds(values: &[f64]) -> Option<Value> {
    let (mean, standard_error) = mean_and_error(values);
    (!values.is_empty()).then_some(Value { mean, standard_error })
}

fn signed(value: Value) -> String {
    let shown = quantity::measured(value);
    if value.mean > 0.0 { format!("+{shown}") } else { shown }
}
