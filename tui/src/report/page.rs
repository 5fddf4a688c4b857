//! A campaign as a page: one file that needs nothing else, to look at, to print, and to show to others; and its pictures as
//! files of their own.
//!
//! Every figure is that of the text forms: [`super::findings`], [`super::progress`], [`super::law`] and [`super::comparison`] compute, a page shows.
//! Pictures are SVG of our own (`figure`), in variables that a page sets for light and dark ground. What a page does when it
//! is touched is `page/page.js`; without it all is there to read.

mod cards;
mod climb;
mod content;
mod figure;
mod front;
mod law;
mod mixers;
mod sections;
mod stack;
mod tables;
mod threads;
mod times;
mod trust;

use std::collections::BTreeMap;

use db::snapshot::Candidate;
use maud::{DOCTYPE, PreEscaped, html};
use serde_json::json;
use tui::quantity;

use self::cards::Setting;
pub(crate) use self::content::{Page, failures, with_cards};
use self::figure::Figure;
use self::sections::section;
use crate::words;

impl Page {
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
                        @if let Some(figure) = &drawn.climb { (section("How fast it was found", &html! {}, &figure.in_page())) }
                        (self.trust(&drawn))
                        (self.designs(&drawn))
                        @if let Some(figure) = &drawn.mixers {
                            (section("Mixers along the depth", &html! { p { "Which mixer the search put where." } }, &figure.in_page()))
                        }
                        @if let Some(figure) = &drawn.times { (section("Where the time goes", &html! {}, &figure.in_page())) }
                        @if let Some(figure) = &drawn.threads { (section("All at once", &html! {}, &figure.in_page())) }
                        (self.cards(&setting, known))
                        (section("What failed", &html! {}, &html! {
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

/// The file in which pictures are listed.
pub(crate) const INDEX: &str = "figures.json";
/// Closed as XML wants it, so that a page is both.
const META: &str = "<meta charset=\"utf-8\"/><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\
    <meta name=\"color-scheme\" content=\"light dark\"/>";
const SCRIPT: &str = include_str!("page/page.js");

/// All rules, with the colours of light and dark ground.
fn styles() -> String {
    let of = |variables: Vec<(String, &str)>| -> String {
        let lines = variables.into_iter().map(|(name, ink)| format!("--{name}:{ink};"));
        lines.collect::<Vec<_>>().concat()
    };
    let light = of(figure::variables(|(light, _)| light));
    let dark = of(figure::variables(|(_, dark)| dark));
    format!(
        "\n:root{{{light}}}\n@media (prefers-color-scheme:dark){{@media screen{{:root{{{dark}}}}}}}\n{}\n{}",
        include_str!("page/page.css"),
        figure::CSS
    )
}
