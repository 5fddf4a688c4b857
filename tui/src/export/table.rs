//! A whole campaign as a table of its candidates: csv, jsonl, and a study of Optuna's.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use db::optuna::{Parameter, Study, Trial, TrialState};
use db::snapshot::{Campaign, Candidate};
use search::Architecture;
use search::architecture::MixerKind;
use search::campaign::CandidateState;
use search::subject::{Assignment, Subject};
use search::value::Name;
use serde_json::{Value, json};

/// A form of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TableForm {
    Csv,
    Jsonl,
    Optuna,
}

/// The columns of a candidate that are no values.
const COLUMNS: [&str; 12] = [
    "candidate",
    "state",
    "reason",
    "text",
    "id",
    "origin",
    "reference",
    "rank",
    "tokens",
    "train_seconds",
    "seed",
    "checkpoint",
];

/// What the columns say.
fn columns(candidate: &Candidate) -> [Value; 12] {
    let row = &candidate.row;
    [
        json!(row.number),
        json!(row.state.word()),
        json!(row.state.reason()),
        json!(row.subject.to_string()),
        json!(candidate.id),
        json!(row.origin),
        json!(row.reference),
        json!(candidate.rank),
        json!(row.tokens),
        json!(row.train_seconds),
        json!(row.seed),
        json!(row.checkpoint),
    ]
}

