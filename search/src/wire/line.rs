//! Messages as lines: what does not parse, or holds a number that cannot be, is refused with the reason.

use std::collections::BTreeMap;

use super::reply::{LayerRetrieval, Measured, Refusal, Reply};
use super::request::Request;
use super::{CONFIGURE_ID, PROTOCOL};
use crate::failure::FailureKind;
use crate::value::Value;

/// A line that is no message of this protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}; the line was: {line}")]
pub struct WireError {
    /// What is wrong with it.
    pub reason: String,
    /// The offending line; a long one is cut.
    pub line: String,
}

/// Characters that are kept of an offending line.
const LINE_KEPT: usize = 1000;

impl WireError {
    fn new(line: &str, reason: String) -> Self {
        let mut kept: String = line.trim_end().chars().take(LINE_KEPT).collect();
        if kept.len() < line.trim_end().len() {
            kept.push('…');
        }
        Self { reason, line: kept }
    }

    fn of(line: &str, error: &serde_json::Error) -> Self {
        // Python writes the bare word, Rust `null`.
        let hint = if ["NaN", "Infinity", ":null"].iter().any(|word| line.contains(word)) {
            " (a value that is not finite is not JSON; answer with `failed` instead)"
        } else if line.contains("\"result\"") {
            " (a black box answers an `eval` by `values`; `result` is a trainer's answer to `evaluate`)"
        } else {
            ""
        };
        Self::new(line, format!("not a message of protocol {PROTOCOL}: {error}{hint}"))
    }
}

impl Reply {
    /// Reads one line from a worker.
    ///
    /// # Errors
    /// When it does not parse, or a number in it is not finite or has an impossible sign.
    pub fn parse(line: &str) -> Result<Self, WireError> {
        let reply: Self =
            serde_json::from_str(line).map_err(|error| WireError::of(line, &error))?;
        reply.check().map_err(|reason| WireError::new(line, reason))?;
        Ok(reply)
    }

    /// The line to send, without its end.
    ///
    /// # Errors
    /// As [`Reply::parse`]: a worker that computed a NaN must say `failed`, and learns so here.
    pub fn to_line(&self) -> Result<String, WireError> {
        let line = serde_json::to_string(self).map_err(|error| WireError::of("", &error))?;
        self.check().map_err(|reason| WireError::new(&line, reason))?;
        Ok(line)
    }

    /// The first number that is not finite or has an impossible sign.
    fn check(&self) -> Result<(), String> {
        match self {
            Self::Hello(_)
            | Self::Checked(_)
            | Self::Space(_)
            | Self::Infeasible(_)
            | Self::Failed(_) => Ok(()),
            Self::Values(values) => check_values(&values.values),
            Self::Progress(progress) => {
                finite("loss", progress.loss)?;
                not_negative("tokens_per_second", progress.tokens_per_second)
            }
            Self::Result(evaluation) => {
                check_values(&evaluation.values)?;
                for (tokens, loss) in &evaluation.curve {
                    finite(&format!("the loss at {tokens} tokens"), *loss)?;
                }
                for (pairs, snr) in evaluation.retrieval.iter().flat_map(LayerRetrieval::points) {
                    not_negative(&format!("the retrieval SNR of {pairs} pairs"), *snr)?;
                }
                not_negative("seconds", evaluation.seconds)
            }
            Self::Timing(Measured { timing, .. }) => {
                not_negative("median_us", timing.median_us)?;
                not_negative("spread_us", timing.spread_us)?;
                not_negative("millijoules", timing.millijoules.unwrap_or(0.0))?;
                not_negative("other_load", timing.other_load)
            }
        }
    }
}

impl Request {
    /// Reads one line from the driver.
    ///
    /// # Errors
    /// When it does not parse; architectures and parts are checked as they are read.
    pub fn parse(line: &str) -> Result<Self, WireError> {
        serde_json::from_str(line).map_err(|error| WireError::of(line, &error))
    }

    /// The answer to a line that is no request: to its id where it has one, to a configuration as such. None where
    /// nobody waits for an answer.
    pub fn refusal(line: &str, error: &WireError) -> Option<Refusal> {
        let sent: serde_json::Value = serde_json::from_str(line).ok()?;
        let id = match sent.get("id").and_then(serde_json::Value::as_u64) {
            Some(id) => id,
            None if sent.get("type")? == "configure" => CONFIGURE_ID,
            None => return None,
        };
        Some(Refusal::of(
            FailureKind::Protocol,
            id,
            format!("the request is not understood: {}", error.reason),
        ))
    }

    /// The line to send, without its end.
    ///
    /// # Errors
    /// When a path is not Unicode.
    pub fn to_line(&self) -> Result<String, WireError> {
        serde_json::to_string(self).map_err(|error| WireError::of("", &error))
    }
}

fn check_values(values: &BTreeMap<String, Value>) -> Result<(), String> {
    for (name, value) in values {
        finite(name, value.mean)?;
        if let Some(error) = value.standard_error {
            not_negative(&format!("the standard error of {name}"), error)?;
        }
    }
    Ok(())
}

fn finite(name: &str, value: f64) -> Result<(), String> {
    if value.is_finite() { Ok(()) } else { Err(format!("{name} must be finite, got {value}")) }
}

fn not_negative(name: &str, value: f64) -> Result<(), String> {
    if value.is_finite() && value >= 0.0 {
        Ok(())
    } else {
        Err(format!("{name} must be finite and not negative, got {value}"))
    }
}
