//! Where results go: a table for people, lines of JSON for programs.

use std::io::Write;

use serde_json::json;

/// Where results go: a line for people, a line of JSON for programs.
pub(crate) struct Report {
    begin: std::time::Instant,
    json: Option<std::fs::File>,
    only: String,
    pub(crate) failures: usize,
}

impl Report {
    /// Where the results go, by the command line.
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let begin = std::time::Instant::now();
        let mut report = Self { begin, json: None, only: String::new(), failures: 0 };
        while let Some(flag) = arguments.next() {
            match (flag.as_str(), arguments.next()) {
                ("--json", Some(path)) => {
                    let file = std::fs::File::create(&path).map_err(|e| format!("{path}: {e}"))?;
                    report.json = Some(file);
                }
                ("--only", Some(text)) => report.only = text,
                _ => return Err("usage: gpu_engine [--json FILE] [--only TEXT]".to_owned()),
            }
        }
        Ok(report)
    }

    pub(crate) fn wants(&self, name: &str) -> bool {
        name.contains(&self.only)
    }

    pub(crate) fn row(&mut self, name: &str, values: &serde_json::Value) {
        let text = values.as_object().map_or_else(String::new, |object| {
            object.iter().map(|(k, v)| format!("{k} {v}")).collect::<Vec<_>>().join("  ")
        });
        let _ = writeln!(
            std::io::stdout(),
            "{:6.1} s  {name:<34} {text}",
            self.begin.elapsed().as_secs_f64()
        );
        if let Some(file) = &mut self.json {
            let mut line = json!({ "name": name });
            if let (Some(line), Some(values)) = (line.as_object_mut(), values.as_object()) {
                line.extend(values.clone());
            }
            let _ = writeln!(file, "{line}");
        }
    }

    pub(crate) fn check(&mut self, name: &str, error: f64, limit: f64) {
        let passed = error < limit;
        self.failures += usize::from(!passed);
        let verdict = if passed { "ok" } else { "WRONG" };
        self.row(&format!("check {name}"), &json!({ "relative_error": format!("{error:.2e}"), "limit": limit, "verdict": verdict }));
    }
}