/// A row for each candidate; each value is followed by its standard error.
pub(crate) fn csv(candidates: &[&Candidate]) -> String {
    let names: BTreeSet<&Name> = candidates.iter().flat_map(|one| one.row.values.keys()).collect();
    let mut head: Vec<String> = COLUMNS.map(str::to_owned).to_vec();
    head.extend(names.iter().flat_map(|name| [name.to_string(), format!("{name}_error")]));
    let mut text = line(&head);
    for candidate in candidates {
        let mut cells: Vec<String> = columns(candidate).iter().map(cell).collect();
        for name in &names {
            let value = candidate.row.values.get(*name);
            cells.push(value.map_or(String::new(), |value| value.mean.to_string()));
            let error = value.and_then(|value| value.standard_error);
            cells.push(error.map_or(String::new(), |error| error.to_string()));
        }
        text.push_str(&line(&cells));
    }
    text
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A line of RFC 4180.
fn line(cells: &[String]) -> String {
    let quoted = |cell: &String| {
        if cell.contains(['"', ',', '\n', '\r']) {
            format!("\"{}\"", cell.replace('"', "\"\""))
        } else {
            cell.clone()
        }
    };
    cells.iter().map(quoted).collect::<Vec<_>>().join(",") + "\n"
}

/// An object for each candidate.
pub(crate) fn jsonl(candidates: &[&Candidate]) -> anyhow::Result<String> {
    let mut text = String::new();
    for candidate in candidates {
        let mut object: serde_json::Map<String, Value> =
            COLUMNS.iter().map(|&name| name.to_owned()).zip(columns(candidate)).collect();
        object.retain(|_, value| !value.is_null());
        object.insert("values".to_owned(), json!(candidate.row.values));
        match &candidate.row.subject {
            Subject::Stack(stack) => object.insert("architecture".to_owned(), json!(stack)),
            Subject::Point(point) => object.insert("parameters".to_owned(), json!(point)),
        };
        object.insert("curve".to_owned(), json!(candidate.row.curve));
        writeln!(text, "{}", Value::Object(object))?;
    }
    Ok(text)
}

/// A study whose trials are the candidates. What a stack is stands in a few numbers; its text among the attributes.
pub(crate) fn study(campaign: &Campaign, candidates: &[&Candidate]) -> Study {
    let subjects: Vec<&Subject> = candidates.iter().map(|one| &one.row.subject).collect();
    let mut begun_s = campaign.created_unix_s as f64;
    let trials = candidates.iter().map(|candidate| {
        let row = &candidate.row;
        let values: Option<Vec<f64>> = campaign
            .objectives
            .iter()
            .map(|objective| row.values.get(objective.name()).map(|value| value.mean))
            .collect();
        let state = match (&row.state, &values) {
            (CandidateState::Done, Some(_)) => TrialState::Complete,
            (CandidateState::Infeasible { .. }, _) => TrialState::Pruned,
            (CandidateState::Failed { .. } | CandidateState::Done, _) => TrialState::Failed,
            (CandidateState::Proposed | CandidateState::Training, _) => TrialState::Running,
        };
        let mut attributes: Vec<(String, Value)> = COLUMNS
            .iter()
            .map(|&name| name.to_owned())
            .zip(columns(candidate))
            .filter(|(_, value)| !value.is_null())
            .collect();
        for (name, value) in &row.values {
            attributes.push((format!("value:{name}"), json!(value.mean)));
            if let Some(error) = value.standard_error {
                attributes.push((format!("error:{name}"), json!(error)));
            }
        }
        let trial = Trial {
            state,
            parameters: match &row.subject {
                Subject::Stack(stack) => of_stack(stack, &subjects),
                Subject::Point(point) => of_point(point, &subjects),
            },
            values: values.filter(|_| state == TrialState::Complete).unwrap_or_default(),
            attributes,
            begun_s,
            seconds: row.train_seconds,
        };
        begun_s += row.train_seconds;
        trial
    });
    Study {
        name: campaign.name.clone(),
        objectives: campaign
            .objectives
            .iter()
            .map(|objective| (objective.name().to_owned(), objective.is_maximised()))
            .collect(),
        trials: trials.collect(),
    }
}

/// Width, depth, layers with an FFN, and layers of each kind of mixer that the campaign has.
fn of_stack(stack: &Architecture, all: &[&Subject]) -> Vec<(String, Parameter)> {
    let counts = |stack: &Architecture| -> Vec<(String, i64)> {
        let layers = stack.layers();
        let mut counts = vec![
            ("d_model".to_owned(), i64::from(stack.d_model())),
            ("depth".to_owned(), layers.len() as i64),
            ("ffn".to_owned(), layers.iter().filter(|layer| layer.ffn.is_some()).count() as i64),
        ];
        for kind in MixerKind::ALL {
            let of_kind =
                layers.iter().filter(|layer| layer.mixer.is_some_and(|m| m.kind() == kind));
            counts.push((kind.name().to_owned(), of_kind.count() as i64));
        }
        counts
    };
    let others: Vec<Vec<(String, i64)>> =
        all.iter().filter_map(|subject| subject.stack()).map(counts).collect();
    let parameter = |(index, (name, value)): (usize, (String, i64))| {
        let values = others.iter().map(|counts| counts[index].1);
        let range = (values.clone().min()?, values.max()?);
        // a mixer that no stack has says nothing
        (range != (0, 0)).then_some((name, Parameter::Whole { value, range }))
    };
    counts(stack).into_iter().enumerate().filter_map(parameter).collect()
}

/// The settings of a black box, each one of those that its candidates have.
fn of_point(point: &Assignment, all: &[&Subject]) -> Vec<(String, Parameter)> {
    let settings = |point: &Assignment| -> serde_json::Map<String, Value> {
        json!(point).as_object().cloned().unwrap_or_default()
    };
    settings(point)
        .into_iter()
        .map(|(name, value)| {
            let mut choices: Vec<Value> = Vec::new();
            for other in all.iter().filter_map(|subject| subject.assignment()) {
                if let Some(value) = settings(other).remove(&name)
                    && !choices.contains(&value)
                {
                    choices.push(value);
                }
            }
            choices.sort_by_key(|value| value.as_f64().map_or(i64::MAX, |x| (x * 1e6) as i64));
            let index = choices.iter().position(|choice| *choice == value).unwrap_or_default();
            (name, Parameter::Choice { index, choices })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_that_would_break_a_line_are_quoted() {
        let cells = ["d=16,vocab=2 | \"x\"", "plain", ""].map(str::to_owned);
        assert_eq!(line(&cells), "\"d=16,vocab=2 | \"\"x\"\"\",plain,\n");
    }
}
