//! The sections of a page, each a function of what it is made of.

use std::collections::BTreeMap;

use db::snapshot::{CampaignState, Candidate, Counts};
use maud::{Markup, html};
use tui::plot::axes;
use tui::{agreement, quantity};

use super::cards::{Setting, card};
use super::content::{Drawn, Page};
use super::tables;
use super::tables::prose;
use crate::report::comparison::ALIGN;
use crate::report::law::Found;
use crate::words;

impl Page {
    pub(super) fn header(&self) -> Markup {
        let campaign = &self.snapshot.campaign;
        let counts = Counts::of(&self.snapshot.candidates);
        let members = || self.snapshot.candidates.iter().filter(|c| c.rank == Some(0));
        let mut facts: Vec<(String, String)> = vec![
            (counts.done.to_string(), format!("of {} evaluated", campaign.evaluations)),
            (
                members().count().to_string(),
                if campaign.objectives.len() == 1 { "the best" } else { "on the front" }.to_owned(),
            ),
        ];
        for objective in campaign.objectives.iter().take(2) {
            let best = members()
                .filter_map(|c| {
                    Some((objective.minimised(&c.row.values)?, c.objective(objective)?))
                })
                .min_by(|a, b| a.0.total_cmp(&b.0));
            if let Some((_, value)) = best {
                facts.push((
                    quantity::named(objective.name(), value),
                    format!("best {}", quantity::title(objective.name())),
                ));
            }
        }
        if counts.failed + counts.infeasible > 0 {
            facts.push((
                format!("{} + {}", counts.failed, counts.infeasible),
                "failed, outside limits".to_owned(),
            ));
        }
        if campaign.active_seconds > 0.0 {
            facts.push((quantity::duration(campaign.active_seconds), "of work".to_owned()));
        }
        html! {
            header class="top" {
                p class="kicker" { "deltafront campaign" }
                h1 { (campaign.name) }
                p class="lead" {
                    (state(campaign.state)) ", begun " (date(campaign.created_unix_s)) "; proposed by " (self.algorithm)
                    " from seed " (campaign.seed) ". " (self.provenance.trim().replace('\n', " "))
                }
                dl class="facts" {
                    @for (value, name) in &facts { div { dd { (value) } dt { (name) } } }
                }
            }
        }
    }

    pub(super) fn front(&self, drawn: &Drawn) -> Markup {
        let campaign = &self.snapshot.campaign;
        let title = if campaign.objectives.len() == 1 { "The best" } else { "The front" };
        let Some(figure) = &drawn.front else {
            return section(title, &html! {}, &html! { p { "Nothing is evaluated yet." } });
        };
        let (align, cells) = self.findings.front_cells(campaign);
        let (words, note) = self.findings.front_words(campaign);
        section(
            title,
            &html! { p { (capital(&words)) "." } p { "A click on a point opens its candidate." } },
            &html! {
                (figure.in_page())
                (tables::table(&align, &cells, |row, column, text| match column {
                    0 => html! { a class="pick" data-n=(text) href=(format!("#c{text}")) { (text) } },
                    1 => html! { span class="is-front" { (text) } },
                    2 => html! {
                        span class="chance" style=(format!("--chance:{:.0}%", 100.0 * self.findings.front[row].membership)) {}
                        span class="percent" { (text) }
                    },
                    _ => html! { (text) },
                }))
                p class="fine" { (note.replace('\n', " ")) }
            },
        )
    }

    pub(super) fn trust(&self, drawn: &Drawn) -> Markup {
        let is_of_stacks = !self.snapshot.campaign.is_black_box();
        if drawn.front.is_none() {
            return html! {};
        }
        let lines = |text: &str| {
            let mut lines = text.trim().lines();
            let title = capital(lines.next().unwrap_or_default());
            let rest: Vec<String> = lines.map(str::to_owned).collect();
            html! { h3 { (title) } @for line in rest { p class="fine" { (prose(&line)) } } }
        };
        section(
            "How far to trust it",
            &html! { p { "What little training says of more, and what a seed or a sum of parts is off by." } },
            &html! {
                @if let Some(figure) = &drawn.agreements { h3 { (figure.title) } (figure.in_page()) }
                @if let Some(figure) = &drawn.pairs {
                    h3 { (figure.title) } (figure.in_page())
                    @for test in &self.findings.predictions { p class="fine" { (agreement::foretold(test)) } }
                }
                @if is_of_stacks && drawn.pairs.is_none() { p class="fine" { (prose(&agreement::UNMEASURED.replace('\n', " "))) } }
                div class="pair" {
                    div { (lines(&self.findings.noise_text(is_of_stacks))) }
                    @if is_of_stacks {
                        div { (lines(&self.findings.compositions_text())) (lines(&self.findings.drift_text())) }
                    }
                }
            },
        )
    }

