//! What `run` shows while it works, on stderr: bars on a terminal, plain lines elsewhere.

use std::io::Write;
use std::time::{Duration, Instant};

use super::job::Show;
use super::spec::Role;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Between two plain lines about the same training.
const LINE_EVERY: Duration = Duration::from_secs(15);

/// The display.
pub(crate) struct Display {
    form: Form,
    trainers: Vec<Trainer>,
    overall: Overall,
    /// When a plain line last told of something beside training.
    told: Option<Instant>,
}

enum Form {
    Bars { all: MultiProgress, overall: ProgressBar },
    Lines,
    Nothing,
}

/// What one trainer is at.
struct Trainer {
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
        let mut rows = Vec::new();
        let form = if show == Show::Bars {
            let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
            let overall = all.add(ProgressBar::new(total));
            overall.set_style(style(
                "{bar:24.green} {pos}/{len} candidates  {elapsed_precise}, {eta} left  {msg}",
            ));
            overall.set_position(done);
            overall.reset_eta();
            overall.enable_steady_tick(DRAW_EVERY);
            for number in 1..=trainers {
                let bar = all.add(ProgressBar::new(1));
                bar.set_style(style("{bar:24.cyan} {prefix} {msg}"));
                bar.set_prefix(format!("{} {number}", role.word()));
                bar.set_message("idle");
                bar.enable_steady_tick(DRAW_EVERY);
                rows.push(Some(bar));
            }
            Form::Bars { all, overall }
        } else {
            rows.resize_with(trainers, || None);
            if show == Show::Lines { Form::Lines } else { Form::Nothing }
        };
        let trainers = rows
            .into_iter()
            .map(|bar| Trainer { label: String::new(), bar, last_line: Instant::now() })
            .collect();
        Self { form, trainers, overall: Overall { done, total }, told: None }
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

    /// How many candidates are done, of how many; and a word on the front.
    pub(crate) fn overall(&mut self, done: u64, total: u64, message: &str) {
        self.overall = Overall { done, total };
        if let Form::Bars { overall, .. } = &self.form {
            overall.set_length(total);
            overall.set_position(done);
            overall.set_message(message.to_owned());
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
        match (&self.form, self.trainers.first().and_then(|trainer| trainer.bar.as_ref())) {
            (Form::Bars { .. }, Some(bar)) => {
                bar.set_length(1);
                bar.set_position(0);
                bar.set_message(what.to_owned());
            }
            _ if self.told.is_none_or(|told| told.elapsed() >= LINE_EVERY) => {
                self.told = Some(Instant::now());
                self.line(&format!("{} {what}", self.place()));
            }
            _ => {}
        }
    }

    /// A training begins.
    pub(crate) fn begin(&mut self, trainer: usize, label: String) {
        if let Some(row) = self.trainers.get_mut(trainer) {
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
    pub(crate) fn progress(&mut self, trainer: usize, progress: &search::wire::Progress) {
        let place = self.place();
        let Some(row) = self.trainers.get_mut(trainer) else { return };
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
    pub(crate) fn end(&mut self, trainer: usize) {
        if let Some(bar) = self.trainers.get_mut(trainer).and_then(|row| row.bar.as_ref()) {
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

fn say(text: &str) {
    // A reader that has gone away does not stop a campaign.
    let _ = writeln!(std::io::stderr(), "{text}");
}
