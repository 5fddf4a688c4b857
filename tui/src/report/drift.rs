//! In words: by how much the same models took longer or shorter minutes later.

use search::campaign::findings::Retimed;
use tui::quantity;

use crate::words;

/// A line on one latency; `seconds`: how much later, where that is known.
pub(super) fn line(of: &Retimed, seconds: Option<f64>) -> String {
    let later = match seconds {
        None => String::new(),
        Some(seconds) if seconds < 60.0 => " within a minute".to_owned(),
        Some(seconds) => format!(" {} later", quantity::duration(seconds)),
    };
    let (common, individual) = (100.0 * of.common, 100.0 * of.individual);
    format!(
        "{}: the same {} differed by {:.1} %{later}, {:+.1} % on average, at most {:.1} %; every ± holds it, {}\n",
        quantity::title(&of.value),
        words::count(of.models, "model"),
        100.0 * of.mean_absolute_change,
        100.0 * of.mean_change,
        100.0 * of.largest_change,
        if common < 0.05 {
            format!("{individual:.1} % of each by itself")
        } else {
            format!("{common:.1} % of all alike and {individual:.1} % of each by itself")
        }
    )
}