    /// What depth and width do, and what people's designs do at the same latency.
    pub(super) fn designs(&self, drawn: &Drawn) -> Markup {
        if self.snapshot.campaign.is_black_box() {
            return html! {};
        }
        let choices = self
            .law
            .as_ref()
            .ok()
            .and_then(|found| Some((found.budget_us?, found, found.choices.as_ref()?)));
        let unknowns = self.law.as_ref().map_or_else(|_| Vec::new(), Found::unknowns_cells);
        html! {
            (section("Depth and width", &html! {}, &html! {
                @if let Some(figure) = &drawn.law { (figure.in_page()) }
                @if let Err(reason) = &self.law { p class="fine" { "No law: " (prose(reason)) "." } }
                @if !unknowns.is_empty() { (tables::table("lrl", &unknowns, |_, _, text| html! { (text) })) }
                @if let Some((budget, found, choices)) = choices {
                    @if !choices.is_empty() {
                        h3 { "Within " (quantity::significant(budget)) " µs a token" }
                        (tables::table("rrrrlr", &found.choices_cells(choices), |_, _, text| html! { (text) }))
                    }
                }
            }))
            (section("At equal latency", &html! { p { "Hand-designed stacks, each as wide as decodes in the same time." } }, &html! {
                @if self.comparisons.is_empty() {
                    p class="fine" {
                        "No stack of this campaign was compared yet; " code { "deltafront compare " (words::quoted(&self.snapshot.campaign.name)) " CANDIDATE" }
                        " trains hand-designed ones beside it."
                    }
                }
                @for (name, comparison) in &self.comparisons {
                    h3 { (name) }
                    (tables::table(ALIGN, &comparison.cells(), |_, column, text| html! {
                        @if column == 0 { span class=(if text == "●" { "is-front" } else { "is-reference" }) { (text) } } @else { (text) }
                    }))
                    p class="fine" { (comparison.note().replace('\n', " ")) }
                }
            }))
        }
    }

    pub(super) fn cards(&self, setting: &Setting, known: &BTreeMap<u32, Candidate>) -> Markup {
        let title = if self.snapshot.campaign.is_black_box() { "Candidates" } else { "Stacks" };
        if known.is_empty() {
            return html! {};
        }
        // The front from its cheap end, then the others.
        let cost = axes(&self.snapshot.campaign.objectives).0;
        let cost =
            |c: &Candidate| cost.as_ref().and_then(|of| of.minimised(&c.row.values)).unwrap_or(0.0);
        let mut cards: Vec<&Candidate> = known.values().collect();
        cards.sort_by(|a, b| {
            (a.rank != Some(0)).cmp(&(b.rank != Some(0))).then(cost(a).total_cmp(&cost(b)))
        });
        section(
            title,
            &html! { p { "The front, references, and who may belong to it: each with its drawing to scale, its curve, and the commands that take it elsewhere." } },
            &html! {
                div class="heads" {
                    @for objective in self.snapshot.campaign.objectives.iter().take(2) { span { (quantity::objective_title(objective)) } }
                }
                @for candidate in cards { (card(setting, candidate)) }
            },
        )
    }

    pub(super) fn provenance(&self) -> Markup {
        let campaign = &self.snapshot.campaign;
        let objectives: Vec<String> =
            campaign.objectives.iter().map(quantity::objective_title).collect();
        let mut facts = vec![
            ("program", format!("deltafront {}", env!("CARGO_PKG_VERSION"))),
            ("objectives", objectives.join(", ")),
            ("seed", campaign.seed.to_string()),
        ];
        if !campaign.is_black_box() {
            facts.push(("tokens of a training", quantity::scaled(campaign.tokens as f64)));
            facts.push(("tokens that count", quantity::scaled(campaign.target_tokens as f64)));
        }
        html! {
            (section("Provenance", &html! { p { "What it takes to say where these numbers are from." } }, &html! {
                dl class="values" {
                    @for (name, value) in &facts { div { dt { (name) } dd { (value) } } }
                }
                @if !self.workers.is_empty() {
                    @let heading = ["role", "worker", "device"].map(str::to_owned).to_vec();
                    @let rows: Vec<Vec<String>> = [heading].into_iter().chain(self.workers.iter().map(|row| row.to_vec())).collect();
                    (tables::table("lll", &rows, |_, _, text| html! { (text) }))
                }
                @if !self.circumstances.is_empty() {
                    @let heading = ["setting", "was"].map(str::to_owned).to_vec();
                    @let rows: Vec<Vec<String>> =
                        [heading].into_iter().chain(self.circumstances.iter().map(|(key, value)| vec![key.clone(), value.clone()])).collect();
                    (tables::table("ll", &rows, |_, column, text| html! { @if column == 1 { code { (text) } } @else { (text) } }))
                }
                details class="file" { summary { "The campaign file" } pre { (campaign.config_toml) } }
            }))
        }
    }
}

/// A heading with what is to be said, beside what is to be seen.
pub(super) fn section(title: &str, words: &Markup, shown: &Markup) -> Markup {
    html! {
        section {
            div class="side" { h2 { (title) } (words) }
            div class="shown" { (shown) }
        }
    }
}

/// With a capital letter first.
fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

fn state(state: CampaignState) -> String {
    capital(crate::commands::list::state_word(state))
}

/// The day of a Unix time in UTC, `2026-11-30`: Hinnant's civil_from_days.
fn date(unix_s: i64) -> String {
    let days = unix_s.div_euclid(86_400) + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_of_the_calendar() {
        assert_eq!(
            [0, 951_782_400, 1_709_164_799, 1_796_005_380].map(date),
            ["1970-01-01", "2000-02-29", "2024-02-28", "2026-11-30"]
        );
    }
}
