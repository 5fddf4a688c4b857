//! The guide against the command line: its page of all commands is made from it, and every command that it shows can be given.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::{Arg, Command, CommandFactory, Parser};

use super::Cli;

const INTRODUCTION: &str = "\
<!-- Written from the program: UPDATE_FROZEN=1 cargo test -p tui commands -->
# Every command
`deltafront help COMMAND` says the same in a terminal.

";

/// The folders and files that show commands, from the root of the repository.
const PAGES: [&str; 4] = ["README.md", "docs", "docs/guide", "docs/studies"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn page() -> String {
    let mut program = Cli::command();
    program.build();
    let mut text = INTRODUCTION.to_owned();
    text.push_str("| command | |\n|---|---|\n");
    for command in shown(&program) {
        let (name, about) = (command.get_name(), command.get_about().expect("each has a line"));
        writeln!(text, "| [`{name}`](#deltafront-{name}) | {about} |").expect("a string");
    }
    text.push_str("\nOf every command:\n\n");
    arguments(&mut text, program.get_arguments());
    for command in shown(&program) {
        section(&mut text, 2, &format!("deltafront {}", command.get_name()), command);
    }
    text
}

fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|of| !of.is_hide_set() && of.get_name() != "help")
}

fn section(text: &mut String, level: usize, name: &str, command: &Command) {
    let about = command.get_long_about().or(command.get_about()).expect("each has a line");
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ");
    writeln!(text, "\n{} `{name}`\n{about}\n```text\n{usage}\n```", "#".repeat(level))
        .expect("a string");
    arguments(text, command.get_arguments().filter(|argument| !argument.is_global_set()));
    if let Some(more) = command.get_after_long_help().or(command.get_after_help()) {
        writeln!(text, "```text\n{}\n```", more.to_string().trim_end()).expect("a string");
    }
    for below in shown(command) {
        section(text, level + 1, &format!("{name} {}", below.get_name()), below);
    }
}

fn arguments<'a>(text: &mut String, all: impl Iterator<Item = &'a Arg>) {
    let own = |argument: &&Arg| {
        !argument.is_hide_set() && !["help", "version"].contains(&argument.get_id().as_str())
    };
    let rows: Vec<String> = all.filter(own).map(row).collect();
    if !rows.is_empty() {
        text.push_str("| argument | meaning |\n|---|---|\n");
        text.push_str(&rows.concat());
    }
}

fn row(argument: &Arg) -> String {
    let help = argument.get_long_help().or(argument.get_help());
    let help = help.unwrap_or_else(|| panic!("nothing explains {argument}"));
    let mut meaning = vec![help.to_string().replace('\n', " ")];
    let takes_value = argument.get_action().takes_values();
    let values = argument.get_possible_values();
    if takes_value && !values.is_empty() {
        let each = values.iter().map(|value| {
            let about = value.get_help().map_or(String::new(), |help| format!(": {help}"));
            format!("<br>`{}`{about}", value.get_name())
        });
        meaning.push(each.collect());
    }
    let defaults = argument.get_default_values();
    if takes_value && !defaults.is_empty() {
        let defaults: Vec<_> = defaults.iter().map(|value| value.to_string_lossy()).collect();
        meaning.push(format!("<br>Default `{}`.", defaults.join(" ")));
    }
    if let Some(variable) = argument.get_env() {
        meaning.push(format!("<br>Or by `{}`.", variable.to_string_lossy()));
    }
    let meaning = meaning.join("").replace('|', "\\|");
    format!("| `{}` | {meaning} |\n", argument.to_string().replace('|', "\\|"))
}

#[test]
fn the_page_of_commands_is_what_the_program_says() {
    let file = root().join("docs/guide/commands.md");
    let page = page();
    if std::env::var_os("UPDATE_FROZEN").is_some() {
        std::fs::write(&file, &page).expect("the guide can be written");
    }
    let published = std::fs::read_to_string(&file).expect("it is in the repository");
    assert!(
        published == page,
        "docs/guide/commands.md is not what the program says: UPDATE_FROZEN=1 writes it anew"
    );
}

