//! How many tokens a second a memory budget gives.

use super::{Conditions, Phase};
use crate::architecture::Architecture;
use crate::cost;
use crate::metric::Metric;
use crate::value::{Name, Value};

/// Generation for many at once: the decode step of a batch, or of the largest that a memory budget holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Throughput {
    /// What weights, states and caches of all sequences may fill; none: the batch is that of the conditions.
    pub budget_bytes: Option<u64>,
    /// The conditions of the step; their batch is the largest that is ever timed.
    pub conditions: Conditions,
}

impl Throughput {
    /// The conditions for one architecture.
    ///
    /// # Errors
    /// When not even one sequence fits the budget: the sentence that says so.
    pub fn under(&self, architecture: &Architecture) -> Result<Conditions, String> {
        let Conditions { dtype, batch, phase, .. } = self.conditions;
        let Phase::Decode { context } = phase else {
            return Err("throughput is that of decode steps".to_owned());
        };
        let Some(budget_bytes) = self.budget_bytes else { return Ok(self.conditions.clone()) };
        let fits = cost::largest_batch(architecture, context, dtype, budget_bytes, batch.max(1));
        if fits == 0 {
            let needs = cost::memory_bytes(architecture, context, 1, dtype).div_ceil(1_000_000);
            let has = budget_bytes / 1_000_000;
            return Err(format!("one sequence needs {needs} MB, memory_budget_mb is {has}"));
        }
        Ok(Conditions { batch: fits, ..self.conditions.clone() })
    }

    /// The throughput, and the batch it was taken at, by their names: a step for `batch` sequences takes `step_us`.
    pub fn values(batch: u32, step_us: Value) -> [(Name, Value); 2] {
        let batch = f64::from(batch);
        let mean = batch * 1e6 / step_us.mean;
        let standard_error = step_us.standard_error.map(|error| mean * error / step_us.mean);
        [
            (Metric::Throughput.name().into(), Value { mean, standard_error }),
            (Metric::LargestBatch.name().into(), Value { mean: batch, standard_error: None }),
        ]
    }
}
