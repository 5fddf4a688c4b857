//! No file imports in a circle: a file that another one imports must not import it, nor reach it through others.
//!
//! What counts is who names items of whom. `use` and paths in code count, a child's use of its parent's items among them;
//! comments, strings and unit tests do not. `mod child;` is no import, and neither is the parent's `pub use` of what its
//! children have: whoever imports that name imports the file in which it is defined.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The crates of the workspace.
const CRATES: [&str; 7] = ["search", "kernels", "operators", "evaluator", "profiles", "db", "tui"];

/// Circles that are still there, each by its files in order. An entry must go when its circle does.
const KNOWN: [&str; 7] = [
    "evaluator: tasks, tasks::mqar, tasks::noisy_recall, tasks::parity, tasks::permutations, tasks::selective_copying",
    "kernels: cpu, cpu::portable, cpu::simd, cpu::x86",
    "kernels: cuda, cuda::chunked, cuda::chunked::shape, cuda::compiler, cuda::product",
    "kernels: delta_rule::train, delta_rule::train::chunk",
    "kernels: linear_attention::train, linear_attention::train::chunk, linear_attention::train::rule",
    "operators: gpu::norm, ops::norm, ops::norm::kernel",
    "profiles: cuda, cuda::passes",
];

/// A file as a module: its crate, and its path in the crate; the root has an empty one.
type Module = (&'static str, Vec<String>);

/// What a file says about others.
#[derive(Debug, Default)]
struct File {
    /// `mod child;`
    children: BTreeSet<String>,
    /// Each `use`: the path, the name that it gives, and whether others see that name.
    uses: Vec<(Vec<String>, String, bool)>,
    /// Paths in code.
    paths: Vec<Vec<String>>,
}

/// Code without comments, strings, characters and unit tests.
fn bare(text: &str) -> String {
    let text: Vec<char> = text.chars().collect();
    let mut bare = String::new();
    let mut at = 0;
    let starts =
        |at: usize, word: &str| word.chars().enumerate().all(|(i, c)| text.get(at + i) == Some(&c));
    while at < text.len() {
        let is_word = bare.chars().last().is_some_and(|c| c.is_alphanumeric() || c == '_');
        if starts(at, "//") {
            while at < text.len() && text[at] != '\n' {
                at += 1;
            }
        } else if starts(at, "/*") {
            while at < text.len() && !starts(at, "*/") {
                at += 1;
            }
            at += 2;
        } else if !is_word && (starts(at, "r\"") || starts(at, "r#") || starts(at, "br")) {
            let hashes = text[at..].iter().skip_while(|c| "br".contains(**c));
            let hashes = hashes.take_while(|c| **c == '#').count();
            let open = at + text[at..].iter().take_while(|c| "br#".contains(**c)).count();
            if text.get(open) != Some(&'"') {
                bare.push(text[at]);
                at += 1;
                continue;
            }
            let end: String = std::iter::once('"').chain((0..hashes).map(|_| '#')).collect();
            at = open + 1;
            while at < text.len() && !starts(at, &end) {
                at += 1;
            }
            at += end.len();
            bare.push(' ');
        } else if text[at] == '"' {
            at += 1;
            while at < text.len() && text[at] != '"' {
                at += if text[at] == '\\' { 2 } else { 1 };
            }
            at += 1;
            bare.push(' ');
        } else if text[at] == '\'' && text.get(at + 1) == Some(&'\\') {
            at += 3;
            while at < text.len() && text[at] != '\'' {
                at += 1;
            }
            at += 1;
        } else if text[at] == '\'' && text.get(at + 2) == Some(&'\'') {
            at += 3;
        } else {
            bare.push(text[at]);
            at += 1;
        }
    }
    while let Some(start) = bare.find("#[cfg(test)]\nmod ") {
        let (_, end) = body(&bare, start);
        bare.replace_range(start..end, "");
    }
    // In a module within the file, `super` is the file.
    let mut from = 0;
    while let Some(start) = bare[from..].find("mod ").map(|at| from + at) {
        let name = bare[start + 4..].trim_start_matches(is_name);
        if name.starts_with(" {") && !bare[..start].ends_with(is_name) {
            let (open, end) = body(&bare, start);
            let inner = bare[open..end].replace("super::super::", "\u{1}");
            let inner = inner.replace("super::", "self::").replace('\u{1}', "super::");
            bare.replace_range(open..end, &inner);
        }
        from = start + 4;
    }
    bare
}

/// Where the braces of an item begin and end.
fn body(text: &str, item: usize) -> (usize, usize) {
    let open = item + text[item..].find(['{', ';']).expect("a module has a body or a file");
    let mut depth = 0;
    let inside = text[open..].chars().take_while(|c| {
        depth += i32::from(*c == '{') - i32::from(*c == '}');
        depth > 0
    });
    (open, open + inside.map(char::len_utf8).sum::<usize>() + 1)
}

/// The parts of a list at its top level.
fn split(list: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut from) = (Vec::new(), 0, 0);
    for (at, c) in list.char_indices() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if c == ',' && depth == 0 {
            parts.push(&list[from..at]);
            from = at + 1;
        }
    }
    parts.push(&list[from..]);
    parts
}

