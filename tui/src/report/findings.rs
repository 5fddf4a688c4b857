//! One campaign with its uncertainty: the front and the chance of each place on it, rank correlations between fidelities,
//! noise between seeds, composed latencies beside whole models.

use std::collections::{BTreeMap, HashSet};

use db::snapshot::{Campaign, Snapshot};
use search::campaign::findings::{Agreement, Composition, Retimed, compositions, retimed};
use search::campaign::front::Contenders;
use search::campaign::prediction::{Backtest, Expected};
use search::campaign::{Candidate, measured, trust};
use search::objective::Objective;
use search::value::{Value, Values};
use serde::Serialize;
use tui::{agreement, quantity};

use super::drift;
use crate::{report, words};

/// What a campaign tells of how far it is to be trusted.
#[derive(Debug, Serialize)]
pub(crate) struct Findings {
    /// Tokens that the front's members were trained for; 1 where there is no such thing.
    pub(super) tokens: u64,
    /// The tokens that count: objectives are what candidates would be after so many.
    pub(super) target_tokens: u64,
    /// Whether they are foretold, not measured.
    pub(super) foretold: bool,
    /// Whether candidates are compared on the same parts of the text.
    #[serde(skip)]
    is_of_parts: bool,
    /// Members of the front, and who may be one, the likeliest first.
    pub(super) front: Vec<Member>,
    /// Rank correlations between trainings of different lengths.
    pub(super) agreements: Vec<Agreement>,
    /// How well each length of training foretells the next.
    pub(super) predictions: Vec<Backtest>,
    /// Of each objective that trainers report.
    seed_noise: Vec<SeedNoise>,
    /// Latencies summed from parts beside those of whole models.
    pub(super) compositions: Vec<Composition>,
    /// Whole models beside themselves, timed once more.
    pub(super) retimed: Vec<Retimed>,
    /// Seconds between the two timings, on average, by the name of the latency.
    seconds_between: BTreeMap<String, f64>,
}

/// What is measured of a campaign when it is read: what its trainings of different lengths say of each other, and how long
/// after the first its whole models were timed again.
pub(crate) struct Measured {
    agreements: Vec<Agreement>,
    predictions: Vec<Backtest>,
    seconds_between: BTreeMap<String, f64>,
}

impl Measured {
    pub(crate) fn of(snapshot: &Snapshot) -> Self {
        Self {
            agreements: snapshot.agreements.clone(),
            predictions: snapshot.predictions.clone(),
            seconds_between: snapshot.between_s.clone(),
        }
    }
}

/// A candidate that is on the front, or could be.
#[derive(Debug, Serialize)]
pub(super) struct Member {
    pub(super) number: u32,
    pub(super) text: String,
    pub(super) reference: Option<String>,
    pub(super) on_front: bool,
    pub(super) membership: f64,
    pub(super) seeds: usize,
    pub(super) objectives: Values,
    /// How much worse than the best of the members the first objective is that training changes, with the error of the
    /// difference: what both share drops out.
    pub(super) behind: Option<Value>,
    /// Of these that were also taken on text that nothing was selected on.
    pub(super) test: Values,
}

/// How much the seed of a training matters.
#[derive(Debug, Serialize)]
struct SeedNoise {
    value: String,
    /// Standard deviation between seeds; none before a candidate was trained from two.
    deviation: Option<f64>,
    degrees_of_freedom: usize,
}

/// The members, each with how far it is behind the best of them.
fn with_differences(members: Vec<(Member, Expected)>, objectives: &[Objective]) -> Vec<Member> {
    let is_trained = |&at: &usize| members.iter().any(|(_, of)| of.noises[at].total() > 0.0);
    let at = (0..objectives.len()).find(is_trained);
    let value = |of: &Expected| at.map_or(0.0, |at| of.objectives.values()[at]);
    let best = members.iter().min_by(|(_, a), (_, b)| value(a).total_cmp(&value(b)));
    let best = best.map(|(member, of)| (member.number, of.clone()));
    let behind = |member: &Member, of: &Expected| {
        let (at, (number, best)) = (at?, best.as_ref()?);
        let error = of.noises[at].beside(&best.noises[at]);
        let mean = value(of) - value(best);
        (member.number != *number).then_some(Value { mean, standard_error: Some(error) })
    };
    let with = |(member, of): (Member, Expected)| Member { behind: behind(&member, &of), ..member };
    members.into_iter().map(with).collect()
}

/// The objectives of a candidate with their whole errors; those without, as they were measured.
fn objectives(row: &Candidate, objectives: &[Objective], expected: &Expected) -> Values {
    let measured =
        objectives.iter().filter_map(|of| Some((of.name().into(), of.value(&row.values)?)));
    measured.chain(expected.values(objectives)).collect()
}

