//! What `run` prints at its end and `show` prints of a campaign: a headline, the plot, the front as a table. What `report`
//! prints is in [`findings`] and [`progress`], what `compare` prints in [`comparison`], what `study`
//! prints in [`study`], what
//! `law` prints in [`law`]; the same as a page is [`page`].

pub(crate) mod comparison;
mod drift;
pub(crate) mod findings;
pub(crate) mod law;
pub(crate) mod page;
pub(crate) mod parts;
pub(crate) mod progress;
pub(crate) mod study;

use std::collections::HashSet;
use std::io::{IsTerminal, Write};
use std::path::Path;

use db::snapshot::{Campaign, Candidate, Snapshot};
use db::{Store, WorkerRow};
use search::campaign::CandidateState;
use search::campaign::findings::retimed;
use search::config::Target;
use search::latency::{LatencyEntry, Part, Phase, Timing, parts};
use search::metric::Metric;
use search::objective::Objective;
use tui::{agreement, plot, quantity};

use crate::words;

/// Prints the result of a campaign to stdout, with the files it wrote and what to do next.
pub(crate) async fn print(store: &Store, name: &str, files: &Path) -> anyhow::Result<()> {
    let snapshot = store.outline(name).await?;
    let mut stdout = std::io::stdout();
    write!(stdout, "{}{}", campaign(&snapshot, false), provenance(store, &snapshot).await?)?;
    let db = store.path();
    writeln!(stdout, "\nfiles")?;
    writeln!(stdout, "  {}  every candidate, value, curve and latency", db.display())?;
    let is_black_box = snapshot.campaign.is_black_box();
    let kept = if is_black_box { "the workers' log" } else { "checkpoints and the workers' logs" };
    writeln!(stdout, "  {}  {kept}", shown_path(files))?;
    let flag = db_flag(db);
    let program = words::program();
    let name = words::quoted(name);
    let (_, quality) = plot::axes(&snapshot.campaign.objectives);
    let loss = |c: &Candidate| {
        c.objective(&quality).map_or(f64::INFINITY, |value| quality.turned(value.mean))
    };
    let front = snapshot.candidates.iter().filter(|c| c.rank == Some(0));
    let pick = front.min_by(|a, b| loss(a).total_cmp(&loss(b)));
    writeln!(stdout, "\nnext")?;
    writeln!(stdout, "  {program} browse{flag} {name}")?;
    if let Some(best) = pick {
        let number = best.row.number;
        writeln!(stdout, "  {program} show{flag} {name} {number}")?;
        writeln!(
            stdout,
            "  {program} export{flag} {name} {number} --format json -o stack-{number}.json"
        )?;
    }
    Ok(())
}

/// ` --db PATH`, unless it is the usual one.
pub(crate) fn db_flag(db: &Path) -> String {
    if db == Path::new("deltafront.db") {
        String::new()
    } else {
        format!(" --db {}", words::quoted(&db.to_string_lossy()))
    }
}

/// Relative to the current folder where that is shorter.
fn shown_path(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).unwrap_or(path).display().to_string()
}

/// Whether stdout takes colours.
pub(crate) fn colour() -> bool {
    std::io::stdout().is_terminal() && tui::theme::Theme::from_env().colour
}

/// Columns of the terminal; 100 where there is none.
pub(crate) fn width() -> u16 {
    if !std::io::stdout().is_terminal() {
        return 100;
    }
    ratatui::crossterm::terminal::size().map_or(100, |(columns, _)| columns.max(40))
}

/// Where the latencies come from, and how far other processes disturbed them.
pub(crate) async fn provenance(store: &Store, snapshot: &Snapshot) -> anyhow::Result<String> {
    let campaign = &snapshot.campaign;
    let workers = store.workers(&campaign.name).await?;
    let needed: HashSet<Part> = snapshot
        .candidates
        .iter()
        .filter_map(|row| row.row.subject.stack())
        .flat_map(parts)
        .collect();
    let targets = campaign.latency.targets();
    let timed = targets.iter().filter_map(|target| {
        let role = db::profiler_of(target.name.as_deref());
        Some((target, workers.iter().rev().find(|worker| worker.role == role)?))
    });
    let timed: Vec<(&Target, &WorkerRow)> = timed.collect();
    if timed.is_empty() {
        return Ok(String::new());
    }
    let table = store.latencies().await?;
    let of = |(target, profiler)| provenance_of(target, profiler, &table, &needed);
    Ok(timed.into_iter().map(of).collect())
}

