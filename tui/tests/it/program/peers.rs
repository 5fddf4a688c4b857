//! Exports loaded by the software that they are for. `make peers` installs it; without it these tests say what they skip.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::exports::BUILT_IN;
use super::harness::World;

/// Stacks for the modelling file of our own: every mixer, with meta tokens and without.
const OWN: [&str; 6] = [
    "d=64,vocab=256 | dn(h=4,k=16,v=16)+ffn(96) | gdn(h=3,k=16,v=32,vg=2,neg) | gdp(h=2,k=16,v=16,n=2)+ffn(96) | \
     lgdn(h=2,k=16,v=32,l=15) | m2(h=8,p=16,n=32) | lm2(h=8,p=16,n=32,l=7) | ffn(96)",
    "d=64,vocab=256,tied,meta=3 | kda(h=4,k=16,v=16) | gsc(c=48,k=4)+ffn(96) | swa(h=4,kv=2,k=16,w=24,qknorm) | \
     attn(h=4,kv=2,k=16)+ffn(96) | gdn(h=2,k=16,v=16,srope) | swa(h=4,kv=2,k=16,w=9,srope)",
    "d=64,vocab=256,tied,meta=3 | attn(h=4,kv=2,k=16,qknorm,gate,rot=25,theta=1000000)+ffn(96) | \
     attn(h=4,kv=2,k=16,qknorm=whole) | attn(h=4,kv=1,k=16,rot=0,post)+ffn(48) | swa(h=4,kv=2,k=16,w=9,qknorm=whole,gate,rot=50,post) | \
     attn(h=2,kv=2,k=16,qknorm=whole,srope,gate)+relu2(96) | relu2(40)",
    "d=64,vocab=256,tied,meta=3 | gdn(h=2,k=16,v=16)+moe(48,e=6,k=2,s=1) | moe(32,e=5,k=1) | \
     attn(h=4,kv=2,k=16,qknorm=whole,post)+moe(40,e=8,k=3)",
    "d=64,vocab=256,tied,meta=3 | par(h=4,kv=2,k=16,bh=8,bk=32,bv=16)+ffn(96) | \
     par(h=4,kv=2,k=16,w=24,qknorm,gdn,bh=3,bk=16,bv=32) | par(h=2,kv=2,k=16,rot=50,dn,bh=4,bk=16,bv=16)+ffn(96) | \
     par(h=4,kv=4,k=16,bh=4,bk=16,bv=32,nonorms)+ffn(96)",
    "d=64,vocab=256,tied,meta=3 | attn(h=4,kv=2,k=16,srope,pgate,pbias,pfull,ptemp=learnt)+ffn(96) | \
     swa(h=3,kv=3,k=16,w=24,qknorm,srope,pfull,ptemp=rfa) | gdn(h=2,k=16,v=16,srope,pgate,pfull) | \
     dp(h=2,k=16,v=16,n=2,srope,pbias,ptemp=ones)+ffn(96)",
];

/// Attention and mixtures of experts as types have them beside what those of [`BUILT_IN`] show.
const ATTENTION: [(&str, &str); 10] = [
    ("llama", "d=64,vocab=256,tied | 2*attn(h=4,kv=2,k=16,theta=500000)+ffn(128)"),
    (
        "olmo_hybrid",
        "d=64,vocab=256,tied | 2*gdn(h=2,k=16,v=32,vg=2)+ffn(128) | attn(h=4,kv=2,k=16,qknorm=whole,theta=500000,post)+ffn(128)",
    ),
    (
        "olmo_hybrid",
        "d=64,vocab=256 | attn(h=4,kv=4,k=16,qknorm=whole,rot=0,post)+ffn(128) | gdn(h=3,k=16,v=16,neg)+ffn(128) | \
         attn(h=4,kv=4,k=16,qknorm=whole,rot=0,post)+ffn(128)",
    ),
    (
        "nemotron_h",
        "d=64,vocab=256 | m2(h=8,p=16,n=32) | relu2(200) | attn(h=4,kv=2,k=32,rot=0)+relu2(200) | 2*m2(h=8,p=16,n=32)+relu2(200)",
    ),
    (
        "nemotron_h",
        "d=64,vocab=256,tied | attn(h=4,kv=1,k=16,rot=0) | relu2(100) | attn(h=4,kv=1,k=16,rot=0)",
    ),
    (
        "qwen3_5_text",
        "d=64,vocab=256,tied | 2*gdn(h=3,k=16,v=32,vg=2)+ffn(128) | \
         attn(h=4,kv=2,k=32,qknorm,gate,rot=25,theta=10000000)+ffn(128)",
    ),
    (
        "qwen3_5_text",
        "d=64,vocab=256 | attn(h=2,kv=1,k=32,qknorm,rot=50)+ffn(128) | attn(h=2,kv=1,k=32,qknorm,gate,rot=50)+ffn(128)",
    ),
    (
        "granitemoehybrid",
        "d=64,vocab=256,tied | m2(h=8,p=16,n=32)+ffn(128) | attn(h=4,kv=4,k=16,rot=0)+ffn(128)",
    ),
    (
        "granitemoehybrid",
        "d=64,vocab=256,tied | 2*m2(h=8,p=16,n=32)+moe(32,e=6,k=2,s=2) | attn(h=4,kv=2,k=16)+moe(32,e=6,k=2,s=2)",
    ),
    (
        "lfm2",
        "d=64,vocab=256,tied | gsc(c=64,k=3)+ffn(128) | attn(h=4,kv=2,k=16,qknorm,theta=1000000)+ffn(128)",
    ),
];