impl Findings {
    pub(crate) fn of(campaign: &Campaign, rows: &[Candidate], measured: Measured) -> Self {
        let Measured { agreements, predictions, seconds_between } = measured;
        let names = &campaign.objectives;
        let contenders = Contenders::of(rows.iter(), names, campaign.target_tokens);
        let (tokens, foretold) = (contenders.tokens, contenders.is_foretold());
        let on_front: HashSet<u32> = contenders.front().into_iter().collect();
        // In the order of the contenders, all of them.
        let doubts = trust::doubts(&contenders, campaign.seed);
        let front: Vec<(Member, Expected)> = doubts
            .iter()
            .zip(&contenders.rows)
            .filter(|(doubt, row)| on_front.contains(&row.number) || doubt.is_possible())
            .filter_map(|(doubt, row)| {
                let expected = contenders.expected_of(row)?;
                let member = Member {
                    number: row.number,
                    text: row.subject.to_string(),
                    reference: row.reference.clone(),
                    on_front: on_front.contains(&row.number),
                    membership: doubt.membership,
                    seeds: row.seeds(tokens),
                    objectives: objectives(row, names, &expected),
                    behind: None,
                    test: names
                        .iter()
                        .map(Objective::name)
                        .filter_map(|name| {
                            Some((name.into(), *row.values.get(format!("test_{name}").as_str())?))
                        })
                        .collect(),
                };
                Some((member, expected))
            })
            .collect();
        let mut front = with_differences(front, names);
        front.sort_by(|a, b| b.membership.total_cmp(&a.membership).then(a.number.cmp(&b.number)));
        let deviations = measured::seed_deviations(&contenders.rows.iter().copied(), names, tokens);
        let is_trained =
            |name: &str| rows.iter().any(|r| r.trained.iter().any(|t| t.values.contains_key(name)));
        let seed_noise = names
            .iter()
            .map(Objective::name)
            .zip(deviations)
            .filter(|(name, _)| is_trained(name))
            .map(|(name, (deviation, degrees_of_freedom))| SeedNoise {
                value: name.to_owned(),
                deviation: (degrees_of_freedom > 0).then_some(deviation),
                degrees_of_freedom,
            })
            .collect();
        Self {
            tokens,
            target_tokens: campaign.target_tokens.max(tokens),
            foretold,
            is_of_parts: contenders
                .rows
                .iter()
                .any(|r| r.trained.iter().any(|t| !t.parts.is_empty())),
            front,
            agreements,
            predictions,
            seed_noise,
            compositions: compositions(rows),
            retimed: retimed(&rows.iter()),
            seconds_between,
        }
    }

    /// `is_of_stacks`: not a black box's.
    pub(crate) fn text(&self, campaign: &Campaign) -> String {
        if self.front.is_empty() {
            return "nothing is evaluated yet\n".to_owned();
        }
        let is_of_stacks = !campaign.is_black_box();
        let mut text = self.front_text(campaign);
        if is_of_stacks {
            text.push_str(&self.agreements_text());
            text.push_str(&self.predictions_text());
        }
        text.push_str(&self.noise_text(is_of_stacks));
        if is_of_stacks {
            text.push_str(&self.compositions_text());
            text.push_str(&self.drift_text());
        }
        text
    }

    /// The table of the front as its cells, headings first, and the alignment of its columns.
    pub(super) fn front_cells(&self, campaign: &Campaign) -> (String, Vec<Vec<String>>) {
        let names: Vec<&str> = campaign.objectives.iter().map(Objective::name).collect();
        let mut heading: Vec<String> = ["#", "", "chance", "seeds"].map(str::to_owned).to_vec();
        heading.extend(campaign.objectives.iter().map(quantity::objective_title));
        let behind = self.has_differences();
        let best = self.front.iter().find(|member| member.behind.is_none());
        if let Some(best) = best.filter(|_| behind) {
            heading.push(format!("behind {}", best.number));
        }
        let tested: Vec<&&str> = names
            .iter()
            .filter(|name| self.front.iter().any(|m| m.test.contains_key(**name)))
            .collect();
        heading.extend(tested.iter().map(|name| format!("test {}", quantity::title(name))));
        heading.push(if campaign.is_black_box() { "parameters" } else { "stack" }.to_owned());
        let mut rows = vec![heading];
        for member in &self.front {
            let mut row = vec![
                member.number.to_string(),
                if member.on_front { "●" } else { "" }.to_owned(),
                format!("{:.0} %", 100.0 * member.membership),
                member.seeds.to_string(),
            ];
            row.extend(names.iter().map(|name| {
                let value = member.objectives.get(*name);
                value.map_or_else(|| "–".to_owned(), |value| quantity::named(name, *value))
            }));
            if behind {
                let value = member.behind.map(quantity::measured);
                row.push(value.unwrap_or_default());
            }
            row.extend(tested.iter().map(|name| {
                let value = member.test.get(**name);
                value.map_or_else(|| "–".to_owned(), |value| quantity::named(name, *value))
            }));
            let what = quantity::shortened(&member.text, 60);
            row.push(match &member.reference {
                Some(name) => format!("{name}: {what}"),
                None => what,
            });
            rows.push(row);
        }
        let numbers = names.len() + usize::from(behind) + tested.len();
        (format!("rlrr{}", "r".repeat(numbers)), rows)
    }

    fn has_differences(&self) -> bool {
        self.front.iter().any(|member| member.behind.is_some())
    }

