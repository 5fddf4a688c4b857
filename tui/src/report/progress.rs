//! Hypervolume against the number of evaluations, of one campaign or of several on one scale; with one objective the best
//! value so far, which is what there is to see.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use db::snapshot::Campaign;
use search::campaign::{Candidate, findings, front};
use search::config::LatencyConfig;
use search::latency::WholeModels;
use search::objective::Objective;
use search::pareto::{Objectives, Scale};
use search::statistics::mean_and_error;
use search::value::Value;
use serde_json::json;
use tui::plot::{LinePlot, Series};
use tui::quantity;
use tui::theme::Theme;

use crate::words;

/// Evaluation counts that a table shows at most, unless they are named.
const ROWS: usize = 10;

/// A campaign on its way up.
pub(crate) struct Climb {
    campaign: String,
    algorithm: String,
    seed: u64,
    /// Share of the reference front's hypervolume after each evaluation.
    shares: Vec<f64>,
    /// The best value after each evaluation, with one objective.
    best: Option<Vec<Option<f64>>>,
}

/// Campaigns on one scale.
pub(crate) struct Progress {
    objectives: Vec<Objective>,
    scale: Scale,
    climbs: Vec<Climb>,
}

/// Mean over the campaigns of one algorithm after so many evaluations, and its standard error.
pub(super) type Mean = (f64, Option<f64>);

/// An algorithm, its campaigns, and the mean after each number of evaluations.
pub(super) type Line<'a> = (&'a str, usize, Vec<(usize, Mean)>);

impl Progress {
    /// The scale is that of the front of everything that these campaigns have found; none when that is nothing. They must
    /// have the same objectives.
    pub(crate) fn of(campaigns: &[(Campaign, String, Vec<Candidate>)]) -> Option<Self> {
        let objectives = campaigns.first()?.0.objectives.clone();
        let tops = campaigns.iter().map(|(_, _, rows)| front::top(rows.iter()));
        let tokens = tops.max().unwrap_or(0);
        let evaluations: Vec<Vec<Option<Objectives>>> = campaigns
            .iter()
            .map(|(campaign, _, rows)| {
                findings::evaluations(rows.iter(), &objectives, tokens, campaign.is_black_box())
            })
            .collect();
        let all: Vec<Objectives> = evaluations.iter().flatten().flatten().cloned().collect();
        let scale = Scale::of(&all)?;
        let climbs = campaigns
            .iter()
            .zip(&evaluations)
            .map(|((campaign, algorithm, _), evaluations)| Climb {
                campaign: campaign.name.clone(),
                algorithm: algorithm.clone(),
                seed: campaign.seed,
                shares: scale.trace(evaluations),
                best: match objectives.as_slice() {
                    [objective] => Some(best_so_far(objective, evaluations)),
                    _ => None,
                },
            })
            .collect();
        Some(Self { objectives, scale, climbs })
    }

    fn algorithms(&self) -> BTreeMap<&str, Vec<&Climb>> {
        let mut groups: BTreeMap<&str, Vec<&Climb>> = BTreeMap::new();
        for climb in &self.climbs {
            groups.entry(&climb.algorithm).or_default().push(climb);
        }
        groups
    }

    /// None while one of the campaigns has not come so far.
    fn mean(climbs: &[&Climb], evaluations: usize) -> Option<Mean> {
        let shares: Option<Vec<f64>> =
            climbs.iter().map(|climb| climb.shares.get(evaluations - 1).copied()).collect();
        shares.map(|shares| mean_and_error(&shares))
    }

    /// The same of what the text shows: the best value with one objective, else the share.
    fn shown(climbs: &[&Climb], evaluations: usize) -> Option<Mean> {
        let at = |climb: &&Climb| match &climb.best {
            Some(best) => best.get(evaluations - 1).copied().flatten(),
            None => climb.shares.get(evaluations - 1).copied(),
        };
        let values: Option<Vec<f64>> = climbs.iter().map(at).collect();
        values.map(|values| mean_and_error(&values))
    }