/// Blocks of shell in a page, lines that go on in the next joined.
fn shell_lines(page: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let (mut is_shell, mut goes_on) = (false, false);
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            let word = line.trim_start().trim_start_matches('`').split_whitespace().next();
            is_shell = !is_shell && word == Some("sh");
        } else if is_shell {
            let part = line.trim_end_matches('\\');
            match lines.last_mut().filter(|_| goes_on) {
                Some(last) => last.push_str(part),
                None => lines.push(part.to_owned()),
            }
            goes_on = line.ends_with('\\');
        }
    }
    lines
}

/// The commands of this program in a line of shell, each as its words.
fn commands_in(line: &str) -> Vec<Vec<String>> {
    let words = shlex::split(line).unwrap_or_else(|| panic!("open quotes: {line}"));
    // A command in quotes, as for ssh, is one word of the line.
    let nested = words.iter().filter(|word| word.contains(" deltafront "));
    let mut found: Vec<Vec<String>> = nested.flat_map(|word| commands_in(word)).collect();
    let ends = |word: &String| {
        ["&&", "||", "|", ";", "&", ">", "2>&1"].contains(&word.as_str()) || word.starts_with('>')
    };
    for command in words.split(ends) {
        let is_program = |word: &String| word == "deltafront" || word.ends_with("/deltafront");
        if let Some(at) = command.iter().position(is_program) {
            let token = format!("{}.{}", "0".repeat(32), "0".repeat(64));
            let filled = |word: &String| if word == "TOKEN" { token.clone() } else { word.clone() };
            found.push(command[at..].iter().map(filled).collect());
        }
    }
    found
}

/// The pages that show commands, each with its text.
fn pages() -> Vec<(PathBuf, String)> {
    let mut pages = Vec::new();
    for place in PAGES.map(|page| root().join(page)) {
        let files: Vec<PathBuf> = match std::fs::read_dir(&place) {
            Ok(entries) => entries.map(|entry| entry.expect("an entry").path()).collect(),
            Err(_) => vec![place],
        };
        for file in files.into_iter().filter(|file| file.extension().is_some_and(|of| of == "md")) {
            let page = std::fs::read_to_string(&file).expect("a page can be read");
            pages.push((file, page));
        }
    }
    pages
}

#[test]
fn every_command_of_the_guide_can_be_given() {
    let mut count = 0;
    for (file, page) in pages() {
        for command in shell_lines(&page).iter().flat_map(|line| commands_in(line)) {
            let parsed = Cli::try_parse_from(&command);
            // `deltafront help COMMAND` ends in help, which is what it is for.
            if let Err(error) = parsed.map(drop).or_else(helped) {
                panic!("{}: {}\n{error}", file.display(), command.join(" "));
            }
            count += 1;
        }
    }
    assert!(count > 40, "{count} commands were found");
}

fn helped(error: clap::Error) -> Result<(), clap::Error> {
    match error.kind() {
        clap::error::ErrorKind::DisplayHelp | clap::error::ErrorKind::DisplayVersion => Ok(()),
        _ => Err(error),
    }
}

/// As a page is referred to by its headings.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || "-_ ".contains(*c);
    heading.trim().to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")
}

#[test]
fn links_lead_somewhere() {
    let mut count = 0;
    for (file, page) in pages() {
        for link in page.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            if path.starts_with("http") || link.contains(char::is_whitespace) {
                continue;
            }
            let folder = file.parent().expect("a page lies in a folder");
            let target = if path.is_empty() { file.clone() } else { folder.join(path) };
            assert!(target.exists(), "{}: {link} leads nowhere", file.display());
            if !heading.is_empty() {
                let there = std::fs::read_to_string(&target).expect("a page can be read");
                let mut headings = there.lines().filter(|line| line.starts_with('#'));
                let is_it = |line: &str| anchor(line.trim_start_matches('#')) == heading;
                assert!(headings.any(is_it), "{}: no heading for {link}", file.display());
            }
            count += 1;
        }
    }
    assert!(count > 40, "{count} links were found");
}