    /// What the table is of, and what stands in it.
    pub(super) fn front_words(&self, campaign: &Campaign) -> (String, String) {
        let (tokens, target) =
            (quantity::scaled(self.tokens as f64), quantity::scaled(self.target_tokens as f64));
        let after = if self.foretold {
            format!(" at {target} tokens, foretold from {tokens}")
        } else if self.tokens > 1 {
            format!(", after {tokens} tokens")
        } else {
            String::new()
        };
        let noise = if self.foretold {
            "the errors of text, seed, rate and prediction"
        } else if self.is_of_parts {
            "the errors of text, seed and rate"
        } else if self.seed_noise.iter().any(|noise| noise.degrees_of_freedom > 0) {
            "the noise between seeds"
        } else {
            "the standard errors that trainers report (no candidate was trained from two seeds)"
        };
        let arrows = report::more_is_better(campaign);
        let shared = if self.has_differences() {
            "\nbehind: how much worse, with the error of the difference; what both share, as the text, drops out."
        } else {
            ""
        };
        if campaign.objectives.len() == 1 {
            return (
                format!("the best{after}, and who may be it"),
                format!(
                    "●: the best of the means. chance: how often it is the best where values are drawn from {noise}.{arrows}{shared}"
                ),
            );
        }
        (
            format!("the front{after}, and who may belong to it"),
            format!(
                "●: on the front of the means. chance: how often it is on a front drawn from {noise}.{arrows}{shared}"
            ),
        )
    }

    fn front_text(&self, campaign: &Campaign) -> String {
        let (align, rows) = self.front_cells(campaign);
        let (title, note) = self.front_words(campaign);
        format!("{title}\n{}{note}\n", words::table(&align, &rows))
    }

    fn agreements_text(&self) -> String {
        let mut text =
            "\nrank correlation between shorter and longer trainings, with 95 % intervals\n"
                .to_owned();
        if self.agreements.is_empty() {
            text.push_str(
                "unknown: every candidate was trained for one length; `search.rungs` and `trust.longer` in the \
                 campaign file measure it\n",
            );
            return text;
        }
        let heading = ["trainings", "Kendall τ_b", "Spearman ρ"].map(str::to_owned).to_vec();
        let rows = self.agreements.iter().map(|a| {
            let (tau, rho) = (a.kendall, a.spearman);
            vec![agreement::title(a), agreement::correlation(tau), agreement::correlation(rho)]
        });
        let rows: Vec<Vec<String>> = [heading].into_iter().chain(rows).collect();
        text.push_str(&words::table("lll", &rows));
        if self.agreements.iter().any(|a| a.kendall.is_none()) {
            text.push_str("–: fewer than 5 candidates, or all alike.\n");
        }
        text
    }

    fn predictions_text(&self) -> String {
        let mut text = "\nhow many pairs are in the order of longer trainings\n".to_owned();
        for test in &self.predictions {
            text.push_str(&agreement::foretold(test));
            text.push('\n');
        }
        text.push_str(if self.predictions.is_empty() {
            agreement::UNMEASURED
        } else {
            "More tokens order more pairs; other seeds settle only those that are nearly alike."
        });
        text.push('\n');
        text
    }

    pub(super) fn noise_text(&self, is_of_stacks: bool) -> String {
        let mut text = "\nstandard deviation between seeds\n".to_owned();
        let known = self.seed_noise.iter().filter_map(|noise| Some((noise, noise.deviation?)));
        for (noise, deviation) in known.clone() {
            let line = format!(
                "{}: {} ({} of freedom)\n",
                quantity::title(&noise.value),
                quantity::significant(deviation),
                words::count(noise.degrees_of_freedom, "degree"),
            );
            text.push_str(&line);
        }
        if known.count() == 0 {
            text.push_str("unknown: no candidate was trained from two seeds");
            text.push_str(if is_of_stacks { "; `trust.repeats` measures it\n" } else { "\n" });
        }
        text
    }

    pub(super) fn compositions_text(&self) -> String {
        let mut text = "\nsums of timed parts beside whole models, which correct them\n".to_owned();
        if self.compositions.is_empty() {
            text.push_str("unknown: no whole model is timed yet; that comes when all is trained\n");
        }
        for composition in &self.compositions {
            let line = format!(
                "{}: off by {:+.1} % on average, {:.1} % in size, at most {:.1} %, over {}; τ {}\n",
                quantity::title(&composition.value),
                100.0 * composition.mean_error,
                100.0 * composition.mean_absolute_error,
                100.0 * composition.largest_error,
                words::count(composition.stacks, "stack"),
                agreement::correlation(composition.kendall),
            );
            text.push_str(&line);
        }
        text
    }
    pub(super) fn drift_text(&self) -> String {
        let mut text = "\nwhole models timed once more\n".to_owned();
        if self.retimed.is_empty() {
            text.push_str("unknown: the first few are, when all is trained\n");
        }
        for of in &self.retimed {
            text.push_str(&drift::line(of, self.seconds_between.get(&of.value).copied()));
        }
        text
    }
}
