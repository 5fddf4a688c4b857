//! What there is to know of one candidate, to be opened from every picture.

use db::snapshot::{Campaign, Candidate};
use maud::{Markup, html};
use search::subject::Subject;
use tui::{quantity, retrieval};

use super::figure::svg;
use super::stack;
use super::tables;
use super::times::Times;
use crate::export::{Form, TARGETS};
use crate::{report, words};

/// What all cards have in common.
pub(super) struct Setting<'a> {
    pub(super) campaign: &'a Campaign,
    pub(super) times: Option<&'a Times>,
    /// Names of the values that tables show.
    pub(super) values: &'a [&'a str],
    /// ` --db PATH`, or nothing.
    pub(super) db_flag: &'a str,
}

/// A card that is closed until it is asked for.
pub(super) fn card(setting: &Setting, candidate: &Candidate) -> Markup {
    let number = candidate.row.number;
    let stack = candidate.row.subject.stack();
    let values = values(setting, candidate);
    html! {
        details class="card" {
            summary {
                span class="number" { (number) }
                span class="mark" {
                    @if candidate.rank == Some(0) { span class="is-front" { "●" } }
                    @if candidate.row.reference.is_some() { span class="is-reference" { "◆" } }
                }
                span class="what" {
                    @if let Some(name) = &candidate.row.reference { b { (name) } " " }
                    (quantity::shortened(&candidate.row.subject.words(), 96))
                }
                @for objective in setting.campaign.objectives.iter().take(2) {
                    @if let Some(value) = candidate.objective(objective) {
                        span class="value" { (quantity::named(objective.name(), value)) }
                    }
                }
            }
            div class="open" id=(format!("c{number}")) {
                h3 {
                    "Candidate " (number)
                    @if let Some(name) = &candidate.row.reference { ", " (name) }
                }
                p class="origin" { (candidate.row.origin) ", seed " (candidate.row.seed) ", id " code { (&candidate.id.as_str()[..12]) } }
                dl class="values" {
                    @for (name, value) in &values { div { dt { (name) } dd { (value) } } }
                }
                @if let Some(stack) = stack {
                    div class="drawn" {
                        div { (of(stack::drawing(stack), "The stack to scale")) }
                        div {
                            @if let Some(layers) = setting.times.and_then(|times| times.layers(stack)) {
                                (of(layers, "Latency by layer"))
                            }
                            @if let Some(curve) = stack::curve(&candidate.row.curve) { (of(curve, "Training loss")) }
                        }
                    }
                }
                @let memory = retrieval::rows(candidate);
                @if !memory.is_empty() {
                    h4 { (retrieval::TITLE) }
                    (tables::table(&format!("rll{}", "r".repeat(memory[0].len() - 3)), &memory, |_, _, cell| html! { (cell) }))
                }
                @if let Subject::Point(assignment) = &candidate.row.subject {
                    pre { (assignment.to_string().replace(' ', "\n")) }
                } @else {
                    pre class="text" { (candidate.row.subject.to_string()) }
                }
                (commands(setting, candidate))
            }
        }
    }
}

fn of((width, height, body): (f64, f64, Markup), title: &str) -> Markup {
    svg((width, height), title, &body)
}

/// Its values as tables show them; what is foretold of them behind.
pub(super) fn values(setting: &Setting, candidate: &Candidate) -> Vec<(String, String)> {
    let target = quantity::scaled(setting.campaign.target_tokens as f64);
    let mut values = Vec::new();
    for name in setting.values {
        if let Some(value) = candidate.foretold.get(*name) {
            values.push((
                format!("{} at {target}", quantity::title(name)),
                quantity::named(name, *value),
            ));
        }
        if candidate.row.values.contains_key(*name) {
            let whole = candidate.whole(name).map_or("", |_| ", whole");
            values.push((
                format!("{}{whole}", quantity::title(name)),
                report::named(candidate, name),
            ));
        }
    }
    if candidate.row.fidelity > 1 {
        values.push(("tokens".to_owned(), quantity::scaled(candidate.row.fidelity as f64)));
    }
    values
}

/// What to type to take it elsewhere.
fn commands(setting: &Setting, candidate: &Candidate) -> Markup {
    let name = words::quoted(&setting.campaign.name);
    let number = candidate.row.number;
    let say = |command: &str, rest: &str| {
        format!("deltafront {command}{} {name} {number}{rest}", setting.db_flag)
    };
    let mut lines = vec![say("show", "")];
    let mut others = Vec::new();
    if let Some(stack) = candidate.row.subject.stack() {
        lines.push(say("profile", ""));
        for target in TARGETS {
            let is_held = target.obstacles(stack).is_some_and(|obstacles| obstacles.is_empty());
            match target.form {
                Form::Folder(_) | Form::Description(_) | Form::Gguf if is_held => {
                    lines.push(say("export", &format!(" --to {}", target.name)));
                }
                Form::Folder(_) | Form::Description(_) | Form::Gguf => others.push(target.name),
                Form::Text(_) | Form::Table(_) => {}
            }
        }
    }
    lines.push(say("export", &format!(" --to json -o stack-{number}.json")));
    html! {
        h4 { "Take it elsewhere" }
        pre class="commands" { (lines.join("\n")) }
        @if !others.is_empty() {
            p class="fine" { "Not held as it is by " (others.join(", ")) ": " code { "export --check" } " says why." }
        }
    }
}
