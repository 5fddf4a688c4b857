//! A study as a page: what is published, what was trained, what came out, with intervals and verdicts.

use std::fmt::Write as _;

use db::snapshot::{Candidate, Snapshot};
use search::campaign::CandidateState;
use search::metric::{Form, Metric};
use search::statistics::{mean_and_error, student_95};
use search::studies::{Judgement, Study, Verdict};
use serde::Serialize;
use tui::quantity;

use crate::words;

/// Columns of the text of a page.
const WIDTH: usize = 128;

/// The page.
#[derive(Debug, Serialize)]
pub(crate) struct Page {
    study: &'static str,
    title: &'static str,
    published: &'static str,
    /// Under what terms, in words.
    terms: String,
    arms: Vec<Row>,
    findings: Vec<Claim>,
    /// The command that made it, for the page.
    #[serde(skip)]
    command: String,
}

/// An arm.
#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    stack: Option<String>,
    /// As the columns are: the values of the study beside its claims, then those of its claims.
    values: Vec<Over>,
    /// Why there is no value.
    trouble: Option<String>,
}

/// A value over the seeds.
#[derive(Debug, Serialize)]
struct Over {
    value: &'static str,
    mean: Option<f64>,
    /// Half the width of the 95 % interval.
    reach: Option<f64>,
}

/// A claim and what became of it.
#[derive(Debug, Serialize)]
struct Claim {
    #[serde(rename = "claim")]
    sentence: &'static str,
    value: &'static str,
    of: &'static str,
    than: &'static str,
    #[serde(flatten)]
    judgement: Judgement,
}

impl Page {
    /// Of the campaign of a study; `terms` says how its arms were trained, `command` how that is done.
    pub(crate) fn of(study: &Study, snapshot: &Snapshot, terms: String, command: String) -> Self {
        let candidate = |name: &str| {
            snapshot.candidates.iter().find(|c| c.row.reference.as_deref() == Some(name))
        };
        let arms = study.arms.iter().map(|arm| Row::of(study, arm.name, candidate(arm.name)));
        let findings = study.findings.iter().map(|finding| {
            let all = |name| candidate(name).map_or_else(Vec::new, |c| by_seed(c, finding.value));
            let beside = all(finding.than);
            let differences: Vec<f64> = all(finding.of)
                .into_iter()
                .filter_map(|(seed, value)| {
                    let (_, other) = beside.iter().find(|(other, _)| *other == seed)?;
                    Some(value - other)
                })
                .collect();
            let (sentence, value) = (finding.claim, finding.value);
            let judgement = finding.judge(&differences);
            Claim { sentence, value, of: finding.of, than: finding.than, judgement }
        });
        Self {
            study: study.name,
            title: study.title,
            published: study.published,
            terms,
            arms: arms.collect(),
            findings: findings.collect(),
            command,
        }
    }

    /// How its claims stand, in a line.
    pub(crate) fn outcome(&self) -> String {
        let all = self.findings.len();
        let count =
            |verdict| self.findings.iter().filter(|c| c.judgement.verdict == verdict).count();
        let (out, not, open) =
            (count(Verdict::ComesOut), count(Verdict::DoesNot), count(Verdict::CannotTell));
        let verb = |n: usize, one, several| if n == 1 { one } else { several };
        let come = verb(out, "comes", "come");
        let mut parts = vec![format!("{out} of {} {come} out", words::count(all, "claim"))];
        if not > 0 {
            parts.push(format!("{not} {} not", verb(not, "does", "do")));
        }
        if open > 0 {
            parts.push(format!("{open} cannot be told by these seeds"));
        }
        parts.join(", ")
    }

    /// In Markdown.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("# {}\n\n", self.title);
        let mut paragraph = |words: &str| {
            text.push_str(&wrapped(words));
            text.push('\n');
        };
        paragraph(&format!("**Published.** {}", self.published));
        paragraph(&format!("**Here,** {}.", self.outcome()));
        let mut rows =
            vec![vec!["claim".to_owned(), "difference".to_owned(), "verdict".to_owned()]];
        rows.extend(self.findings.iter().map(Claim::cells));
        text.push_str(&markdown("lrl", &rows));
        let mut heading = vec!["arm".to_owned()];
        if let Some(row) = self.arms.first() {
            heading.extend(row.values.iter().map(|over| quantity::title(over.value).into_owned()));
        }
        heading.push("stack".to_owned());
        let align = format!("l{}l", "r".repeat(heading.len() - 2));
        let mut rows = vec![heading];
        rows.extend(self.arms.iter().map(Row::cells));
        text.push('\n');
        text.push_str(&markdown(&align, &rows));
        text.push('\n');
        text.push_str(&wrapped(&format!(
            "{} ± is half of the 95 % interval over the seeds (Student's t). Differences are of the first arm that a claim names \
             minus the second, seed by seed: the same seed is the same data. A claim comes out where the whole interval is as claimed, \
             and does not where none of it is. Sizes and lengths of training are those of minutes: what does not come out here may \
             well where it was found.",
            self.terms
        )));
        let _ = write!(text, "\n```sh\n{}\n```\n", self.command);
        text
    }
}

