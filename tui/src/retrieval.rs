//! The retrieval SNR of a trained proxy's layers as a table: a row for each layer with a memory, a column for each number of
//! stored pairs, in decibels.

use db::snapshot::Candidate;

/// What the table shows, for above it.
pub const TITLE: &str = "retrieval SNR, dB, after so many stored pairs";

/// The cells, headings first; nothing when the trainer said nothing.
pub fn rows(candidate: &Candidate) -> Vec<Vec<String>> {
    let layers = &candidate.row.retrieval;
    let mut columns: Vec<u32> =
        layers.iter().flat_map(|layer| layer.snr.iter().map(|point| point.0)).collect();
    columns.sort_unstable();
    columns.dedup();
    if columns.is_empty() {
        return Vec::new();
    }
    let headings = ["layer", ""].into_iter().map(str::to_owned);
    let mut rows = vec![headings.chain(columns.iter().map(u32::to_string)).collect()];
    for layer in layers {
        let gene = candidate
            .row
            .subject
            .stack()
            .and_then(|stack| stack.layers().get(layer.layer as usize));
        let kind =
            gene.and_then(|gene| gene.mixer.as_ref()).map_or("", |mixer| mixer.kind().name());
        let at = |pairs: &u32| {
            let point = layer.snr.iter().find(|point| point.0 == *pairs);
            point.map_or(String::new(), |point| decibels(point.1))
        };
        let names = [(layer.layer + 1).to_string(), kind.to_owned()];
        rows.push(names.into_iter().chain(columns.iter().map(at)).collect());
    }
    rows
}

/// A ratio of powers; nothing is left of a signal of 0.
fn decibels(ratio: f64) -> String {
    if ratio > 0.0 { format!("{:.1}", 10.0 * ratio.log10()) } else { "−∞".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::decibels;

    #[test]
    fn ratios_become_decibels() {
        assert_eq!([1000.0, 1.0, 0.5, 0.0].map(decibels), ["30.0", "0.0", "-3.0", "−∞"]);
    }
}
