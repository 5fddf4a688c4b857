//! Which depth and width for a latency: the law's loss beside the time of layers as they were timed.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Fit;
use crate::architecture::Architecture;
use crate::campaign::LatencyTable;
use crate::latency::{Conditions, keys};
use crate::statistics::mean_and_error;

/// What a layer costs at a width, on average over the stacks of that width.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LayerSpeed {
    /// Width of the residual stream.
    pub width: u32,
    /// Mean time of a layer, µs.
    pub layer_us: f64,
    /// Standard deviation between stacks, µs; none for one.
    pub deviation_us: Option<f64>,
    /// Time of embedding and head, µs.
    pub head_us: f64,
    /// Stacks of this width.
    pub stacks: usize,
}

impl LayerSpeed {
    /// Time of a stack of so many such layers, µs.
    pub fn at(&self, depth: u32) -> f64 {
        self.head_us + f64::from(depth) * self.layer_us
    }
}

/// The speeds of all widths among `stacks`, ascending. Stacks that are not timed whole under these conditions are left out.
pub fn speeds<'a>(
    stacks: impl Iterator<Item = &'a Architecture>,
    table: &LatencyTable,
    conditions: &Conditions,
) -> Vec<LayerSpeed> {
    let mut widths: BTreeMap<u32, Vec<(f64, f64)>> = BTreeMap::new();
    for stack in stacks {
        let head = keys(stack, conditions).last().and_then(|key| table.get(&key));
        let (Some(head), Some(whole)) = (head, table.compose(stack, conditions)) else { continue };
        let layer_us = (whole.mean - head.median_us) / stack.layers().len() as f64;
        widths.entry(stack.d_model()).or_default().push((layer_us, head.median_us));
    }
    widths
        .into_iter()
        .map(|(width, times)| {
            let (layers, heads): (Vec<f64>, Vec<f64>) = times.into_iter().unzip();
            let (layer_us, error) = mean_and_error(&layers);
            LayerSpeed {
                width,
                layer_us,
                deviation_us: error.map(|error| error * (layers.len() as f64).sqrt()),
                head_us: mean_and_error(&heads).0,
                stacks: layers.len(),
            }
        })
        .collect()
}

/// A depth and a width within a budget.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Choice {
    /// Layers.
    pub depth: u32,
    /// Width of the residual stream.
    pub width: u32,
    /// Its time, µs.
    pub latency_us: f64,
    /// What the law says.
    pub loss: f64,
    /// 95 % band of that.
    pub band: (f64, f64),
    /// How often it is the best within the budget among the resampled laws.
    pub best_in: f64,
}

/// All depths within the range and widths of `speeds` that take at most `budget_us`, the lowest loss first. The law is asked
/// for nothing beyond what it was fitted to.
pub fn choose(
    fit: &Fit,
    speeds: &[LayerSpeed],
    depths: std::ops::RangeInclusive<u32>,
    tokens: u64,
    budget_us: f64,
) -> Vec<Choice> {
    let shapes: Vec<(u32, &LayerSpeed)> = depths
        .flat_map(|depth| speeds.iter().map(move |speed| (depth, speed)))
        .filter(|(depth, speed)| speed.at(*depth) <= budget_us)
        .collect();
    let mut wins = vec![0_usize; shapes.len()];
    for law in &fit.draws {
        let loss = |(depth, speed): &(u32, &LayerSpeed)| {
            law.at((*depth).into(), speed.width.into(), tokens as f64)
        };
        let best = (0..shapes.len()).min_by(|&a, &b| loss(&shapes[a]).total_cmp(&loss(&shapes[b])));
        if let Some(best) = best {
            wins[best] += 1;
        }
    }
    let mut choices: Vec<Choice> = shapes
        .iter()
        .zip(wins)
        .map(|(&(depth, speed), wins)| {
            let of = |law: &super::Law| law.at(depth.into(), speed.width.into(), tokens as f64);
            Choice {
                depth,
                width: speed.width,
                latency_us: speed.at(depth),
                loss: of(&fit.law),
                band: fit.band(of),
                best_in: wins as f64 / fit.draws.len().max(1) as f64,
            }
        })
        .collect();
    choices.sort_by(|a, b| a.loss.total_cmp(&b.loss));
    choices
}
