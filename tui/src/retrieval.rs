//! The retrieval SNR of a trained proxy's memories as a table: for each of them a row of reads with stored keys, one of reads
//! with its own queries, and what independent keys would give; a column for each number of stored pairs, in decibels.

use db::snapshot::Candidate;
use search::retrieval::{decibels, of_independent_keys};
use search::wire::{LayerRetrieval, Memory};

/// What the table shows, for above it.
pub const TITLE: &str = "retrieval SNR, dB, after so many stored pairs";

/// The cells, headings first; nothing when the trainer said nothing.
pub fn rows(candidate: &Candidate) -> Vec<Vec<String>> {
    let layers = &candidate.row.retrieval;
    let mut columns: Vec<u32> =
        layers.iter().flat_map(|layer| layer.points().map(|point| point.0)).collect();
    columns.sort_unstable();
    columns.dedup();
    if columns.is_empty() {
        return Vec::new();
    }
    let headings = ["layer", "", "read by"].into_iter().map(str::to_owned);
    let mut rows = vec![headings.chain(columns.iter().map(u32::to_string)).collect()];
    for layer in layers {
        rows.extend(of_memory(candidate, layer, &columns));
    }
    rows
}

/// The rows of one memory.
fn of_memory(candidate: &Candidate, of: &LayerRetrieval, columns: &[u32]) -> Vec<Vec<String>> {
    let stack = candidate.row.subject.stack();
    let gene = stack.and_then(|stack| stack.layers().get(of.layer as usize));
    let kind = match of.memory {
        Memory::Mixer => {
            gene.and_then(|gene| gene.mixer.as_ref()).map_or("", |mixer| mixer.kind().name())
        }
        Memory::Ffn => "ffn",
    };
    let measured = |points: &[(u32, f64)], pairs: u32| {
        points.iter().find(|point| point.0 == pairs).map(|point| point.1)
    };
    let expected = |pairs: u32| {
        measured(&of.snr, pairs)?;
        of_independent_keys(gene?, of.memory, stack?.d_model(), pairs)
    };
    let queries = if of.memory == Memory::Ffn { "inputs" } else { "queries" };
    let row = |names: [&str; 2], by: &str, at: &dyn Fn(u32) -> Option<f64>| {
        let cells = columns.iter().map(|&pairs| at(pairs).map_or_else(String::new, cell));
        let row: Vec<String> =
            names.into_iter().chain([by]).map(str::to_owned).chain(cells).collect();
        row
    };
    let number = (of.layer + 1).to_string();
    let mut rows = vec![row([number.as_str(), kind], "keys", &|pairs| measured(&of.snr, pairs))];
    if columns.iter().any(|&pairs| expected(pairs).is_some()) {
        rows.push(row(["", ""], "theory", &expected));
    }
    if !of.queries.is_empty() {
        rows.push(row(["", ""], queries, &|pairs| measured(&of.queries, pairs)));
    }
    rows
}

/// A ratio of powers; nothing is left of a signal of 0.
fn cell(ratio: f64) -> String {
    if ratio > 0.0 { format!("{:.1}", decibels(ratio)) } else { "−∞".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::cell;

    #[test]
    fn ratios_become_decibels() {
        assert_eq!([1000.0, 1.0, 0.5, 0.0].map(cell), ["30.0", "0.0", "-3.0", "−∞"]);
    }
}
