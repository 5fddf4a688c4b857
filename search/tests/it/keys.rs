//! The guide's page of every key of the campaign file: it is made from the types, and out of date when it is not what they say.

use std::fmt::Write;
use std::path::Path;

use search::config::{TEMPLATE, json_schema};
use serde_json::{Map, Value};

const INTRODUCTION: &str = "\
<!-- Written from the types of the program: UPDATE_FROZEN=1 cargo test -p search keys -->
# Every key of the campaign file
A campaign file is TOML. `deltafront init` writes one in which all of these stand with a word on each; a key that is left out stands at
its default. `deltafront schema` prints the JSON Schema for an editor. Most keys cannot change once a campaign has results: those of
`[search]` that only say how far to go, `[trust]`, `[storage]`, `[notify]` and the limits of `[evaluator]` can.

";

/// The schema of the campaign file, as a page.
struct Page {
    definitions: Map<String, Value>,
    text: String,
}

impl Page {
    fn of(schema: &Value) -> String {
        let definitions = schema["$defs"].as_object().expect("definitions").clone();
        let mut page = Self { definitions, text: INTRODUCTION.to_owned() };
        let keys = in_order(schema, "");
        let (sections, bare): (Vec<_>, Vec<_>) =
            keys.into_iter().partition(|(_, value)| page.section(value).is_some());
        page.table(&bare, schema);
        for (name, value) in sections {
            let (definition, is_list) = page.section(value).expect("a section");
            page.heading(2, &name, is_list, &definition);
            let keys = in_order(&definition, &name);
            let (below, own): (Vec<_>, Vec<_>) =
                keys.into_iter().partition(|(_, value)| page.section(value).is_some());
            page.table(&own, &definition);
            for (key, value) in below {
                let (definition, is_list) = page.section(value).expect("a section");
                let is_by_name = value.get("additionalProperties").is_some();
                let name = format!("{name}.{key}{}", if is_by_name { ".NAME" } else { "" });
                page.heading(3, &name, is_list, &definition);
                if key == "mixers" {
                    page.mixers(&definition);
                } else {
                    page.table(&in_order(&definition, &name), &definition);
                }
            }
        }
        page.text
    }

    /// What a `$ref` leads to.
    fn referred(&self, value: &Value) -> Option<&Value> {
        let name = value["$ref"].as_str()?.rsplit('/').next()?;
        self.definitions.get(name)
    }

    /// The table of keys that a value is, and whether there is a list of such tables.
    fn section(&self, value: &Value) -> Option<(Value, bool)> {
        let (one, is_list) = match value.get("items") {
            Some(items) => (items, true),
            // Of tables by name each is one.
            None => (value.get("additionalProperties").unwrap_or(present(value)), false),
        };
        let definition = self.referred(one)?;
        let is_range = definition["properties"].get("min").is_some();
        let is_table = definition.get("properties").is_some() && !is_range;
        is_table.then(|| (definition.clone(), is_list))
    }

    fn heading(&mut self, level: usize, name: &str, is_list: bool, definition: &Value) {
        let (open, close) = if is_list { ("[[", "]]") } else { ("[", "]") };
        let marks = "#".repeat(level);
        let about = paragraphs(definition["description"].as_str().unwrap_or_default());
        // The docs of a type begin with the section's name.
        let about = about.split_once("`: ").map_or(about.as_str(), |(_, rest)| rest);
        let about = capitalised(about);
        writeln!(self.text, "{marks} `{open}{name}{close}`\n{about}\n").expect("a string");
    }

    fn mixers(&mut self, definition: &Value) {
        let properties = definition["properties"].as_object().expect("mixers").clone();
        // Those of one shape stand together.
        let mut shapes: Vec<(String, Vec<(String, Value)>)> = Vec::new();
        for (name, value) in properties {
            let shape = present(&value)["$ref"].as_str().unwrap_or(&name).to_owned();
            match shapes.iter_mut().find(|(known, _)| *known == shape) {
                Some((_, members)) => members.push((name, value)),
                None => shapes.push((shape, vec![(name, value)])),
            }
        }
        let place = |name: &str| TEMPLATE.find(&format!("[space.mixers.{name}]"));
        shapes.sort_by_key(|(_, members)| {
            members.iter().filter_map(|(name, _)| place(name)).min().unwrap_or(usize::MAX)
        });
        for (_, members) in shapes {
            let heads: Vec<String> = members
                .iter()
                .map(|(name, value)| {
                    let about = value["description"].as_str().expect("a mixer has a name");
                    format!("`{name}`: {}", about.trim_end_matches('.'))
                })
                .collect();
            writeln!(self.text, "#### {}\n", heads.join("; ")).expect("a string");
            let definition = self.referred(present(&members[0].1)).cloned();
            if let Some(definition) = definition {
                self.table(&in_order(&definition, ""), &definition);
            }
        }
    }

    fn table(&mut self, keys: &[(String, &Value)], of: &Value) {
        let needed = of["required"].as_array().cloned().unwrap_or_default();
        self.text.push_str("| key | is | default | meaning |\n|---|---|---|---|\n");
        for (key, value) in keys {
            let default = match value.get("default") {
                _ if needed.iter().any(|name| name == key) => "needed".to_owned(),
                None | Some(Value::Null) => "–".to_owned(),
                Some(default) => format!("`{}`", toml(default)),
            };
            let about = value["description"].as_str().unwrap_or_default();
            let choices = self.choices(value);
            let is_list = present(value).get("items").is_some();
            let kind = match (choices.is_empty(), is_list) {
                (true, _) => self.kind(value),
                (false, false) => "one of these".to_owned(),
                (false, true) => "list of these".to_owned(),
            };
            let cells = [format!("`{key}`"), kind, default, paragraphs(about) + &choices];
            let cells = cells.map(|cell| cell.replace('|', "\\|"));
            writeln!(self.text, "| {} |", cells.join(" | ")).expect("a string");
        }
        self.text.push('\n');
    }

