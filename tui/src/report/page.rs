//! A campaign as a page: one file that needs nothing else, to look at, to print, and to show to others; and its pictures as
//! files of their own.
//!
//! Every figure is that of the text forms: [`Findings`], [`Progress`], [`Found`] and [`Comparison`] compute, a page shows.
//! Pictures are SVG of our own (`figure`), in variables that a page sets for light and dark ground. What a page does when it
//! is touched is `page/page.js`; without it all is there to read.

mod cards;
mod climb;
mod figure;
mod front;
mod law;
mod mixers;
mod stack;
mod tables;
mod threads;
mod times;
mod trust;

use std::collections::{BTreeMap, BTreeSet};

use db::snapshot::{CampaignState, Candidate, Counts, Snapshot};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use search::Architecture;
use search::campaign::CandidateState;
use search::latency::LatencyEntry;
use search::metric::Metric;
use search::objective::Objective;
use serde_json::json;
use tui::plot::{Scene, axes};
use tui::{agreement, quantity};

use self::cards::{Setting, card};
use self::figure::Figure;
use self::tables::prose;
use self::times::Times;
use crate::report::comparison::{ALIGN, Comparison};
use crate::report::findings::Findings;
use crate::report::law::Found;
use crate::report::progress::Progress;
use crate::words;

/// Candidates beside the front and the references that have a card at most, the likeliest members first.
const CARDS: usize = 60;

/// All that a page is made of.
pub(crate) struct Page {
    pub(crate) snapshot: Snapshot,
    pub(crate) algorithm: String,
    pub(crate) findings: Findings,
    /// None while nothing is evaluated.
    pub(crate) progress: Option<Progress>,
    /// The law, or why there is none.
    pub(crate) law: Result<Found, String>,
    /// Comparisons at equal latency with candidates of this campaign, by what they are called.
    pub(crate) comparisons: Vec<(String, Comparison)>,
    pub(crate) latencies: Vec<LatencyEntry>,
    /// Roles, workers and devices.
    pub(crate) workers: Vec<[String; 3]>,
    /// What the campaign's files held, and what was left open in it.
    pub(crate) circumstances: Vec<(String, String)>,
    /// Where the latencies come from, in a sentence.
    pub(crate) provenance: String,
    /// ` --db PATH`, or nothing.
    pub(crate) db_flag: String,
}

/// Whose page it is to be decided before the curves are read: everybody with a card.
pub(crate) fn with_cards(snapshot: &Snapshot, findings: &Findings) -> BTreeSet<u32> {
    let is_named = |c: &&Candidate| c.rank == Some(0) || c.row.reference.is_some();
    let named = snapshot.candidates.iter().filter(is_named).map(|c| c.row.number);
    let likely = findings.front.iter().filter(|member| !member.on_front).take(CARDS);
    named.chain(likely.map(|member| member.number)).collect()
}

/// Kinds of failures with whose log is to be read for each.
pub(crate) fn failures(snapshot: &Snapshot) -> Vec<u32> {
    let troubles = tables::troubles(&snapshot.candidates);
    troubles
        .iter()
        .filter(|(word, ..)| *word == "failed")
        .map(|(.., numbers)| numbers[0])
        .take(12)
        .collect()
}

impl Page {
    fn values(&self) -> Vec<&str> {
        let campaign = &self.snapshot.campaign;
        let mut values: Vec<&str> = campaign.objectives.iter().map(Objective::name).collect();
        for metric in [Metric::DecodeUs, Metric::PrefillUs, Metric::Parameters] {
            let is_known = || {
                self.snapshot.candidates.iter().any(|c| c.row.values.contains_key(metric.name()))
            };
            if !campaign.is_black_box() && !values.contains(&metric.name()) && is_known() {
                values.push(metric.name());
            }
        }
        values
    }

