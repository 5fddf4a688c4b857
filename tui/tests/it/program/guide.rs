//! Commands of the guide that want no GPU, no cluster and no other software are run, page by page, with workers that only pretend:
//! the blocks that begin with "```sh run". That all others can be given is a test beside the command line.

use std::path::Path;
use std::process::Command;

use super::harness::World;

/// The lines of the blocks to run, as one script.
fn script(page: &str) -> String {
    let mut lines = Vec::new();
    let mut is_run = false;
    for line in page.lines() {
        if line.starts_with("```") {
            is_run = line == "```sh run";
        } else if is_run {
            lines.push(line);
        }
    }
    lines.join("\n")
}

/// Runs a script in a home of its own with some texts.
fn run(page: &str, script: &str) -> Result<(), String> {
    let world = World::new(&format!("guide-{page}"));
    let texts = world.folder.join("texts");
    std::fs::create_dir(&texts).expect("a folder");
    std::fs::write(texts.join("one.txt"), "some text to train on, ".repeat(10_000))
        .expect("a file");
    let program = Path::new(env!("CARGO_BIN_EXE_deltafront"));
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", program.parent().expect("it lies in a folder").display());
    let mut command = Command::new("sh");
    command.args(["-eux", "-c", script]).env("PATH", path).env("HOME", &world.folder);
    world.surround(&mut command);
    let output = command.output().expect("there is a shell");
    if output.status.success() {
        return Ok(());
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Err(format!("{page}: {}\n{}{}", output.status, text(&output.stdout), text(&output.stderr)))
}

#[test]
fn commands_of_the_guide_do_what_they_are_shown_for() {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide");
    let entries = std::fs::read_dir(guide).expect("the guide is there");
    let pages: Vec<(String, String)> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter_map(|file| {
            let page = std::fs::read_to_string(&file).expect("a page can be read");
            let name = file.file_stem()?.to_str()?.to_owned();
            Some((name, script(&page))).filter(|(_, script)| !script.is_empty())
        })
        .collect();
    assert!(pages.len() >= 5, "{pages:?}");
    let troubles: Vec<String> = std::thread::scope(|scope| {
        let runs: Vec<_> =
            pages.iter().map(|(page, script)| scope.spawn(move || run(page, script))).collect();
        runs.into_iter().filter_map(|run| run.join().expect("it ends").err()).collect()
    });
    assert!(troubles.is_empty(), "{}", troubles.join("\n"));
}
