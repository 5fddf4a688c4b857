//! The latency table in memory, and the latency of an architecture as the sum over its parts.

use std::collections::HashMap;

use crate::architecture::Architecture;
use crate::latency::{Conditions, LatencyEntry, LatencyKey, Timing, keys};
use crate::value::Value;

/// What has been timed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LatencyTable(HashMap<LatencyKey, Timing>);

impl LatencyTable {
    /// Adds a row; a later timing of the same key replaces the earlier one.
    pub fn insert(&mut self, entry: LatencyEntry) {
        self.0.insert(entry.key, entry.timing);
    }

    /// Whether this was timed.
    pub fn contains(&self, key: &LatencyKey) -> bool {
        self.0.contains_key(key)
    }

    /// What this took.
    pub fn get(&self, key: &LatencyKey) -> Option<&Timing> {
        self.0.get(key)
    }

    /// Whether all parts of an architecture are timed under these conditions.
    pub fn is_complete(&self, architecture: &Architecture, conditions: &Conditions) -> bool {
        keys(architecture, conditions).all(|key| self.contains(&key))
    }

    /// The parts of an architecture that are not timed yet under these conditions, each once.
    pub fn missing(&self, architecture: &Architecture, conditions: &Conditions) -> Vec<LatencyKey> {
        let mut missing: Vec<LatencyKey> = Vec::new();
        for key in keys(architecture, conditions) {
            if !self.contains(&key) && !missing.contains(&key) {
                missing.push(key);
            }
        }
        missing
    }

    /// The sum over the parts, none while one of them is not timed.
    ///
    /// The standard error is that of the medians, 1.2533 σ/√n with σ from half the interquartile range (0.6745 σ, both
    /// for a normal distribution). A part that occurs m times was timed once: its error counts m times, not √m times.
    pub fn compose(&self, architecture: &Architecture, conditions: &Conditions) -> Option<Value> {
        let mut counts: HashMap<LatencyKey, u32> = HashMap::new();
        let mut mean = 0.0;
        let mut variance = 0.0;
        // Summed in the order of the layers, so that the sum does not depend on a hash.
        let in_order: Vec<LatencyKey> = keys(architecture, conditions).collect();
        for key in &in_order {
            *counts.entry(key.clone()).or_default() += 1;
        }
        for key in in_order {
            let Some(count) = counts.remove(&key) else { continue };
            let timing = self.0.get(&key)?;
            let count = f64::from(count);
            mean += count * timing.median_us;
            let sigma = timing.spread_us / 0.6745;
            variance += (count * 1.2533 * sigma).powi(2) / f64::from(timing.samples.max(1));
        }
        Some(Value { mean, standard_error: Some(variance.sqrt()) })
    }
}
