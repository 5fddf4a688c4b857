//! Stacks that leave and come back.

use std::collections::BTreeSet;

use search::Architecture;
use serde_json::Value;

use super::harness::World;

/// One layer of each kind of mixer.
const EVERY: &str = "d=64,vocab=256,meta=2 | dn(h=4,k=16,v=16)+ffn(96) | gdn(h=3,k=16,v=32,vg=2,srope) | \
                     gdp(h=2,k=16,v=16,n=2)+ffn(96) | lgdn(h=2,k=16,v=32,l=15) | m2(h=8,p=16,n=32) | \
                     lm2(h=8,p=16,n=32,l=15) | kda(h=4,k=16,v=16) | gsc(c=48,k=4) | par(h=4,kv=2,k=16,bh=8,bk=16,bv=16) | ffn(96) | \
                     swa(h=4,kv=2,k=16,w=32,qknorm,srope,pgate,pbias,pfull,ptemp=learnt) | attn(h=4,kv=2,k=16)+moe(24,e=4,k=2,s=1)";

/// Types of transformers, each with a stack that it holds.
pub(super) const BUILT_IN: [(&str, &str); 7] = [
    ("llama", "d=64,vocab=256,tied | 2*attn(h=4,kv=2,k=16)+ffn(128)"),
    (
        "ministral",
        "d=64,vocab=256 | swa(h=4,kv=2,k=16,w=32)+ffn(128) | attn(h=4,kv=2,k=16)+ffn(128)",
    ),
    (
        "qwen3",
        "d=64,vocab=256,tied | swa(h=4,kv=2,k=16,w=32,qknorm)+ffn(128) | attn(h=4,kv=2,k=16,qknorm)+ffn(128)",
    ),
    (
        "qwen3_5_text",
        "d=64,vocab=256,tied | 2*gdn(h=3,k=16,v=32,vg=2)+ffn(128) | attn(h=4,kv=2,k=16,qknorm)+ffn(128)",
    ),
    (
        "granitemoehybrid",
        "d=64,vocab=256,tied | m2(h=8,p=16,n=32)+ffn(128) | attn(h=4,kv=4,k=16)+ffn(128)",
    ),
    ("mamba2", "d=64,vocab=256,tied | 3*m2(h=8,p=16,n=32)"),
    ("lfm2", "d=64,vocab=256,tied | gsc(c=64,k=3)+ffn(128) | attn(h=4,kv=2,k=16,qknorm)+ffn(128)"),
];

fn id(text: &str) -> String {
    text.parse::<Architecture>().expect("a stack").id().to_string()
}

