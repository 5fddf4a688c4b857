//! The law of depth and width as text: its unknowns with their bands, a drawing of loss against latency for each depth, and
//! what it says for a budget.

use std::ops::RangeInclusive;

use search::law::{Choice, Fit, Law, LayerSpeed, Observation, Power};
use search::metric::Metric;
use search::wire::Value;
use serde::Serialize;
use tui::plot::{LinePlot, Series};
use tui::quantity;
use tui::theme::Theme;

use crate::words;

/// Rows of the table of choices.
const CHOICES: usize = 6;
/// Depths that are drawn at most.
const LINES: u32 = 8;

/// What `deltafront law` found.
#[derive(Debug, Serialize)]
pub(crate) struct Found {
    /// Name of the loss.
    pub(super) value: String,
    trainings: usize,
    stacks: usize,
    pub(super) depths: (u32, u32),
    widths: (u32, u32),
    /// The length of training that everything below is for.
    tokens: u64,
    law: Law,
    /// Names of the unknowns, their values and 95 % bands.
    pub(super) unknowns: Vec<(&'static str, f64, (f64, f64))>,
    /// What depth and width take away between their smallest and largest values, with 95 % bands.
    gains: [(f64, (f64, f64)); 2],
    deviation: f64,
    explained: f64,
    speeds: Vec<LayerSpeed>,
    pub(super) budget_us: Option<f64>,
    /// Within the budget, the best first.
    pub(super) choices: Option<Vec<Choice>>,
    /// (depth, width, loss) of each training of this length.
    #[serde(skip)]
    points: Vec<(u32, u32, f64)>,
}

impl Found {
    #[expect(clippy::too_many_arguments, reason = "each is a part of what is shown")]
    pub(crate) fn new(
        value: &str,
        observations: &[Observation],
        fit: &Fit,
        speeds: Vec<LayerSpeed>,
        depths: RangeInclusive<u32>,
        tokens: u64,
        budget_us: Option<f64>,
        choices: Option<Vec<Choice>>,
    ) -> Self {
        let mut stacks: Vec<u32> = observations.iter().map(|o| o.stack).collect();
        stacks.sort_unstable();
        stacks.dedup();
        let widths = observations.iter().map(|o| o.width);
        let widths = (widths.clone().min().unwrap_or(0), widths.max().unwrap_or(0));
        let depths = (*depths.start(), *depths.end());
        let gain = |(from, to): (u32, u32), of: fn(&Law) -> Power| {
            let gain = move |law: &Law| of(law).at(from.into()) - of(law).at(to.into());
            (gain(&fit.law), fit.band(gain))
        };
        let of_length = observations.iter().filter(|o| o.tokens == tokens);
        Self {
            value: value.to_owned(),
            trainings: observations.len(),
            stacks: stacks.len(),
            depths,
            widths,
            gains: [gain(depths, |law| law.depth), gain(widths, |law| law.width)],
            tokens,
            law: fit.law,
            unknowns: unknowns(fit),
            deviation: fit.deviation,
            explained: fit.explained,
            speeds,
            budget_us,
            choices,
            points: of_length.map(|o| (o.depth, o.width, o.loss)).collect(),
        }
    }

    pub(crate) fn text(&self, theme: Theme, width: u16) -> String {
        let mut text = format!("{}\n{}\n\n", self.formula(), self.basis());
        let rows = self.unknowns_cells();
        text.push_str(&words::table("lrl", &rows));
        let line = format!(
            "The law explains {:.0} % of the variance; stacks lie {} about it.\n",
            100.0 * self.explained,
            quantity::significant(self.deviation),
        );
        text.push_str(&line);
        text.push_str(&self.gains_text());
        if self.speeds.is_empty() {
            text.push_str("No stack is timed yet: what a depth and width takes is not known.\n");
            return text;
        }
        text.extend(["\n", self.plot(theme, width).trim_end(), "\n"]);
        text.push_str(
            "Lines are the law, one for each depth, over the widths; digits off the lines are the trained stacks.\n",
        );
        text.extend([
            "µs of a layer, mean and deviation over the stacks: ",
            &self.layer_words(),
            ".\n",
        ]);
        if let (Some(budget_us), Some(choices)) = (self.budget_us, &self.choices) {
            text.extend(["\n", &self.choices_text(budget_us, choices)]);
        }
        text
    }

    /// The unknowns of the law with their bands, headings first.
    pub(super) fn unknowns_cells(&self) -> Vec<Vec<String>> {
        let heading = ["", "value", "95 % band"].map(str::to_owned).to_vec();
        let rows = self.unknowns.iter().map(|(name, value, (low, high))| {
            let band =
                format!("{} to {}", quantity::significant(*low), quantity::significant(*high));
            vec![(*name).to_owned(), quantity::significant(*value), band]
        });
        [heading].into_iter().chain(rows).collect()
    }

    /// What is fitted.
    pub(super) fn formula(&self) -> String {
        let data = if self.law.tokens.is_some() { " + c·N^−γ" } else { "" };
        let tokens = if data.is_empty() {
            format!(", after {} tokens", quantity::scaled(self.tokens as f64))
        } else {
            ", N tokens".to_owned()
        };
        let value = quantity::title(&self.value);
        format!("{value} = L0 + a·D^−α + b·W^−β{data}, D layers, W width{tokens}")
    }