/// The same of one target.
fn provenance_of(
    target: &Target,
    profiler: &WorkerRow,
    table: &[LatencyEntry],
    needed: &HashSet<Part>,
) -> String {
    let config = &target.latency;
    let timings: Vec<&Timing> = table
        .iter()
        .filter(|entry| {
            let conditions = &entry.key.conditions;
            conditions.device == profiler.device
                && conditions.dtype == config.dtype
                && conditions.threads == config.threads
                && match conditions.phase {
                    Phase::Decode { context } => context == config.decode_context,
                    Phase::Prefill { tokens } => tokens == config.prefill_tokens,
                }
                && needed.contains(&entry.key.part)
        })
        .map(|entry| &entry.timing)
        .collect();
    if timings.is_empty() {
        return String::new();
    }
    let target = target.name.as_ref().map_or(String::new(), |name| format!(" (target `{name}`)"));
    let mut text = format!(
        "Timed on {}{target} by {}: {}, {}, batch 1; decode with {} in the cache{}; {} of parts",
        profiler.device,
        profiler.worker,
        config.dtype,
        words::count(config.threads as usize, "thread"),
        config.decode_context,
        match config.prefill_tokens {
            0 => String::new(),
            tokens => format!(", prefill of {tokens}"),
        },
        words::count(timings.len(), "timing"),
    );
    let disturbed = timings.iter().filter(|timing| timing.is_disturbed()).count();
    if disturbed > 0 {
        let load = timings.iter().map(|timing| timing.other_load).fold(0.0, f64::max);
        text = format!(
            "{text}, {disturbed} of them disturbed by other\nprocesses (up to {:.0} % of the machine): not to be \
             trusted to the last digit",
            100.0 * load
        );
    }
    text + ".\n"
}

/// Headline, plot and table: the front and the reference stacks, or all candidates.
pub(crate) fn campaign(snapshot: &Snapshot, all: bool) -> String {
    let mut text = headline(snapshot);
    if snapshot.candidates.iter().any(|candidate| candidate.rank.is_some()) {
        text.push('\n');
        text.push_str(plot::to_text(snapshot, width().min(110), 24, colour()).trim_end());
        text.push('\n');
    }
    let rows: Vec<&Candidate> = snapshot
        .candidates
        .iter()
        .filter(|c| all || c.rank == Some(0) || c.row.reference.is_some())
        .collect();
    if !rows.is_empty() {
        text.push('\n');
        text.push_str(&candidates(&snapshot.campaign, rows));
    }
    for agreement in snapshot.agreements.iter().filter(|agreement| agreement.kendall.is_some()) {
        let (tau, rho) = (agreement.kendall, agreement.spearman);
        let line = format!(
            "Rank correlation of {}: τ {}, ρ {}.\n",
            agreement::title(agreement),
            agreement::correlation(tau),
            agreement::correlation(rho),
        );
        text.push_str(&line);
    }
    for test in &snapshot.predictions {
        text.push_str(&agreement::foretold(test));
        text.push('\n');
    }
    for of in retimed(&snapshot.candidates.iter().map(|candidate| &candidate.row)) {
        text.push_str(&drift::line(&of, snapshot.between_s.get(&of.value).copied()));
    }
    text
}

fn headline(snapshot: &Snapshot) -> String {
    let campaign = &snapshot.campaign;
    let count = |is: fn(&Candidate) -> bool| snapshot.candidates.iter().filter(|c| is(c)).count();
    let done = count(|c| c.row.state == CandidateState::Done);
    let failed = count(|c| matches!(c.row.state, CandidateState::Failed { .. }));
    let dropped = count(|c| matches!(c.row.state, CandidateState::Infeasible { .. }));
    let front = count(|c| c.rank == Some(0));
    let state = crate::commands::list::state_word(campaign.state);
    let mut parts = vec![format!("{done} of {} done", campaign.evaluations)];
    if failed > 0 {
        parts.push(format!("{failed} failed"));
    }
    if dropped > 0 {
        parts.push(format!("{dropped} outside the limits"));
    }
    let best = snapshot.candidates.iter().find(|c| c.rank == Some(0));
    let seed = campaign.seed;
    parts.push(match (campaign.objectives.as_slice(), best) {
        ([objective], Some(best)) => {
            let title = quantity::title(objective.name());
            let (value, number) = (named(best, objective.name()), best.row.number);
            format!("best {title} {value} by candidate {number}; seed {seed}")
        }
        ([_], None) => format!("seed {seed}"),
        _ => format!("{front} on the front; seed {seed}"),
    });
    if campaign.active_seconds > 0.0 {
        let time = quantity::duration(campaign.active_seconds);
        let per_minute = 60.0 * done as f64 / campaign.active_seconds;
        parts.push(format!("{time} of work, {per_minute:.1} candidates a minute"));
    }
    format!("campaign {}, {state}: {}\n", campaign.name, parts.join(", "))
}

