//! What `run` shows while it works, on stderr: bars on a terminal, plain lines elsewhere.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use super::job::Show;
use super::spec::Role;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Workers that have bars: more than that no terminal holds.
const BARS: usize = 24;
/// Between two plain lines about the same training.
const LINE_EVERY: Duration = Duration::from_secs(15);
/// Between two plain lines about how long the campaign goes on.
const LEFT_EVERY: Duration = Duration::from_mins(1);

/// The display.
pub(crate) struct Display {
    form: Form,
    /// By slot.
    workers: BTreeMap<usize, Worker>,
    overall: Overall,
    /// When a plain line last told of something beside training.
    told: Option<Instant>,
    /// When one last told how long it goes on; before that, when this began.
    told_left: Instant,
}

enum Form {
    Bars {
        all: MultiProgress,
        overall: ProgressBar,
        /// Of what is timed, once something is.
        timing: Option<ProgressBar>,
    },
    Lines,
    Nothing,
}

/// What one worker is at.
struct Worker {
    label: String,
    bar: Option<ProgressBar>,
    last_line: Instant,
}

#[derive(Default)]
struct Overall {
    done: u64,
    total: u64,
}

/// Between two drawings of a bar.
const DRAW_EVERY: Duration = Duration::from_millis(250);

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .expect("the templates of this file are valid")
        .progress_chars("━╸─")
}

impl Display {
    /// For so many trainers, or other workers, and evaluations.
    pub(crate) fn new(show: Show, role: Role, trainers: usize, done: u64, total: u64) -> Self {
        let form = if show == Show::Bars {
            let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
            let overall = all.add(ProgressBar::new(total));
            overall
                .set_style(style("{bar:24.green} {pos}/{len} candidates  {elapsed_precise}{msg}"));
            overall.set_position(done);
            overall.enable_steady_tick(DRAW_EVERY);
            Form::Bars { all, overall, timing: None }
        } else if show == Show::Lines {
            Form::Lines
        } else {
            Form::Nothing
        };
        let (workers, overall) = (BTreeMap::new(), Overall { done, total });
        let told_left = Instant::now();
        let mut display = Self { form, workers, overall, told: None, told_left };
        for number in 0..trainers {
            display.join(number, format!("{} {}", role.word(), number + 1));
        }
        display
    }

    /// A worker is there.
    pub(crate) fn join(&mut self, slot: usize, name: String) {
        let with_bars = self.workers.values().filter(|worker| worker.bar.is_some()).count();
        let bar = match &self.form {
            Form::Bars { all, .. } if with_bars < BARS => {
                let bar = all.add(ProgressBar::new(1));
                bar.set_style(style("{bar:24.cyan} {prefix} {msg}"));
                bar.set_prefix(name);
                bar.set_message("idle");
                bar.enable_steady_tick(DRAW_EVERY);
                Some(bar)
            }
            _ => None,
        };
        let worker = Worker { label: String::new(), bar, last_line: Instant::now() };
        self.workers.insert(slot, worker);
    }

    /// A worker is gone for good.
    pub(crate) fn leave(&mut self, slot: usize) {
        let bar = self.workers.remove(&slot).and_then(|worker| worker.bar);
        if let (Form::Bars { all, .. }, Some(bar)) = (&self.form, bar) {
            bar.finish_and_clear();
            all.remove(&bar);
        }
    }

    /// A line that stays.
    pub(crate) fn line(&self, text: &str) {
        match &self.form {
            Form::Bars { all, .. } => {
                let _ = all.println(text);
            }
            Form::Lines => say(text),
            Form::Nothing => {}
        }
    }

    /// How many candidates are done, of how many.
    pub(crate) fn place_is(&mut self, done: u64, total: u64) {
        self.overall = Overall { done, total };
        if let Form::Bars { overall, .. } = &self.form {
            overall.set_length(total);
            overall.set_position(done);
        }
    }

    /// How long it goes on, where that is known, and a word on the front.
    pub(crate) fn overall(&mut self, left: Option<&str>, front: &str) {
        match &self.form {
            Form::Bars { overall, .. } => {
                let left = left.map_or(String::new(), |left| format!(", {left}"));
                overall.set_message(format!("{left}  {front}"));
            }
            Form::Lines if self.told_left.elapsed() >= LEFT_EVERY => {
                if let Some(left) = left {
                    self.told_left = Instant::now();
                    let front = if front.is_empty() { String::new() } else { format!("; {front}") };
                    say(&format!("{} {left}{front}", self.place()));
                }
            }
            Form::Lines | Form::Nothing => {}
        }
    }

    /// The place in the campaign, as a prefix of lines.
    pub(crate) fn place(&self) -> String {
        let Overall { done, total } = self.overall;
        let width = total.to_string().len();
        format!("[{done:width$}/{total}]")
    }

    /// What is done beside training.
    pub(crate) fn doing(&mut self, what: &str) {
        match &mut self.form {
            Form::Bars { all, timing, .. } => {
                let bar = timing.get_or_insert_with(|| {
                    let bar = all.insert(1, ProgressBar::new(1));
                    bar.set_style(style("{spinner:.cyan} {msg}"));
                    bar.enable_steady_tick(DRAW_EVERY);
                    bar
                });
                bar.set_message(what.to_owned());
            }
            _ if self.told.is_none_or(|told| told.elapsed() >= LINE_EVERY) => {
                self.told = Some(Instant::now());
                self.line(&format!("{} {what}", self.place()));
            }
            _ => {}
        }
    }

    /// Nothing is timed any more.
    pub(crate) fn timed(&mut self) {
        if let Form::Bars { all, timing, .. } = &mut self.form
            && let Some(bar) = timing.take()
        {
            bar.finish_and_clear();
            all.remove(&bar);
        }
    }

    /// A training begins.
    pub(crate) fn begin(&mut self, slot: usize, label: String) {
        if let Some(row) = self.workers.get_mut(&slot) {
            if let Some(bar) = &row.bar {
                bar.set_length(1);
                bar.set_position(0);
                bar.set_message(label.clone());
            }
            row.label = label;
            row.last_line = Instant::now();
        }
    }

    /// A training goes on.
    pub(crate) fn progress(&mut self, slot: usize, progress: &search::wire::Progress) {
        let place = self.place();
        let Some(row) = self.workers.get_mut(&slot) else { return };
        let speed = progress.tokens_per_second;
        let message = format!("{}  loss {:.3}, {speed:.0} tokens/s", row.label, progress.loss);
        match &row.bar {
            Some(bar) => {
                bar.set_length(progress.tokens_total.max(1));
                bar.set_position(progress.tokens);
                bar.set_message(message);
            }
            None if matches!(self.form, Form::Lines) && row.last_line.elapsed() >= LINE_EVERY => {
                row.last_line = Instant::now();
                let percent = 100 * progress.tokens / progress.tokens_total.max(1);
                say(&format!("{place} {message} ({percent} %)"));
            }
            None => {}
        }
    }

    /// A training is over.
    pub(crate) fn end(&mut self, slot: usize) {
        if let Some(bar) = self.workers.get_mut(&slot).and_then(|row| row.bar.as_ref()) {
            bar.set_length(1);
            bar.set_position(0);
            bar.set_message("idle");
        }
    }

    /// Takes the bars away; what was said stays.
    pub(crate) fn close(&self) {
        if let Form::Bars { all, .. } = &self.form {
            let _ = all.clear();
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.close();
    }
}

/// A line on stderr.
pub(crate) fn say(text: &str) {
    // A reader that has gone away does not stop a campaign.
    let _ = writeln!(std::io::stderr(), "{text}");
}
