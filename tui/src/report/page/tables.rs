//! Tables of the page: of cells that the text forms have, too.

use std::collections::BTreeMap;

use db::snapshot::Candidate;
use maud::{Markup, html};
use search::campaign::CandidateState;

/// Kinds of failures that are told at most.
const KINDS: usize = 12;
/// Tables of no more columns do not fill the page.
const NARROW: usize = 3;
/// Numbers of candidates that are named of each.
const NAMED: usize = 12;

/// A table of cells, headings first; a column is aligned to the right if its letter is `r`. `cell` is given row (from 0, without
/// the headings), column and text.
pub(super) fn table(
    align: &str,
    rows: &[Vec<String>],
    cell: impl Fn(usize, usize, &str) -> Markup,
) -> Markup {
    let class = |column: usize| if align.as_bytes().get(column) == Some(&b'r') { "r" } else { "l" };
    html! {
        div class=(if align.len() <= NARROW { "table narrow" } else { "table" }) {
            table {
                @if let Some(heading) = rows.first() {
                    thead { tr {
                        @for (column, text) in heading.iter().enumerate() { th class=(class(column)) { (text) } }
                    } }
                }
                tbody {
                    @for (index, row) in rows.iter().skip(1).enumerate() {
                        tr {
                            @for (column, text) in row.iter().enumerate() {
                                td class=(class(column)) { (cell(index, column, text)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A sentence of the text forms, whose `words` are set as code.
pub(super) fn prose(text: &str) -> Markup {
    html! {
        @for (index, part) in text.split('`').enumerate() {
            @if index % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

/// Why candidates failed or were dropped: a word for which of the two, a reason without its numbers, and whose it is.
pub(super) fn troubles(candidates: &[Candidate]) -> Vec<(&'static str, String, Vec<u32>)> {
    let mut kinds: BTreeMap<(&'static str, String), (String, Vec<u32>)> = BTreeMap::new();
    for candidate in candidates {
        let (word, reason) = match &candidate.row.state {
            CandidateState::Failed { reason, .. } => ("failed", reason),
            CandidateState::Infeasible { reason } => ("dropped", reason),
            CandidateState::Proposed | CandidateState::Training | CandidateState::Done => continue,
        };
        let kind = kinds.entry((word, without_numbers(reason))).or_default();
        if kind.1.is_empty() {
            reason.clone_into(&mut kind.0);
        }
        kind.1.push(candidate.row.number);
    }
    let mut troubles: Vec<_> = kinds
        .into_iter()
        .map(|((word, kind), (reason, numbers))| {
            (word, if numbers.len() == 1 { reason } else { kind }, numbers)
        })
        .collect();
    troubles
        .sort_by_key(|(word, _, numbers)| (*word == "dropped", std::cmp::Reverse(numbers.len())));
    troubles
}

/// Their table; `last_line` says how the log of a candidate ended.
pub(super) fn troubles_table(
    troubles: &[(&'static str, String, Vec<u32>)],
    last_lines: &BTreeMap<u32, String>,
) -> Markup {
    let heading = ["", "how many", "why", "candidates"].map(str::to_owned).to_vec();
    let rows = troubles.iter().take(KINDS).map(|(word, reason, numbers)| {
        let named: Vec<String> = numbers.iter().take(NAMED).map(u32::to_string).collect();
        let more = if numbers.len() > NAMED { ", …" } else { "" };
        vec![(*word).to_owned(), numbers.len().to_string(), reason.clone(), named.join(", ") + more]
    });
    let rows: Vec<Vec<String>> = [heading].into_iter().chain(rows).collect();
    html! {
        (table("lrll", &rows, |row, column, text| html! {
            (text)
            @if column == 2 {
                @if let Some(line) = last_lines.get(&troubles[row].2[0]) { code class="log" { (line) } }
            }
        }))
        @if troubles.len() > KINDS { p class="fine" { "And " (troubles.len() - KINDS) " more kinds." } }
    }
}

/// Reasons that differ in their numbers are of one kind.
fn without_numbers(reason: &str) -> String {
    let mut kind = String::new();
    let mut is_number = false;
    for c in reason.chars() {
        let goes_on = is_number && (c.is_ascii_digit() || c == '.');
        is_number = c.is_ascii_digit() || goes_on;
        match (is_number, goes_on) {
            (true, true) => {}
            (true, false) => kind.push('…'),
            (false, _) => kind.push(c),
        }
    }
    kind
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_told_apart_by_their_words() {
        assert_eq!(without_numbers("decode 12.5 µs is over 40"), "decode … µs is over …");
        assert_eq!(without_numbers("no number"), "no number");
    }

    #[test]
    fn cells_are_escaped() {
        let rows = [vec!["<b>".to_owned()], vec!["a & \"b\"".to_owned()]];
        let table = table("l", &rows, |_, _, text| html! { (text) }).into_string();
        insta::assert_snapshot!(table, @r#"<div class="table narrow"><table><thead><tr><th class="l">&lt;b&gt;</th></tr></thead><tbody><tr><td class="l">a &amp; &quot;b&quot;</td></tr></tbody></table></div>"#);
    }
}