/// A table of candidates, the cheapest first, those without a cost last; with one objective the best first.
fn candidates(campaign: &Campaign, mut list: Vec<&Candidate>) -> String {
    let (cost, quality) = plot::axes(&campaign.objectives);
    let order = |c: &Candidate| match &cost {
        Some(cost) => (0, cost.minimised(&c.row.values).unwrap_or(f64::INFINITY)),
        // What was trained for less has no place among the others.
        None => {
            (u32::from(c.rank.is_none()), quality.minimised(&c.row.values).unwrap_or(f64::INFINITY))
        }
    };
    list.sort_by(|a, b| {
        let ((a0, a1), (b0, b1)) = (order(a), order(b));
        a0.cmp(&b0).then(a1.total_cmp(&b1)).then(a.row.number.cmp(&b.row.number))
    });
    let mut values: Vec<&str> = campaign.objectives.iter().map(Objective::name).collect();
    let mut titles: Vec<String> =
        campaign.objectives.iter().map(quantity::objective_title).collect();
    let is_of_stacks = !campaign.is_black_box();
    for metric in [Metric::DecodeUs, Metric::PrefillUs, Metric::Parameters] {
        if is_of_stacks && !values.contains(&metric.name()) {
            values.push(metric.name());
            titles.push(metric.facts().title.to_owned());
        }
    }
    for name in campaign.values_of_targets(&list.iter().copied()) {
        if !values.contains(&name) {
            values.push(name);
            titles.push(quantity::title(name).into_owned());
        }
    }
    let is_foretold = |name: &str| list.iter().any(|c| c.foretold.contains_key(name));
    let mut heading = vec!["#".to_owned(), String::new()];
    let mut align = "rl".to_owned();
    for (name, title) in values.iter().zip(titles) {
        heading.push(title);
        align.push('r');
        if is_foretold(name) {
            heading.push(format!("at {}", quantity::scaled(campaign.target_tokens as f64)));
            align.push('r');
        }
        if is_latency(name) {
            heading.push("whole".to_owned());
            align.push('r');
        }
    }
    heading.push(if is_of_stacks { "stack" } else { "parameters" }.to_owned());
    let mut rows = vec![heading];
    for candidate in &list {
        let mut row = vec![candidate.row.number.to_string(), mark(candidate)];
        for name in &values {
            row.push(named(candidate, name));
            if is_foretold(name) {
                let value = candidate.foretold.get(*name);
                row.push(value.map_or_else(|| "–".to_owned(), |v| quantity::named(name, *v)));
            }
            if is_latency(name) {
                row.push(whole(candidate, name).unwrap_or_else(|| "–".to_owned()));
            }
        }
        row.push(what(candidate));
        rows.push(row);
    }
    let mut text = words::table(&align, &rows);
    if std::io::stdout().is_terminal() {
        let width = usize::from(width());
        let lines: Vec<String> =
            text.lines().map(|line| quantity::shortened(line, width)).collect();
        text = lines.join("\n") + "\n";
    }
    if !is_of_stacks {
        text.push_str(best_mark(campaign));
        text.push_str(". ± is one standard error.");
        text.push_str(more_is_better(campaign));
        text.push('\n');
        return text;
    }
    text.push_str(best_mark(campaign));
    text.push_str(
        ", ◆: reference stack. ± is one standard error. Latencies are of the model timed as one \
         where that was done\n(`whole`), else sums of timed parts, corrected by what the whole models tell of sums, with the error of that.",
    );
    text.push_str(more_is_better(campaign));
    if values.iter().any(|name| is_foretold(name)) {
        let target = quantity::scaled(campaign.target_tokens as f64);
        text.push_str("\nat ");
        text.push_str(&target);
        text.push_str(
            ": foretold for so many tokens from rungs and kin, with the error of text, seed, rate and prediction; the \
             front is of these.",
        );
    }
    let disturbed = list.iter().any(|c| {
        c.row.whole.values().any(Timing::is_disturbed)
            || values.iter().any(|name| c.disturbed.contains(*name))
    });
    if disturbed {
        text.push_str(
            "\n~: other processes loaded the machine while this, or a part of it, was timed; a new campaign times \
             it anew.",
        );
    }
    let fidelities: Vec<u64> = list
        .iter()
        .filter(|c| c.rank.is_some())
        .map(|c| c.row.fidelity)
        .filter(|&t| t > 0)
        .collect();
    if let Some(tokens) = fidelities.iter().max().filter(|_| campaign.tokens > 0) {
        let tokens = quantity::scaled(*tokens as f64);
        text.extend(["\nTrained values are after ", &tokens, " tokens"]);
        let seeds = |c: &&&Candidate| {
            c.row.trained.iter().filter(|t| t.tokens == c.row.fidelity).count() > 1
        };
        match list.iter().filter(seeds).count() {
            0 => text.push_str(", from one seed."),
            n => text.extend([
                ", from one seed; of ",
                &words::count(n, "candidate"),
                " they are means over several, ± their standard error.",
            ]),
        }
    }
    text.push('\n');
    text
}

