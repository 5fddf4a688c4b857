//! Lines of results, and times of launches.

use std::io::Write as _;

use kernels::cuda::gpu::Gpu;
use kernels::cuda::{Error, Launch, Machine as _};
use serde_json::{Value, json};

/// Where results go: a line for people, a line of JSON for programs.
pub(crate) struct Report {
    begin: std::time::Instant,
    file: Option<std::fs::File>,
    pub(crate) wrong: usize,
}

impl Report {
    pub(crate) fn new(file: Option<std::fs::File>) -> Self {
        Self { begin: std::time::Instant::now(), file, wrong: 0 }
    }

    pub(crate) fn row(&mut self, name: &str, values: &Value) {
        let seconds = self.begin.elapsed().as_secs_f64();
        let _ = writeln!(std::io::stdout(), "{seconds:6.1} s  {name:<44} {values}");
        if let Some(file) = &mut self.file {
            let mut line = json!({ "name": name });
            if let (Some(line), Some(values)) = (line.as_object_mut(), values.as_object()) {
                line.extend(values.clone());
            }
            let _ = writeln!(file, "{line}");
        }
    }

    /// One line for the errors of a case, the largest below `limit`.
    pub(crate) fn check(&mut self, name: &str, errors: &[(&str, f64)], limit: f64) {
        let worst = errors.iter().fold(0.0, |worst: f64, (_, error)| worst.max(*error));
        self.wrong += usize::from(worst >= limit);
        let list: Vec<String> = errors.iter().map(|(n, e)| format!("{n} {e:.1e}")).collect();
        let verdict = if worst < limit { "ok" } else { "WRONG" };
        let values = json!({ "errors": list.join(" "), "verdict": verdict });
        self.row(&format!("check {name}"), &values);
    }
}

/// Times that a graph holds the launches.
const REPEATS: usize = 5;

/// Median and spread (9th to 1st decile) of the launches in a graph, ms.
pub(crate) fn time(gpu: &mut Gpu, launches: &[Launch]) -> Result<(f64, f64), Error> {
    for launch in launches {
        gpu.prepare(launch)?;
    }
    let graph = gpu.record(|gpu| {
        for _ in 0..REPEATS {
            for launch in launches {
                gpu.launch(launch)?;
            }
        }
        Ok(())
    })?;
    for _ in 0..3 {
        gpu.replay(&graph)?;
    }
    let mut samples = Vec::new();
    for _ in 0..25 {
        samples.push(gpu.elapsed_ms(|gpu| gpu.replay(&graph))? / REPEATS as f64);
    }
    samples.sort_by(f64::total_cmp);
    Ok((samples[12], samples[22] - samples[2]))
}
