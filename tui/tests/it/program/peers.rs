//! Exports loaded by the software that they are for. `make peers` installs it; without it these tests say what they skip.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::exports::BUILT_IN;
use super::harness::World;

/// Stacks for the modelling file of our own: every mixer, with meta tokens and without.
const OWN: [&str; 2] = [
    "d=64,vocab=256 | dn(h=4,k=16,v=16)+ffn(96) | gdn(h=3,k=16,v=32,vg=2,neg) | gdp(h=2,k=16,v=16,n=2)+ffn(96) | \
     lgdn(h=2,k=16,v=32,l=15) | m2(h=8,p=16,n=32) | lm2(h=8,p=16,n=32,l=7) | ffn(96)",
    "d=64,vocab=256,tied,meta=3 | kda(h=4,k=16,v=16) | gsc(c=48,k=4)+ffn(96) | swa(h=4,kv=2,k=16,w=24,qknorm) | \
     attn(h=4,kv=2,k=16)+ffn(96) | gdn(h=2,k=16,v=16,srope) | swa(h=4,kv=2,k=16,w=9,srope)",
];

/// The Python of `make peers`, and our trainer, which answers what ours says; a sentence where one is missing.
fn peers() -> Result<[PathBuf; 2], String> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let python = cache.unwrap_or_default().join("deltafront/peers-1/bin/python");
    if !python.exists() {
        return Err(
            "skipped: no transformers to load exports with; `make peers` installs it".to_owned()
        );
    }
    let trainer = Path::new(env!("CARGO_BIN_EXE_deltafront")).with_file_name("deltafront-train");
    if !trainer.exists() {
        return Err("skipped: deltafront-train is not built; test the whole workspace".to_owned());
    }
    Ok([python, trainer])
}

fn say(text: &str) {
    writeln!(std::io::stdout(), "{text}").expect("stdout is open");
}

#[test]
fn transformers_says_what_our_own_model_says() {
    let [python, trainer] = match peers() {
        Ok(found) => found,
        Err(sentence) => return say(&sentence),
    };
    let world = World::new("peers");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/exports/check.py");
    // of what two types hold, also by the second
    let again = [("ministral", BUILT_IN[0].1), ("granitemoehybrid", BUILT_IN[0].1)];
    let cases = OWN.map(|stack| ("hf", stack)).into_iter().chain(BUILT_IN).chain(again);
    let mut pairs = Vec::new();
    for (number, (target, stack)) in cases.enumerate() {
        let own = format!("own-{number}");
        let said =
            world.say(&["export", stack, "--to", "hf", "--random", "--seed", "5", "-o", &own]);
        assert_eq!(said.code, 0, "{}", said.stderr);
        let mut folder = own.clone();
        if target != "hf" {
            folder = format!("{target}-{number}");
            let words = ["export", stack, "--to", target, "--random", "--seed", "5", "-o", &folder];
            assert_eq!(world.say(&words).code, 0);
        }
        pairs.push(format!("{folder}={own}/model.safetensors"));
    }
    let output = Command::new(python)
        .arg(script)
        .arg("--trainer")
        .arg(trainer)
        .args(&pairs)
        .current_dir(&world.folder)
        .env("OMP_NUM_THREADS", "1")
        .env("HF_HOME", world.folder.join("huggingface"))
        .output()
        .expect("Python starts");
    let text = String::from_utf8_lossy(&output.stdout);
    say(&text);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text.lines().filter(|line| line.contains("\"ok\": true")).count(), pairs.len());
}

/// What Optuna reads of a study: directions, states, best trials and their values, distributions.
const OPTUNA: &str = r#"
import json, sys, optuna
optuna.logging.set_verbosity(optuna.logging.ERROR)
study = optuna.load_study(study_name=sys.argv[1], storage="sqlite:///" + sys.argv[2])
print(json.dumps({
    "directions": [d.name for d in study.directions],
    "states": [t.state.name for t in study.trials],
    "best": sorted(t.user_attrs["candidate"] for t in study.best_trials),
    "texts": [t.user_attrs["text"] for t in study.trials],
    "depths": [t.params["depth"] for t in study.trials],
}))
"#;

#[test]
fn optuna_finds_the_front_of_a_campaign() {
    let python = match peers() {
        Ok([python, _]) => python,
        Err(sentence) => return say(&sentence),
    };
    let world = World::new("peers_optuna");
    assert_eq!(world.say(&["run"]).code, 0);
    let said = world.say(&["export", "small", "--to", "optuna", "-o", "study.db"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let output = Command::new(python)
        .args(["-c", OPTUNA, "small", "study.db"])
        .current_dir(&world.folder)
        .output()
        .expect("Python starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    let study: serde_json::Value = serde_json::from_slice(&output.stdout).expect(&errors);
    let campaign = world.campaign();
    let rows = campaign["candidates"].as_array().expect("a list");
    let front: Vec<&serde_json::Value> =
        rows.iter().filter(|row| row["rank"] == 0).map(|row| &row["number"]).collect();
    assert_eq!(study["best"], serde_json::json!(front));
    assert_eq!(study["directions"], serde_json::json!(["MINIMIZE", "MINIMIZE"]));
    let texts: Vec<&serde_json::Value> = rows.iter().map(|row| &row["text"]).collect();
    assert_eq!(study["texts"], serde_json::json!(texts));
}
