//! Prints the plot and drawings of a made-up campaign: for looking at them.
//!
//! `cargo run -p tui --example screens [WIDTH]`

#[path = "../tests/it/sample.rs"]
#[expect(dead_code, reason = "shared with the tests, which use all of it")]
mod sample;

use std::io::Write as _;

use tui::{drawing, plot};

fn main() -> std::io::Result<()> {
    let width = std::env::args().nth(1).and_then(|width| width.parse().ok()).unwrap_or(100);
    let mut stdout = std::io::stdout().lock();
    let snapshot = sample::running();
    writeln!(stdout, "{}", plot::to_text(&snapshot, width, 24, true))?;
    for number in [7, 3, 20, 28] {
        writeln!(
            stdout,
            "{}",
            drawing::to_text(
                snapshot.candidates[number - 1]
                    .row
                    .subject
                    .stack()
                    .expect("the sample is of stacks"),
                512,
                width.min(70),
                true
            )
        )?;
    }
    writeln!(stdout, "{}", plot::to_text(&sample::extreme(), width, 16, true))
}