    /// To what.
    fn basis(&self) -> String {
        let ((shallow, deep), (narrow, wide)) = (self.depths, self.widths);
        format!(
            "{} of {}, depths {shallow} to {deep}, widths {narrow} to {wide}",
            words::count(self.trainings, "training"),
            words::count(self.stacks, "stack"),
        )
    }

    pub(super) fn gains_text(&self) -> String {
        let names = [("depth", "α", self.depths), ("width", "β", self.widths)];
        let lines =
            names.iter().zip(&self.gains).map(|((name, exponent, (from, to)), (gain, band))| {
                let [gain, low, high] = [*gain, band.0, band.1].map(quantity::significant);
                // Less than that is lost among the stacks.
                let told = if band.0 < 0.1 * self.deviation {
                    format!(": perhaps nothing, so that {exponent} is not told")
                } else {
                    String::new()
                };
                format!(
                    "From {name} {from} to {to} the loss falls by {gain} ({low} to {high}){told}.\n"
                )
            });
        lines.collect()
    }

    fn layer_words(&self) -> String {
        let of = |speed: &LayerSpeed| {
            let (mean, standard_error) = (speed.layer_us, speed.deviation_us);
            let us = quantity::measured(Value { mean, standard_error });
            format!("{us} at width {}", speed.width)
        };
        self.speeds.iter().map(of).collect::<Vec<_>>().join(", ")
    }

    /// The law over the widths for some of the depths, with the trained stacks of each: latency in µs and loss.
    pub(super) fn series(&self) -> Vec<(u32, Series)> {
        let (first, last) = self.depths;
        let step = (last - first + 1).div_ceil(LINES).max(1);
        let of = |depth: u32| {
            let line = self.speeds.iter().map(|speed| {
                let loss = self.law.at(depth.into(), speed.width.into(), self.tokens as f64);
                (speed.at(depth), loss)
            });
            let points = self.points.iter().filter(|point| point.0 == depth);
            let points = points.filter_map(|(_, width, loss)| {
                let speed = self.speeds.iter().find(|speed| speed.width == *width)?;
                Some((speed.at(depth), *loss))
            });
            let series = Series {
                name: if depth == 1 { "layer".to_owned() } else { "layers".to_owned() },
                sign: char::from_digit(depth % 36, 36).unwrap_or('?'),
                line: line.collect(),
                points: points.collect(),
            };
            (depth, series)
        };
        (first..=last).step_by(step as usize).map(of).collect()
    }

    fn plot(&self, theme: Theme, width: u16) -> String {
        let series: Vec<Series> = self.series().into_iter().map(|(_, series)| series).collect();
        let plot = LinePlot {
            x_name: Metric::DecodeUs.name(),
            y_name: &self.value,
            series: &series,
            is_linear: false,
            budget: self.budget_us,
            theme,
        };
        plot.to_text(width.min(100), 20)
    }

    /// The depths and widths of the table, headings first.
    pub(super) fn choices_cells(&self, choices: &[Choice]) -> Vec<Vec<String>> {
        let mut heading = ["depth", "width", "decode µs"].map(str::to_owned).to_vec();
        heading.push(quantity::title(&self.value).into_owned());
        heading.extend(["95 % band", "best in"].map(str::to_owned));
        let mut rows = vec![heading];
        rows.extend(choices.iter().take(CHOICES).map(|choice| {
            let (low, high) = choice.band;
            vec![
                choice.depth.to_string(),
                choice.width.to_string(),
                quantity::significant(choice.latency_us),
                quantity::significant(choice.loss),
                format!("{} to {}", quantity::significant(low), quantity::significant(high)),
                format!("{:.0} %", 100.0 * choice.best_in),
            ]
        }));
        rows
    }

    fn choices_text(&self, budget_us: f64, choices: &[Choice]) -> String {
        let budget = quantity::significant(budget_us);
        if choices.is_empty() {
            return format!(
                "no depth and width among those of the campaign decodes a token within {budget} µs\n"
            );
        }
        let rows = self.choices_cells(choices);
        format!(
            "within {budget} µs a token\n{}best in: of the resampled laws. Nothing is asked beyond the depths and widths that \
             were trained.\n",
            words::table("rrrrlr", &rows)
        )
    }
}

fn unknowns(fit: &Fit) -> Vec<(&'static str, f64, (f64, f64))> {
    let mut all = vec![("L0", fit.law.floor, fit.band(|law| law.floor))];
    all.push(("a", fit.law.depth.factor, fit.band(|law| law.depth.factor)));
    all.push(("α", fit.law.depth.exponent, fit.band(|law| law.depth.exponent)));
    all.push(("b", fit.law.width.factor, fit.band(|law| law.width.factor)));
    all.push(("β", fit.law.width.exponent, fit.band(|law| law.width.exponent)));
    if let Some(tokens) = fit.law.tokens {
        let of =
            |get: fn(&Power) -> f64| fit.band(move |law| law.tokens.as_ref().map_or(f64::NAN, get));
        all.push(("c", tokens.factor, of(|power| power.factor)));
        all.push(("γ", tokens.exponent, of(|power| power.exponent)));
    }
    all
}