impl Row {
    fn of(study: &Study, name: &'static str, candidate: Option<&Candidate>) -> Self {
        let beside = study.beside.iter().map(|metric| metric.name());
        let values = beside.chain(study.values()).map(|value| Over::of(value, candidate));
        let trouble = match candidate.map(|c| &c.row.state) {
            Some(CandidateState::Done) => None,
            Some(CandidateState::Infeasible { reason } | CandidateState::Failed { reason, .. }) => {
                Some(reason.clone())
            }
            _ => Some("unfinished".to_owned()),
        };
        let stack = candidate.map(|c| c.row.subject.to_string());
        Self { name, stack, values: values.collect(), trouble }
    }

    fn cells(&self) -> Vec<String> {
        let mut cells = vec![self.name.to_owned()];
        cells.extend(self.values.iter().map(Over::cell));
        cells.push(match (&self.trouble, &self.stack) {
            (Some(trouble), _) => format!("({trouble})"),
            (None, Some(stack)) => format!("`{}`", stack.replace('|', "\\|")),
            (None, None) => String::new(),
        });
        cells
    }
}

impl Over {
    fn of(value: &'static str, candidate: Option<&Candidate>) -> Self {
        let Some(candidate) = candidate else { return Self { value, mean: None, reach: None } };
        let whole = Metric::named(value).filter(|metric| metric.is_latency());
        if let Some(timing) = whole.and_then(|metric| candidate.whole(metric.name())) {
            return Self { value, mean: Some(timing.median_us), reach: None };
        }
        let over: Vec<f64> = by_seed(candidate, value).into_iter().map(|(_, x)| x).collect();
        if over.is_empty() {
            let known = candidate.row.values.get(value).map(|value| value.mean);
            return Self { value, mean: known, reach: None };
        }
        let (mean, error) = mean_and_error(&over);
        let reach = error.map(|error| error * student_95(over.len() - 1));
        Self { value, mean: Some(mean), reach }
    }

    fn cell(&self) -> String {
        let Some(mean) = self.mean else { return "–".to_owned() };
        match Form::of(self.value) {
            Form::Bytes => quantity::bytes(mean),
            Form::Scaled => quantity::scaled(mean),
            Form::Measured => within(mean, self.reach),
        }
    }
}

impl Claim {
    fn cells(&self) -> Vec<String> {
        let Judgement { mean, reach, verdict, .. } = self.judgement;
        let sign = if mean.is_some_and(|mean| mean > 0.0) { "+" } else { "" };
        let difference =
            mean.map_or_else(|| "–".to_owned(), |mean| format!("{sign}{}", within(mean, reach)));
        let words = verdict.words();
        let words =
            if verdict == Verdict::CannotTell { words.to_owned() } else { format!("**{words}**") };
        vec![format!("{} ({})", self.sentence, quantity::title(self.value)), difference, words]
    }
}

/// A mean with half the width of its interval, to two digits of that.
fn within(mean: f64, reach: Option<f64>) -> String {
    match reach {
        Some(reach) if reach > 0.0 && reach.is_finite() => {
            let decimals = (1.0 - reach.log10().floor()).clamp(0.0, 9.0) as usize;
            format!("{mean:.decimals$} ±{reach:.decimals$}")
        }
        _ => quantity::significant(mean),
    }
}

/// The value of each finished full training, by seed.
fn by_seed(candidate: &Candidate, value: &str) -> Vec<(u64, f64)> {
    let full = candidate.row.trained.iter().filter(|t| t.tokens == candidate.row.fidelity);
    full.filter_map(|t| Some((t.seed, t.values.get(value)?.mean))).collect()
}

/// A paragraph in lines of [`WIDTH`].
fn wrapped(words: &str) -> String {
    let mut text = String::new();
    let mut column = 0;
    for word in words.split_whitespace() {
        let width = word.chars().count();
        if column > 0 && column + 1 + width > WIDTH {
            text.push('\n');
            column = 0;
        } else if column > 0 {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += width;
    }
    text.push('\n');
    text
}

/// A table, headings first.
fn markdown(align: &str, rows: &[Vec<String>]) -> String {
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        let _ = writeln!(text, "| {} |", row.join(" | "));
        if index == 0 {
            let rule = align.chars().map(|c| if c == 'r' { "---:" } else { "---" });
            let _ = writeln!(text, "| {} |", rule.collect::<Vec<_>>().join(" | "));
        }
    }
    text
}