    /// Round counts up to what all campaigns of an algorithm have done.
    fn counts(&self) -> Vec<usize> {
        let done = |climbs: &Vec<&Climb>| climbs.iter().map(|climb| climb.shares.len()).min();
        let most = self.algorithms().values().filter_map(done).max().unwrap_or(0);
        let steps = (0..).flat_map(|power| [1, 2, 5].map(|digit| digit * 10_usize.pow(power)));
        let step = steps.into_iter().find(|step| most / step <= ROWS).unwrap_or(1);
        let mut counts: Vec<usize> = (1..=most / step).map(|i| i * step).collect();
        if most > 0 && counts.last() != Some(&most) {
            counts.push(most);
        }
        counts
    }

    /// A line for each algorithm, or campaign where there is one of each: the mean share against evaluations, or the mean of
    /// the best values.
    pub(crate) fn plot(&self, theme: Theme, width: u16) -> String {
        let signs = 'a'..='z';
        let series: Vec<Series> = self
            .lines()
            .into_iter()
            .zip(signs)
            .map(|((name, _, line), sign)| {
                let line = line.into_iter().map(|(n, (mean, _))| (n as f64, mean)).collect();
                Series { name: name.to_owned(), sign, line, points: Vec::new() }
            })
            .collect();
        let y_name = self.y_name();
        let plot = LinePlot {
            x_name: "evaluations",
            y_name: &y_name,
            series: &series,
            is_linear: true,
            budget: None,
            theme,
        };
        plot.to_text(width.min(100), 16)
    }

    /// What climbs.
    pub(super) fn y_name(&self) -> String {
        match self.objectives.as_slice() {
            [objective] => format!("best so far: {}", quantity::objective_title(objective)),
            _ => "share of the final front's hypervolume".to_owned(),
        }
    }

    /// For each algorithm its name, how many campaigns it had, and what they have found after each evaluation that all of them
    /// have done: (evaluations, mean, its standard error).
    pub(super) fn lines(&self) -> Vec<Line<'_>> {
        let of = |(name, climbs): (_, Vec<&Climb>)| {
            let last = climbs.iter().map(|climb| climb.shares.len()).min().unwrap_or(0);
            let line = (1..=last).filter_map(|n| Some((n, Self::shown(&climbs, n)?)));
            (name, climbs.len(), line.collect())
        };
        self.algorithms().into_iter().map(of).collect()
    }

    /// How the objectives were scaled.
    pub(super) fn scaling(&self) -> String {
        let axes: Vec<String> = self
            .objectives
            .iter()
            .zip(self.scale.axes())
            .map(|(objective, axis)| {
                format!(
                    "{} from {} to {}{}",
                    quantity::title(objective.name()),
                    quantity::significant(objective.turned(axis.best)),
                    quantity::significant(objective.turned(axis.worst)),
                    if axis.is_log { " by its logarithm" } else { "" },
                )
            })
            .collect();
        let whose = if self.climbs.len() == 1 { "its" } else { "their common" };
        let (axes, point) = (axes.join(", "), Scale::REFERENCE);
        format!(
            "Hypervolume over that of {whose} front, which gives the scale; reference point {point} ranges from the best.\n\
             Scale: {axes}.\n"
        )
    }

    /// The plot, and the shares after some numbers of evaluations: `counts`, or round ones when that is empty.
    pub(crate) fn text(&self, counts: &[usize], theme: Theme, width: u16) -> String {
        let rounds = self.counts();
        let counts = if counts.is_empty() { &rounds } else { counts };
        let groups = self.algorithms();
        let mut text = self.plot(theme, width);
        let mut rows = vec![vec!["evaluations".to_owned()]];
        rows[0].extend(groups.iter().map(|(name, climbs)| {
            if self.climbs.len() == 1 {
                (*name).to_owned()
            } else {
                format!("{name} ({})", words::count(climbs.len(), "campaign"))
            }
        }));
        for &count in counts {
            let mut row = vec![count.to_string()];
            row.extend(groups.values().map(|climbs| match Self::shown(climbs, count) {
                Some((mean, standard_error)) if self.objectives.len() == 1 => {
                    quantity::measured(Value { mean, standard_error })
                }
                Some((mean, Some(error))) => format!("{mean:.3} ±{error:.3}"),
                Some((mean, None)) => format!("{mean:.3}"),
                None => "–".to_owned(),
            }));
            rows.push(row);
        }
        text.push_str(&words::table(&"r".repeat(groups.len() + 1), &rows));
        if self.objectives.len() > 1 {
            text.push_str(&self.scaling());
        }
        if self.climbs.len() > 1 {
            text.push_str("± is the standard error of the mean over campaigns.\n");
        }
        text
    }

    pub(crate) fn json(&self, counts: &[usize]) -> serde_json::Value {
        let rounds = self.counts();
        let counts = if counts.is_empty() { &rounds } else { counts };
        let axes = self.objectives.iter().zip(self.scale.axes()).map(|(name, axis)| {
            json!({ "objective": name, "best": axis.best, "worst": axis.worst, "log": axis.is_log })
        });
        let climbs = self.climbs.iter().map(|climb| {
            json!({
                "campaign": climb.campaign,
                "algorithm": climb.algorithm,
                "seed": climb.seed,
                "shares": climb.shares,
            })
        });
        let groups = self.algorithms();
        let means = groups.iter().flat_map(|(name, climbs)| {
            counts.iter().filter_map(move |&count| {
                let (mean, standard_error) = Self::mean(climbs, count)?;
                Some(json!({
                    "algorithm": name,
                    "evaluations": count,
                    "campaigns": climbs.len(),
                    "mean": mean,
                    "standard_error": standard_error,
                }))
            })
        });
        json!({
            "reference_point": Scale::REFERENCE,
            "scale": axes.collect::<Vec<_>>(),
            "campaigns": climbs.collect::<Vec<_>>(),
            "means": means.collect::<Vec<_>>(),
        })
    }
}