    fn times(&self) -> Option<Times> {
        let campaign = &self.snapshot.campaign;
        let profiler = self.workers.iter().rev().find(|worker| worker[0] == "profiler")?;
        let (_, conditions) = campaign.latency.latencies(&profiler[2]).into_iter().next()?;
        Times::of(&self.latencies, conditions)
    }

    /// What the plot shows, with the whole errors of all who may be on the front.
    fn scene(&self, x: Option<&Objective>, y: &Objective) -> Option<Scene> {
        let mut scene = Scene::of(&self.snapshot, None)?;
        for member in &self.findings.front {
            let place = scene.points.binary_search_by_key(&member.number, |point| point.number);
            let Ok(place) = place else { continue };
            let error = |of: &Objective| member.objectives.get(of.name())?.standard_error;
            let point = &mut scene.points[place];
            point.y_error = error(y).unwrap_or(point.y_error);
            point.x_error = x.and_then(error).unwrap_or(point.x_error);
        }
        Some(scene)
    }

    fn drawn(&self) -> Drawn {
        let campaign = &self.snapshot.campaign;
        let (x, y) = axes(&campaign.objectives);
        let scene = self.scene(x.as_ref(), &y);
        let latency = [x.as_ref(), Some(&y)]
            .into_iter()
            .flatten()
            .find(|objective| objective.metric().is_some_and(Metric::is_latency));
        let is_whole = |c: &&Candidate| latency.is_some_and(|of| c.whole(of.name()).is_some());
        let whole =
            self.snapshot.candidates.iter().filter(is_whole).map(|c| c.row.number).collect();
        let maybe: BTreeSet<u32> = self
            .findings
            .front
            .iter()
            .filter(|m| !m.on_front && m.reference.is_none())
            .map(|m| m.number)
            .collect();
        let known =
            front::Known { campaign, whole: &whole, maybe: &maybe, is_timed: latency.is_some() };
        let dots: Vec<u32> = scene
            .as_ref()
            .map(|scene| front::shown(scene, &maybe).0.iter().map(|point| point.number).collect())
            .unwrap_or_default();
        let members: Vec<&Candidate> =
            self.snapshot.candidates.iter().filter(|c| c.rank == Some(0)).collect();
        let stacks = |all: bool| {
            let of = move |c: &&Candidate| {
                if all { c.row.state == CandidateState::Done } else { c.rank == Some(0) }
            };
            self.snapshot.candidates.iter().filter(of).filter_map(|c| c.row.subject.stack())
        };
        let times = self.times();
        Drawn {
            front: scene.as_ref().map(|scene| front::figure(scene, &known)),
            climb: self.progress.as_ref().and_then(climb::figure),
            agreements: trust::agreements(&self.findings.agreements),
            pairs: trust::pairs(&self.findings.predictions),
            law: self.law.as_ref().ok().and_then(law::figure),
            mixers: mixers::figure(stacks(false), stacks(true)),
            times: times.as_ref().and_then(|times| times.overview(&by_time(&members))),
            threads: threads::figure(&self.snapshot, &self.values(), &dots),
            dots,
            timed: times,
        }
    }

    /// The pictures as files: names and contents, an index of their titles and captions last.
    pub(crate) fn files(&self) -> anyhow::Result<Vec<(String, String)>> {
        let drawn = self.drawn();
        let figures: Vec<&Figure> = drawn.figures().collect();
        let mut files: Vec<(String, String)> =
            figures.iter().map(|figure| (format!("{}.svg", figure.name), figure.file())).collect();
        files.push((INDEX.to_owned(), serde_json::to_string_pretty(&figures)? + "\n"));
        Ok(files)
    }