/// The Python of `make peers`, and our trainer, which answers what ours says; a sentence where one is missing.
pub(super) fn peers() -> Result<[PathBuf; 2], String> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let python = cache.unwrap_or_default().join("deltafront/peers-2/bin/python");
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

pub(super) fn say(text: &str) {
    writeln!(std::io::stdout(), "{text}").expect("stdout is open");
}

/// Exports each stack to its target and as `hf`, from one seed, and has a script of `tools/exports` compare.
fn compare(world: &World, script: &str, cases: &[(&str, &str)]) {
    let [python, trainer] = match peers() {
        Ok(found) => found,
        Err(sentence) => return say(&sentence),
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/exports").join(script);
    let mut pairs = Vec::new();
    for (number, (target, stack)) in cases.iter().enumerate() {
        let export = |to: &str, folder: &str| {
            let words = ["export", stack, "--to", to, "--random", "--seed", "5", "-o", folder];
            let said = world.say(&words);
            assert_eq!(said.code, 0, "{to}: {}", said.stderr);
        };
        let (own, theirs) = (format!("own-{number}"), format!("{target}-{number}"));
        export("hf", &own);
        if *target != "hf" {
            export(target, &theirs);
        }
        let folder = if *target == "hf" { &own } else { &theirs };
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

#[test]
fn transformers_says_what_our_own_model_says() {
    // of what two types hold, also by the second
    let again = [("ministral", BUILT_IN[0].1), ("granitemoehybrid", BUILT_IN[0].1)];
    let own = OWN.map(|stack| ("hf", stack)).into_iter();
    let cases = own.chain(BUILT_IN).chain(again).chain(ATTENTION);
    compare(&World::new("peers"), "check.py", &cases.collect::<Vec<_>>());
}

#[test]
fn flash_linear_attention_says_what_our_own_model_says() {
    let stacks = [
        "d=64,vocab=256 | dn(h=4,k=16,v=16,gate,neg)+ffn(96) | swa(h=4,kv=2,k=16,w=32)+ffn(96)",
        "d=64,vocab=256,tied | 2*gdn(h=3,k=16,v=32,vg=2,neg)+ffn(96) | swa(h=4,kv=4,k=16,w=9)+ffn(96) | \
         attn(h=2,kv=1,k=32)+ffn(96)",
        "d=64,vocab=256 | 2*gdp(h=2,k=16,v=32,n=2)+ffn(96)",
        "d=64,vocab=256 | 2*dp(h=4,k=16,v=16,n=3,neg)+ffn(96)",
    ];
    compare(&World::new("peers_fla"), "check_fla.py", &stacks.map(|stack| ("fla", stack)));
}

#[test]
fn llama_cpp_says_what_our_own_model_says() {
    let [python, _] = match peers() {
        Ok(found) => found,
        Err(sentence) => return say(&sentence),
    };
    let has =
        Command::new(python).args(["-c", "import llama_cpp"]).output().expect("Python starts");
    if !has.status.success() {
        return say("skipped: no llama.cpp to load GGUF with; `make llama-cpp` builds it");
    }
    let [llama, _, qwen3, _, _, mamba2, lfm2] = BUILT_IN.map(|(_, stack)| stack);
    let qwen3 = qwen3.replace("swa(h=4,kv=2,k=16,w=32,qknorm)", "attn(h=4,kv=2,k=16,qknorm)");
    let granite = "d=64,vocab=256 | m2(h=8,p=16,n=32)+ffn(128) | attn(h=4,kv=2,k=16)+ffn(128)";
    let qwen35 = "d=64,vocab=256,tied | 2*gdn(h=2,k=32,v=32,vg=2)+ffn(128) | attn(h=2,kv=1,k=32,qknorm)+ffn(128)";
    let stacks = [llama, &qwen3, mamba2, lfm2, granite, qwen35];
    let cases = stacks.map(|stack| ("gguf", stack));
    compare(&World::new("peers_gguf"), "check_gguf.py", &cases);
}

/// What Optuna reads of a study: directions, states, best trials and their values, distributions; and what the pages of its
/// dashboard are given of it.
const OPTUNA: &str = r#"
import io, json, sys, optuna, optuna_dashboard
from wsgiref.util import setup_testing_defaults
optuna.logging.set_verbosity(optuna.logging.ERROR)
storage = optuna.storages.RDBStorage("sqlite:///" + sys.argv[2])
study = optuna.load_study(study_name=sys.argv[1], storage=storage)
dashboard = optuna_dashboard.wsgi(storage)

def page(path):
    environ = {"PATH_INFO": path, "QUERY_STRING": "after=0"}
    setup_testing_defaults(environ)
    return json.loads(b"".join(dashboard(environ, lambda *_: None)))

(listed,) = page("/api/studies")["study_summaries"]
shown = page(f"/api/studies/{listed['study_id']}")
numbers = {trial.number: trial.user_attrs["candidate"] for trial in study.trials}
print(json.dumps({
    "directions": [d.name for d in study.directions],
    "states": [t.state.name for t in study.trials],
    "best": sorted(t.user_attrs["candidate"] for t in study.best_trials),
    "texts": [t.user_attrs["text"] for t in study.trials],
    "depths": [t.params["depth"] for t in study.trials],
    "shown": [listed["study_name"], len(shown["trials"]), sorted(numbers[t["number"]] for t in shown["best_trials"])],
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
    assert_eq!(study["shown"], serde_json::json!(["small", rows.len(), front]));
}

#[test]
fn a_proxy_is_exported_as_it_was_trained_and_trained_again_as_it_was() {
    let [python, trainer] = match peers() {
        Ok(found) => found,
        Err(sentence) => return say(&sentence),
    };
    let mut world = World::new("peers_train");
    world.set("DELTAFRONT_TRAIN", trainer.to_str().expect("the path is UTF-8"));
    world.set("OMP_NUM_THREADS", "1");
    world.edit(
        "tokens = 65_536",
        "tokens = 8192\nbatch = 4\nsequence_length = 64\nvalidation_tokens = 1024\nlonger_contexts = []\n\
         precision = \"fp32\"\nthreads = 1",
    );
    world.edit("evaluations = 8", "evaluations = 1");
    let stack = "d=32,vocab=256,tied | gdn(h=2,k=16,v=16)+ffn(64) | swa(h=2,kv=1,k=16,w=16)+moe(16,e=4,k=2,s=1) | m2(h=4,p=16,n=16)";
    let stacks = format!("[search.stacks]\nmine = {stack:?}\n\n[evaluator]");
    world.edit("[evaluator]", &stacks);
    world.edit("references = [\"full-attention\", \"gated-deltanet\"]", "references = []");
    let said = world.say(&["run"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let row: serde_json::Value =
        serde_json::from_str(&world.say(&["export", "small", "--to", "jsonl"]).stdout)
            .expect("one line of JSON");
    assert_eq!(world.say(&["export", "small", "mine", "--to", "hf", "-o", "trained"]).code, 0);
    let fresh = ["export", "small", "mine", "--to", "hf", "--random", "-o", "fresh"];
    assert_eq!(world.say(&fresh).code, 0);
    let python = |words: &[&str]| {
        let output = Command::new(&python)
            .args(words)
            .current_dir(&world.folder)
            .env("OMP_NUM_THREADS", "1")
            .env("HF_HOME", world.folder.join("huggingface"))
            .output()
            .expect("Python starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    // The trained weights say what the checkpoint says.
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/exports/check.py");
    let checkpoint = row["checkpoint"].as_str().expect("a checkpoint");
    let pair = format!("trained={}", checkpoint.trim_start_matches("[folder]/"));
    let trainer = trainer.to_str().expect("the path is UTF-8");
    say(&python(&[script.to_str().expect("UTF-8"), "--trainer", trainer, &pair]));
    // Trained again from the same beginning, it sees the same batches and learns as it did.
    let words =
        ["fresh/train.py", "--corpus", "corpus.txt", "--curve", "curve.jsonl", "--device", "cpu"];
    let end: serde_json::Value = serde_json::from_str(&python(&words)).expect("JSON");
    let again: Vec<f64> = world
        .read("curve.jsonl")
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"))
        .map(|point| point["loss"].as_f64().expect("a loss"))
        .collect();
    let curve: Vec<f64> = row["curve"]
        .as_array()
        .expect("a curve")
        .iter()
        .map(|point| point[1].as_f64().expect("a loss"))
        .collect();
    assert_eq!(curve.len(), again.len());
    let apart = curve.iter().zip(&again).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    let loss = row["values"]["validation_loss"]["mean"].as_f64().expect("a loss");
    let other = end["validation_loss"].as_f64().expect("a loss");
    say(&format!(
        "curves apart by at most {apart:.1e}, validation losses {loss:.4} and {other:.4}"
    ));
    assert!(curve[curve.len() - 1] < 0.7 * curve[0], "it learnt: {curve:?}");
    assert!(apart < 0.02, "{curve:?}\n{again:?}");
    assert!((loss - other).abs() < 0.02, "{loss} {other}");
}