fn segments(path: &str) -> Vec<String> {
    path.split("::").map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned).collect()
}

/// Each name of a `use`, with its path.
fn names(tree: &str, before: &[String], found: &mut Vec<(Vec<String>, String)>) {
    for part in split(tree).into_iter().map(str::trim).filter(|part| !part.is_empty()) {
        if let Some((path, rest)) = part.split_once('{') {
            let before = [before, &segments(path)].concat();
            names(rest.trim_end().trim_end_matches('}'), &before, found);
            continue;
        }
        let (path, alias) = part.split_once(" as ").unwrap_or((part, ""));
        let mut path = [before, &segments(path)].concat();
        if path.last().is_some_and(|last| last == "self") && path.len() > 1 {
            path.pop();
        }
        let last = path.last().cloned().unwrap_or_default();
        let alias = if alias.is_empty() { last } else { alias.trim().to_owned() };
        found.push((path, alias));
    }
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn parse(text: &str) -> File {
    let mut file = File::default();
    // Statements end at semicolons, items begin behind braces too.
    let mut rest = String::new();
    for statement in bare(text).split_inclusive(';') {
        let words = statement.rfind("use ").filter(|at| {
            let before = statement[..*at].trim_end();
            let before = before.rsplit(['}', ']', '{', '\n']).next().unwrap_or("").trim();
            (before.is_empty() || before.starts_with("pub"))
                && !statement[..*at].ends_with(is_name)
                && statement.ends_with(';')
        });
        match words {
            Some(at) => {
                let head = &statement[..at];
                let visibility = head.rsplit(['}', ']', '{', '\n']).next().unwrap_or("").trim();
                let mut found = Vec::new();
                names(statement[at + 4..].trim_end_matches(';'), &[], &mut found);
                let is_public = visibility.starts_with("pub");
                file.uses.extend(found.into_iter().map(|(path, name)| (path, name, is_public)));
                rest.push_str(head);
            }
            None => rest.push_str(statement),
        }
    }
    for (at, _) in rest.match_indices("mod ") {
        let name: String = rest[at + 4..].chars().take_while(|c| is_name(*c)).collect();
        let is_file = rest[at + 4 + name.len()..].starts_with(';');
        if is_file && !rest[..at].ends_with(is_name) {
            file.children.insert(name);
        }
    }
    let mut word = String::new();
    for c in rest.chars().chain([' ']) {
        if is_name(c) || c == ':' {
            word.push(c);
        } else {
            let path = segments(&word);
            if word.contains("::") && !word.starts_with("::") && path.len() > 1 {
                file.paths.push(path);
            }
            word.clear();
        }
    }
    file
}

/// All files of a folder, by their modules.
fn read(krate: &'static str, folder: &Path, module: &[String], files: &mut BTreeMap<Module, File>) {
    for entry in std::fs::read_dir(folder).expect("a folder of sources") {
        let path: PathBuf = entry.expect("an entry").path();
        let name = path.file_stem().and_then(|stem| stem.to_str()).expect("a name").to_owned();
        if path.is_dir() {
            // The programs of `bin` import their crate by its name.
            if !(module.is_empty() && name == "bin") {
                read(krate, &path, &[module, &[name]].concat(), files);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") && name != "main" {
            let text = std::fs::read_to_string(&path).expect("a source file");
            let is_folder = name == "mod" || module.is_empty() && name == "lib";
            let module = if is_folder { module.to_vec() } else { [module, &[name]].concat() };
            files.insert((krate, module), parse(&text));
        }
    }
}

/// The module in which the item at a path is defined, as seen from `from`; none when it is not of this crate.
fn defined(
    files: &BTreeMap<Module, File>,
    (krate, from): &Module,
    path: &[String],
    depth: usize,
) -> Option<Module> {
    let file = &files[&(*krate, from.clone())];
    let mut here = from.clone();
    let mut rest = path;
    match path.first()?.as_str() {
        "crate" => (here, rest) = (Vec::new(), &path[1..]),
        "self" => rest = &path[1..],
        "super" => {
            while rest.first().is_some_and(|word| word == "super") {
                here.pop();
                rest = &rest[1..];
            }
        }
        first if file.children.contains(first) => {}
        first => {
            let of_name = |(path, name, _): &&(Vec<String>, String, bool)| {
                name == first && path.first() != path.last() && depth < 9
            };
            let (before, ..) = file.uses.iter().find(of_name)?;
            let path = [before.as_slice(), &path[1..]].concat();
            return defined(files, &(krate, from.clone()), &path, depth + 1);
        }
    }
    files.get(&(*krate, here.clone()))?;
    while let Some((first, others)) = rest.split_first() {
        let inner = [here.as_slice(), std::slice::from_ref(first)].concat();
        if !files.contains_key(&(*krate, inner.clone())) {
            break;
        }
        (here, rest) = (inner, others);
    }
    // A name that the file only passes on is its who defines it.
    let passes = |(_, name, is_public): &&(Vec<String>, String, bool)| {
        rest.first() == Some(name) && (*is_public || here != *from)
    };
    let passed = files[&(*krate, here.clone())].uses.iter().find(passes);
    let origin = passed
        .filter(|_| depth < 9)
        .and_then(|(path, ..)| defined(files, &(krate, here.clone()), path, depth + 1));
    Some(origin.unwrap_or((krate, here)))
}

/// Who imports whom.
fn graph(files: &BTreeMap<Module, File>) -> BTreeMap<Module, BTreeSet<Module>> {
    let mut graph = BTreeMap::new();
    for (module, file) in files {
        let mut imports = BTreeSet::new();
        for (path, _, is_public) in &file.uses {
            let Some(of) = defined(files, module, path, 0) else { continue };
            let passes_on = *is_public && of.1.starts_with(&module.1);
            if !passes_on {
                imports.insert(of);
            }
        }
        imports.extend(file.paths.iter().filter_map(|path| defined(files, module, path, 0)));
        imports.remove(module);
        graph.insert(module.clone(), imports);
    }
    graph
}

/// Everything that a module reaches by imports.
fn reached(graph: &BTreeMap<Module, BTreeSet<Module>>, from: &Module) -> BTreeSet<Module> {
    let mut reached = BTreeSet::new();
    let mut next: Vec<&Module> = graph[from].iter().collect();
    while let Some(module) = next.pop() {
        if reached.insert(module.clone()) {
            next.extend(&graph[module]);
        }
    }
    reached
}

/// Files that reach each other, each circle as its files with the others of it that they import.
fn circles(graph: &BTreeMap<Module, BTreeSet<Module>>) -> BTreeMap<String, String> {
    let mut circles = BTreeMap::new();
    let reaches: BTreeMap<&Module, BTreeSet<Module>> =
        graph.keys().map(|module| (module, reached(graph, module))).collect();
    for module in graph.keys() {
        let back = |other: &&Module| reaches[*other].contains(module);
        let members: BTreeSet<&Module> = reaches[module].iter().filter(back).collect();
        if members.is_empty() {
            continue;
        }
        let name =
            |(_, path): &Module| if path.is_empty() { "lib".to_owned() } else { path.join("::") };
        let list = |of: Vec<&Module>| of.into_iter().map(name).collect::<Vec<_>>().join(", ");
        let edges = members.iter().map(|member| {
            let inside = graph[*member].iter().filter(|to| members.contains(to)).collect();
            format!("  {} imports {}\n", name(member), list(inside))
        });
        let circle = format!("{}: {}", module.0, list(members.iter().copied().collect()));
        circles.insert(circle, edges.collect());
    }
    circles
}

#[test]
fn no_file_imports_in_a_circle() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let mut files = BTreeMap::new();
    for krate in CRATES {
        read(krate, &root.join(krate).join("src"), &[], &mut files);
    }
    assert!(files.len() > 200, "the sources were not found");
    let circles = circles(&graph(&files));
    let found: BTreeSet<&str> = circles.keys().map(String::as_str).collect();
    let known: BTreeSet<&str> = KNOWN.into();
    let new: Vec<String> = circles
        .iter()
        .filter(|(circle, _)| !known.contains(circle.as_str()))
        .map(|(circle, edges)| format!("{circle}\n{edges}"))
        .collect();
    assert!(new.is_empty(), "files that import in a circle:\n{}", new.join(""));
    let gone: Vec<&&str> = known.difference(&found).collect();
    assert!(gone.is_empty(), "no circle any more, to be taken off the list: {gone:?}");
}

/// A crate of these files.
fn made_up(files: &[(&str, &str)]) -> BTreeMap<String, String> {
    let module = |path: &str| ("search", segments(path));
    let files = files.iter().map(|(path, text)| (module(path), parse(text))).collect();
    circles(&graph(&files))
}

#[test]
fn the_rule_is_what_the_first_lines_say() {
    // A parent passes on what its children have: no circle.
    let passed = [
        ("", "mod a;\npub mod b;\npub use a::One;\n"),
        ("a", "pub struct One;"),
        (
            "b",
            "use crate::One; // use crate::b::Two;\npub struct Two(One);\nconst A: &str = \"crate::b::Two\";",
        ),
    ];
    assert!(made_up(&passed).is_empty());
    // A child that uses what its parent defines, while the parent uses the child.
    let back = [
        ("", "mod a;\n"),
        ("a", "mod inner;\npub struct One;\nfn f() { inner::g(); }"),
        ("a::inner", "use super::One;\npub(super) fn g() -> One { One }"),
    ];
    let found = made_up(&back);
    let (circle, edges) = found.iter().next().expect("a circle");
    assert_eq!(circle, "search: a, a::inner");
    assert!(edges.contains("a imports a::inner"), "{edges}");
    // Through a third file, a renamed import and a nested list.
    let long = [
        ("", "mod a;\nmod b;\nmod c;\n"),
        ("a", "use crate::b::{self as other, Three};\nfn f() -> other::Two { todo!() }"),
        ("b", "use crate::{a, c::{Four}};\npub struct Two;"),
        ("c", "fn f<T: crate::a::Trait>() {}"),
    ];
    assert_eq!(made_up(&long).keys().collect::<Vec<_>>(), ["search: a, b, c"]);
    // A module within a file is of that file.
    let within = [
        ("", "mod a;\nmod b;\n"),
        (
            "a",
            "use crate::b::f;\nmod inner {\n    use super::g;\n    fn h() { g(super::f()) }\n}\nfn g() {}",
        ),
        ("b", "pub fn f() {}"),
    ];
    assert!(made_up(&within).is_empty());
    // What only unit tests need is no import.
    let tests = [
        ("", "mod a;\nmod b;\n"),
        ("a", "use crate::b::f;\nfn g() { f() }"),
        (
            "b",
            "pub fn f() {}\n#[cfg(test)]\nmod tests {\n    use crate::a::g;\n    fn h() { g() }\n}\n",
        ),
    ];
    assert!(made_up(&tests).is_empty());
}