/// What the dot before a candidate means.
fn best_mark(campaign: &Campaign) -> &'static str {
    if campaign.objectives.len() == 1 { "●: the best" } else { "●: on the front" }
}

/// What the arrows in headings mean, where there are any.
pub(crate) fn more_is_better(campaign: &Campaign) -> &'static str {
    if campaign.objectives.iter().any(Objective::is_maximised) {
        " ↑: more is better."
    } else {
        ""
    }
}

pub(crate) fn is_latency(name: &str) -> bool {
    Metric::of(name).is_some_and(|(metric, _)| metric.is_latency())
}

/// A value of a candidate, with `~` when its timing was disturbed, or that of one of the parts that it is the sum of.
pub(crate) fn named(candidate: &Candidate, name: &str) -> String {
    let Some(value) = candidate.row.values.get(name) else { return "–".to_owned() };
    let is_disturbed = match candidate.whole(name) {
        Some(whole) => whole.is_disturbed(),
        None => candidate.disturbed.contains(name),
    };
    let disturbed = if is_disturbed { " ~" } else { "" };
    format!("{}{disturbed}", quantity::named(name, *value))
}

/// What its whole model took, with what another timing minutes later may differ by; none where that was not timed.
pub(crate) fn whole(candidate: &Candidate, name: &str) -> Option<String> {
    let timing = candidate.whole(name)?;
    let value = candidate.whole_us(name)?;
    Some(quantity::measured(value) + disturbed(timing))
}

fn disturbed(timing: &Timing) -> &'static str {
    if timing.is_disturbed() { " ~" } else { "" }
}

/// A measured time: `95.1 ±0.8`, with `~` when it was disturbed.
pub(crate) fn timing(timing: &Timing) -> String {
    let value = search::wire::Value {
        mean: timing.median_us,
        standard_error: (timing.spread_us > 0.0).then_some(timing.spread_us),
    };
    quantity::measured(value) + disturbed(timing)
}

fn mark(candidate: &Candidate) -> String {
    match (candidate.rank, &candidate.row.reference) {
        (Some(0), Some(_)) => "●◆",
        (Some(0), None) => "●",
        (_, Some(_)) => " ◆",
        _ => "",
    }
    .to_owned()
}

/// The stack in the room that a line leaves, or why there is nothing else to say of it.
fn what(candidate: &Candidate) -> String {
    let stack = quantity::shortened(&candidate.row.subject.words(), 72);
    let stack = match &candidate.row.reference {
        Some(name) => format!("{name}: {stack}"),
        None => stack,
    };
    match &candidate.row.state {
        CandidateState::Done if candidate.rank.is_none() && candidate.row.fidelity > 1 => {
            format!(
                "(stopped at {} tokens) {stack}",
                quantity::scaled(candidate.row.fidelity as f64)
            )
        }
        CandidateState::Done => stack,
        CandidateState::Proposed => format!("(waits for its latency) {stack}"),
        CandidateState::Training => format!("(in training) {stack}"),
        CandidateState::Infeasible { reason } => format!("(dropped: {reason}) {stack}"),
        CandidateState::Failed { reason, .. } => format!("(failed: {reason}) {stack}"),
    }
}