    /// What a value is, in words.
    fn kind(&self, value: &Value) -> String {
        let value = present(value);
        if let Some(of) = value.get("items") {
            return match of.get("enum").and_then(Value::as_array) {
                Some(words) => format!("list of {}", listed(words)),
                None => match self.kind(of).as_str() {
                    "`true` or `false`" => "list of `true`, `false`".to_owned(),
                    several if several.contains(" or ") => format!("list: {several}"),
                    one => format!("list of {one}s"),
                },
            };
        }
        if let Some(of) = value.get("additionalProperties").filter(|of| of.is_object()) {
            return format!("table, name to {}", self.kind(of));
        }
        if let Some(definition) = self.referred(value) {
            if definition["properties"].get("min").is_some() {
                return "`{ min = …, max = … }`".to_owned();
            }
            return self.kind(definition);
        }
        if let Some(constant) = value.get("const") {
            return format!("`{constant}`");
        }
        if let Some(several) = ["oneOf", "anyOf"].iter().find_map(|key| value[key].as_array()) {
            let kinds: Vec<String> = several.iter().map(|one| self.kind(one)).collect();
            let mut different: Vec<String> = Vec::new();
            for kind in kinds {
                if !different.contains(&kind) {
                    different.push(kind);
                }
            }
            return different.join(" or ");
        }
        let word = match &value["type"] {
            Value::Array(types) => types.iter().find(|of| *of != "null").and_then(Value::as_str),
            of => of.as_str(),
        };
        match word {
            Some("integer") => "whole number".to_owned(),
            Some("number") => "number".to_owned(),
            Some("boolean") => "`true` or `false`".to_owned(),
            Some("string") => "text".to_owned(),
            other => panic!("what is {other:?}? {value}"),
        }
    }

    /// What each word means that a value may be.
    fn choices(&self, value: &Value) -> String {
        let value = present(value);
        let one = value.get("items").unwrap_or(value);
        let Some(words) = self.referred(one).and_then(|of| of["oneOf"].as_array()) else {
            return String::new();
        };
        let meanings = words.iter().map(|word| {
            let about = word["description"].as_str().unwrap_or_default();
            format!("<br>`{}`: {}", word["const"], paragraphs(about))
        });
        meanings.collect()
    }
}

/// What an optional value is when it is there.
fn present(value: &Value) -> &Value {
    let several = value["anyOf"].as_array();
    let optional = several.filter(|of| of.iter().any(|one| one["type"] == "null"));
    optional.and_then(|of| of.iter().find(|one| one["type"] != "null")).unwrap_or(value)
}

/// The keys of a table in the order in which the commented campaign file has them, below the head of that table.
fn in_order<'v>(table: &'v Value, name: &str) -> Vec<(String, &'v Value)> {
    let by_name = name.strip_suffix("NAME").unwrap_or(name);
    let head = [
        format!("\n[{name}]"),
        format!("\n[[{name}]]"),
        format!("\n# [[{name}]]"),
        format!("\n# [{by_name}"),
    ];
    let start = head.iter().find_map(|head| TEMPLATE.find(head)).filter(|_| !name.is_empty());
    let below = &TEMPLATE[start.unwrap_or(0)..];
    let place = |key: &str| {
        let forms = ["\nKEY =", "\n# KEY =", "\n[KEY]", "\n[[KEY]]", "\n# [[KEY]]", "\n[NAME.KEY"];
        let forms = forms.map(|form| form.replace("KEY", key).replace("NAME", name));
        forms.iter().filter_map(|form| below.find(form)).min().unwrap_or(usize::MAX)
    };
    let properties = table["properties"].as_object().expect("a table has keys");
    let mut keys: Vec<_> = properties.iter().map(|(key, value)| (key.clone(), value)).collect();
    keys.sort_by_key(|(key, _)| place(key));
    keys
}

/// Lines that belong together in one, paragraphs beside each other.
fn paragraphs(text: &str) -> String {
    text.split("\n\n").map(|of| of.replace('\n', " ")).collect::<Vec<_>>().join(" ")
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

fn listed(words: &[Value]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// A default as it stands in a campaign file.
fn toml(value: &Value) -> String {
    match value {
        Value::Array(list) => format!("[{}]", list.iter().map(toml).collect::<Vec<_>>().join(", ")),
        Value::Object(table) if table.is_empty() => "{}".to_owned(),
        other => other.to_string(),
    }
}

#[test]
fn the_page_of_keys_is_what_the_types_say() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide/keys.md");
    let page = Page::of(&serde_json::to_value(json_schema()).expect("a schema is JSON"));
    if std::env::var_os("UPDATE_FROZEN").is_some() {
        std::fs::write(&file, &page).expect("the guide can be written");
    }
    let published = std::fs::read_to_string(&file).expect("it is in the repository");
    assert!(
        published == page,
        "docs/guide/keys.md is not what the types say: UPDATE_FROZEN=1 writes it anew"
    );
}