    /// The page. `known` are candidates as the store holds them whole, by number.
    pub(crate) fn html(
        &self,
        known: &BTreeMap<u32, Candidate>,
        last_lines: &BTreeMap<u32, String>,
    ) -> String {
        let campaign = &self.snapshot.campaign;
        let drawn = self.drawn();
        let values = self.values();
        let setting = Setting {
            campaign,
            times: drawn.timed.as_ref(),
            values: &values,
            db_flag: &self.db_flag,
        };
        let troubles = tables::troubles(&self.snapshot.candidates);
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    (PreEscaped(META))
                    title { (campaign.name) ": deltafront" }
                    style { (PreEscaped(styles())) }
                }
                body {
                    main {
                        (self.header())
                        (self.front(&drawn))
                        @if let Some(figure) = &drawn.climb { (section("How fast it was found", html! {}, figure.in_page())) }
                        (self.trust(&drawn))
                        (self.designs(&drawn))
                        @if let Some(figure) = &drawn.mixers {
                            (section("Mixers along the depth", html! { p { "Which mixer the search put where." } }, figure.in_page()))
                        }
                        @if let Some(figure) = &drawn.times { (section("Where the time goes", html! {}, figure.in_page())) }
                        @if let Some(figure) = &drawn.threads { (section("All at once", html! {}, figure.in_page())) }
                        (self.cards(&setting, known))
                        (section("What failed", html! {}, html! {
                            @if troubles.is_empty() { p { "Nothing failed, and nothing was dropped." } }
                            @else { (tables::troubles_table(&troubles, last_lines)) }
                        }))
                        (self.provenance())
                    }
                    dialog id="drawer" {}
                    script type="application/json" id="others" { (PreEscaped(self.others(&setting, &drawn.dots))) }
                    script { (PreEscaped("\n//<![CDATA[\n")) (PreEscaped(SCRIPT)) (PreEscaped("//]]>\n")) }
                }
            }
        };
        page.into_string() + "\n"
    }

    fn header(&self) -> Markup {
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

    fn front(&self, drawn: &Drawn) -> Markup {
        let campaign = &self.snapshot.campaign;
        let title = if campaign.objectives.len() == 1 { "The best" } else { "The front" };
        let Some(figure) = &drawn.front else {
            return section(title, html! {}, html! { p { "Nothing is evaluated yet." } });
        };
        let (align, cells) = self.findings.front_cells(campaign);
        let (words, note) = self.findings.front_words(campaign);
        section(
            title,
            html! { p { (capital(&words)) "." } p { "A click on a point opens its candidate." } },
            html! {
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

    fn trust(&self, drawn: &Drawn) -> Markup {
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
            html! { p { "What little training says of more, and what a seed or a sum of parts is off by." } },
            html! {
                @if let Some(figure) = &drawn.agreements { h3 { (figure.title) } (figure.in_page()) }
                @if let Some(figure) = &drawn.pairs {
                    h3 { (figure.title) } (figure.in_page())
                    @for test in &self.findings.predictions { p class="fine" { (agreement::foretold(test)) } }
                }
                @if is_of_stacks && drawn.pairs.is_none() { p class="fine" { (prose(&agreement::UNMEASURED.replace('\n', " "))) } }
                div class="pair" {
                    div { (lines(&self.findings.noise_text(is_of_stacks))) }
                    @if is_of_stacks { div { (lines(&self.findings.compositions_text())) } }
                }
            },
        )
    }

    /// What depth and width do, and what people's designs do at the same latency.
    fn designs(&self, drawn: &Drawn) -> Markup {
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
            (section("Depth and width", html! {}, html! {
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
            (section("At equal latency", html! { p { "Hand-designed stacks, each as wide as decodes in the same time." } }, html! {
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

    fn cards(&self, setting: &Setting, known: &BTreeMap<u32, Candidate>) -> Markup {
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
            html! { p { "The front, references, and who may belong to it: each with its drawing to scale, its curve, and the commands that take it elsewhere." } },
            html! {
                div class="heads" {
                    @for objective in self.snapshot.campaign.objectives.iter().take(2) { span { (quantity::objective_title(objective)) } }
                }
                @for candidate in cards { (card(setting, candidate)) }
            },
        )
    }

    fn provenance(&self) -> Markup {
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
            (section("Provenance", html! { p { "What it takes to say where these numbers are from." } }, html! {
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

    /// What is told of the dominated candidates that are drawn, by number.
    fn others(&self, setting: &Setting, dots: &[u32]) -> String {
        let candidates = &self.snapshot.candidates;
        let find = |number: &u32| {
            let place = candidates.binary_search_by_key(number, |c| c.row.number).ok()?;
            Some(&candidates[place])
        };
        let of = |c: &Candidate| {
            let values: Vec<String> = cards::values(setting, c)
                .into_iter()
                .map(|(name, value)| format!("{name}: {value}"))
                .collect();
            (
                c.row.number.to_string(),
                json!([quantity::shortened(&c.row.subject.to_string(), 400), values.join("\n")]),
            )
        };
        let others: serde_json::Map<String, serde_json::Value> =
            dots.iter().filter_map(find).map(of).collect();
        let name = format!("{} {}", setting.db_flag, words::quoted(&self.snapshot.campaign.name));
        let text = json!({ "name": name, "of": others }).to_string();
        // Within a script nothing is escaped but what could end it.
        text.replace('<', "\\u003c").replace('&', "\\u0026")
    }
}

/// Everything that is drawn.
struct Drawn {
    front: Option<Figure>,
    climb: Option<Figure>,
    agreements: Option<Figure>,
    pairs: Option<Figure>,
    law: Option<Figure>,
    mixers: Option<Figure>,
    times: Option<Figure>,
    threads: Option<Figure>,
    /// Numbers of the dominated candidates in the first.
    dots: Vec<u32>,
    timed: Option<Times>,
}

impl Drawn {
    fn figures(&self) -> impl Iterator<Item = &Figure> {
        let all = [
            &self.front,
            &self.climb,
            &self.agreements,
            &self.pairs,
            &self.law,
            &self.mixers,
            &self.times,
            &self.threads,
        ];
        all.into_iter().flatten()
    }
}

/// Numbers, labels, stacks and times of whole models, the quickest first.
fn by_time<'a>(
    members: &[&'a Candidate],
) -> Vec<(u32, String, &'a Architecture, Option<(f64, f64)>)> {
    let name = Metric::DecodeUs.name();
    let us = |c: &Candidate| c.row.values.get(name).map_or(f64::INFINITY, |value| value.mean);
    let mut members = members.to_vec();
    members.sort_by(|a, b| us(a).total_cmp(&us(b)));
    let of = |c: &&'a Candidate| {
        let label = c.row.reference.clone().unwrap_or_else(|| c.row.number.to_string());
        let whole = c.whole(name).map(|timing| (timing.median_us, timing.spread_us));
        Some((c.row.number, label, c.row.subject.stack()?, whole))
    };
    members.iter().filter_map(of).collect()
}

/// The file in which pictures are listed.
pub(crate) const INDEX: &str = "figures.json";
/// Closed as XML wants it, so that a page is both.
const META: &str = "<meta charset=\"utf-8\"/><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\
    <meta name=\"color-scheme\" content=\"light dark\"/>";
const SCRIPT: &str = include_str!("page/page.js");

/// All rules, with the colours of light and dark ground.
fn styles() -> String {
    let of = |variables: Vec<(String, &str)>| -> String {
        variables.into_iter().map(|(name, ink)| format!("--{name}:{ink};")).collect()
    };
    let light = of(figure::variables(|(light, _)| light));
    let dark = of(figure::variables(|(_, dark)| dark));
    format!(
        "\n:root{{{light}}}\n@media (prefers-color-scheme:dark){{@media screen{{:root{{{dark}}}}}}}\n{}\n{}",
        include_str!("page/page.css"),
        figure::CSS
    )
}

/// A heading with what is to be said, beside what is to be seen.
fn section(title: &str, words: Markup, shown: Markup) -> Markup {
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