#[test]
fn a_stack_comes_back_from_every_form_and_into_another_campaign() {
    let mut world = World::new("import");
    world.set("FAKE_FIXED", "1");
    world.edit("evaluations = 8", "evaluations = 2");
    assert_eq!(world.say(&["run"]).code, 0);
    let text = world.candidates()[0].0.clone();
    for output in ["stack.json", "stack.toml"] {
        assert_eq!(world.say(&["export", "small", "1", "-o", output]).code, 0);
        let said = world.say(&["import", output, "--json"]);
        let read: Value = serde_json::from_str(&said.stdout).expect("JSON");
        assert_eq!((&read["id"], &read["text"]), (&id(&text).into(), &text.as_str().into()));
    }
    // The schema names every key that is written.
    let schema: Value =
        serde_json::from_str(&world.say(&["schema", "stack"]).stdout).expect("JSON");
    let written: Value = serde_json::from_str(&world.read("stack.json")).expect("JSON");
    for key in written.as_object().expect("an object").keys() {
        assert!(schema["properties"][key].is_object(), "the schema lacks {key}");
    }
    // A hand-written file among the stacks of another campaign.
    let mine = "d=32,vocab=256,tied | gdn(h=2,k=8,v=16)+ffn(64)";
    world.write("mine.toml", &format!("text = {mine:?}\n"));
    world.edit("name = \"small\"", "name = \"other\"");
    world.edit(
        "[evaluator]",
        "[search.stacks]\nmine = \"mine.toml\"\nfound = \"stack.json\"\n\n[evaluator]",
    );
    world.edit("references = [\"full-attention\", \"gated-deltanet\"]", "references = []");
    let said = world.say(&["run"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let there: Value =
        serde_json::from_str(&world.say(&["show", "other", "--json"]).stdout).expect("JSON");
    let texts: Vec<&str> = there["candidates"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|row| row["text"].as_str())
        .collect();
    assert_eq!(
        texts.iter().copied().collect::<BTreeSet<_>>(),
        BTreeSet::from([mine, text.as_str()])
    );
    // What is kept depends on no file: it goes on without them.
    assert!(!world.say(&["show", "other", "--config"]).stdout.contains("mine.toml"));
    // And on the terms of a comparison.
    let said = world.say(&["compare", "other", "mine.toml", "--stacks", "mamba2", "--seeds", "1"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stdout.contains(&format!("candidate-{}", &id(mine)[..8])), "{}", said.stdout);
}

#[test]
fn what_is_no_stack_is_refused_with_what_to_do() {
    let world = World::new("import_wrong");
    world.write("wrong.json", "{\"layers\": []}");
    for (word, said) in [
        ("none.json", "it cannot be read as a file"),
        ("wrong.json", "neither `text` nor `architecture`"),
        (".", "holds neither stack.json nor config.json"),
        ("d=16 | oops", "does not name a stack"),
    ] {
        let answer = world.say(&["import", word]);
        assert!(answer.code == 1 && answer.stderr.contains(said), "{word}: {}", answer.stderr);
    }
    // A campaign with a file that is no stack names the key.
    world.edit("[evaluator]", "[search.stacks]\nmine = \"wrong.json\"\n\n[evaluator]");
    let answer = world.say(&["run"]);
    assert!(answer.code == 1 && answer.stderr.contains("search.stacks.mine"), "{}", answer.stderr);
}

#[test]
fn a_folder_is_whole_and_replaces_nothing_that_no_export_wrote() {
    let world = World::new("export_folder");
    let export = |force: bool| {
        let mut words = vec!["export", EVERY, "--to", "hf", "--random", "-o", "out"];
        words.extend(force.then_some("--force"));
        world.say(&words)
    };
    assert_eq!(export(false).code, 0);
    let names = || -> BTreeSet<String> {
        std::fs::read_dir(world.folder.join("out"))
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect()
    };
    let all = names();
    for name in
        ["config.json", "model.safetensors", "modeling_deltafront.py", "train.py", "tokenizer.json"]
    {
        assert!(all.contains(name), "{all:?}");
    }
    let said = world.say(&["import", "out"]);
    assert!(said.stdout.contains(&id(EVERY)), "{}", said.stdout);
    let weights = std::fs::read(world.folder.join("out/model.safetensors")).expect("weights");
    let said = export(false);
    assert!(said.code == 1 && said.stderr.contains("--force replaces it"), "{}", said.stderr);
    assert_eq!(export(true).code, 0);
    // The same seed, the same bytes.
    assert_eq!(
        std::fs::read(world.folder.join("out/model.safetensors")).expect("weights"),
        weights
    );
    world.write("out/notes.txt", "mine");
    let said = export(true);
    assert!(said.code == 1 && said.stderr.contains("notes.txt"), "{}", said.stderr);
    assert_eq!(world.read("out/notes.txt"), "mine");
    // Nothing was left beside it.
    let beside: Vec<_> = std::fs::read_dir(&world.folder)
        .expect("a folder")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.contains(".part") || name.contains(".old"))
        .collect();
    assert!(beside.is_empty(), "{beside:?}");
    std::fs::create_dir(world.folder.join("photos")).expect("a folder");
    world.write("photos/config.json", "{}");
    let said = world.say(&["export", EVERY, "--to", "hf", "--random", "-o", "photos", "--force"]);
    assert!(said.code == 1 && said.stderr.contains("no export wrote it"), "{}", said.stderr);
}

#[test]
fn a_modelling_file_has_the_parts_that_its_stack_uses() {
    let world = World::new("export_parts");
    let classes = |stack: &str, folder: &str| -> String {
        let said = world.say(&["export", stack, "--to", "hf", "--random", "-o", folder]);
        assert_eq!(said.code, 0, "{}", said.stderr);
        world.read(&format!("{folder}/modeling_deltafront.py"))
    };
    let every = classes(EVERY, "every");
    let parts = [
        "class Attention",
        "class DeltaRule",
        "class Mamba2",
        "class Kda",
        "class GatedConv",
        "class Parallel",
        "class MixtureOfExperts",
        "def log_linear",
        "class SelectiveRope",
    ];
    for part in parts {
        assert!(every.contains(part), "{part}");
    }
    let plain = classes(BUILT_IN[0].1, "plain");
    let there: Vec<_> = parts.iter().filter(|part| plain.contains(*part)).collect();
    assert_eq!(there, [&"class Attention"]);
}

#[test]
fn a_check_names_the_layers_and_what_would_do() {
    let world = World::new("export_check");
    let verdict = |stack: &str| world.say(&["export", stack, "--check"]).stdout;
    let line = |text: &str, target: &str| -> String {
        let begins = |line: &&str| line.split_whitespace().next() == Some(target);
        text.lines()
            .find(begins)
            .unwrap_or_default()
            .split_whitespace()
            .skip(1)
            .collect::<Vec<_>>()
            .join(" ")
    };
    for (target, stack) in BUILT_IN {
        assert_eq!(line(&verdict(stack), target), "loads", "{target}");
    }
    let near = BUILT_IN[3]
        .1
        .replace(",qknorm", "")
        .replace("2*gdn(h=3,k=16,v=32,vg=2)", "2*gdn(h=3,k=16,v=32,neg)");
    let text = verdict(&near);
    assert_eq!(line(&text, "qwen3_5_text"), "loads after a change");
    assert!(text.contains("layers 0–1: negative eigenvalues"), "{text}");
    assert!(text.contains("layer 2: attention without norms of q and k"), "{text}");
    let text = verdict(EVERY);
    assert_eq!(line(&text, "hf"), "loads");
    for (target, _) in BUILT_IN {
        assert_eq!(line(&text, target), "cannot", "{target}");
    }
    let said = world.say(&["export", EVERY, "--to", "llama", "--random"]);
    assert!(
        said.code == 1 && said.stderr.contains("llama cannot hold the stack:\n  layer"),
        "{}",
        said.stderr
    );
}

#[test]
fn a_front_is_a_folder_with_an_index() {
    let world = World::new("export_front");
    assert_eq!(world.say(&["run"]).code, 0);
    let said = world.say(&["export", "small", "--front", "--to", "hf", "--random", "-o", "front"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let rows: Vec<Value> = world
        .read("front/front.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let campaign = world.campaign();
    let on_front = campaign["candidates"].as_array().expect("a list");
    let on_front: Vec<&Value> = on_front.iter().filter(|row| row["rank"] == 0).collect();
    assert_eq!(rows.len(), on_front.len());
    for (row, candidate) in rows.iter().zip(on_front) {
        assert_eq!((&row["text"], &row["id"]), (&candidate["text"], &candidate["id"]));
        let folder = format!("front/{}", row["path"].as_str().expect("a path"));
        assert!(
            world.say(&["import", &folder]).stdout.contains(row["id"].as_str().expect("an id"))
        );
    }
    // The fake trainer keeps no weights: without --random there is nothing to write, and nothing is.
    let said = world.say(&["export", "small", "--front", "--to", "hf", "-o", "trained"]);
    assert!(said.code == 1 && said.stderr.contains("--random"), "{}", said.stderr);
    assert!(!world.folder.join("trained").exists());
}

#[test]
fn a_whole_campaign_is_a_table() {
    let world = World::new("export_table");
    assert_eq!(world.say(&["run"]).code, 0);
    let campaign = world.campaign();
    let rows = campaign["candidates"].as_array().expect("a list");
    let said = world.say(&["export", "small", "--to", "jsonl"]);
    let lines: Vec<Value> =
        said.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), rows.len());
    for (line, row) in lines.iter().zip(rows) {
        for key in ["text", "id", "state", "values"] {
            assert_eq!(line[key], row[key], "{key}");
        }
        let stack: Architecture =
            serde_json::from_value(line["architecture"].clone()).expect("layers");
        assert_eq!(Value::from(stack.to_string()), row["text"]);
    }
    assert_eq!(world.say(&["export", "small", "--to", "csv", "-o", "all.csv"]).code, 0);
    let csv = world.read("all.csv");
    let head: Vec<&str> = csv.lines().next().expect("a head").split(',').collect();
    assert!(head.contains(&"bits_per_byte") && head.contains(&"bits_per_byte_error"), "{head:?}");
    // The text of a stack has commas; it stands in quotes.
    let text = rows[0]["text"].as_str().expect("a text");
    assert!(csv.lines().nth(1).expect("a row").contains(&format!("\"{text}\"")), "{csv}");
    assert_eq!(csv.lines().count(), rows.len() + 1);
    let front = world.say(&["export", "small", "--front", "--to", "csv"]).stdout;
    let on_front = rows.iter().filter(|row| row["rank"] == 0).count();
    assert_eq!(front.lines().count(), on_front + 1);
    let said = world.say(&["export", "small", "--to", "optuna"]);
    assert!(said.code == 1 && said.stderr.contains("-o names the file"), "{}", said.stderr);
    let said = world.say(&["export", "small", "--to", "optuna", "-o", "study.db"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let study = std::fs::read(world.folder.join("study.db")).expect("a file");
    assert!(study.starts_with(b"SQLite format 3\0"));
    // The campaign's own database is no place for it.
    let said = world.say(&["export", "small", "--to", "optuna", "-o", "deltafront.db", "--force"]);
    assert!(said.code == 1 && said.stderr.contains("is the database itself"), "{}", said.stderr);
}