/// The best value after each evaluation, as it was measured; none before the first that has one.
fn best_so_far(objective: &Objective, evaluations: &[Option<Objectives>]) -> Vec<Option<f64>> {
    let mut best: Option<f64> = None;
    evaluations
        .iter()
        .map(|found| {
            let value = found.as_ref().and_then(|point| point.values().first().copied());
            best = best.into_iter().chain(value).reduce(f64::min);
            best.map(|best| objective.turned(best))
        })
        .collect()
}

fn list(objectives: &[Objective]) -> String {
    objectives.iter().map(Objective::to_string).collect::<Vec<_>>().join(", ")
}

/// Refuses campaigns whose values have no place on one scale.
pub(crate) fn same_terms(campaigns: &[(Campaign, String, Vec<Candidate>)]) -> anyhow::Result<()> {
    let (first, rest) = campaigns.split_first().context("name a campaign")?;
    let first = &first.0;
    for (other, ..) in rest {
        let differs = if other.objectives != first.objectives {
            format!("objectives ({} and {})", list(&first.objectives), list(&other.objectives))
        } else if other.is_black_box() != first.is_black_box() {
            "kind: one is of stacks, one of a black box".to_owned()
        } else if other.tokens != first.tokens {
            format!("training.tokens ({} and {})", first.tokens, other.tokens)
        } else {
            continue;
        };
        bail!(
            "campaigns `{}` and `{}` differ in {differs}: their hypervolumes cannot be compared; report them one by one",
            first.name,
            other.name
        );
    }
    same_latency(campaigns.iter().map(|(campaign, ..)| campaign))
}

/// Refuses campaigns that were timed under different conditions.
pub(crate) fn same_latency<'a>(
    mut campaigns: impl Iterator<Item = &'a Campaign>,
) -> anyhow::Result<()> {
    let Some(first) = campaigns.next() else { return Ok(()) };
    let terms = |campaign: &Campaign| {
        // What is done with the times is no part of them.
        let (decode_budget_us, time_whole_models) = (None, WholeModels::default());
        LatencyConfig { decode_budget_us, time_whole_models, ..campaign.latency.clone() }
    };
    for other in campaigns {
        if terms(other) != terms(first) {
            bail!(
                "campaigns `{}` and `{}` differ in [latency]: their times cannot be compared; look at them one by one",
                first.name,
                other.name
            );
        }
    }
    Ok(())
}
