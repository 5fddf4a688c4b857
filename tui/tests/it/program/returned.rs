//! Weights that left and come back.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use search::Architecture;
use search::foreign::in_our_modelling_file;
use search::tensors::tensors;
use serde_json::{Value, json};

use super::exports::BUILT_IN;
use super::harness::World;
use super::peers::say;

/// Of every other target that has weights.
const OTHERS: [(&str, &str); 8] = [
    (
        "hf",
        "d=64,vocab=256,meta=2 | dn(h=4,k=16,v=16)+ffn(96) | gdn(h=3,k=16,v=32,vg=2,srope) | kda(h=4,k=16,v=16) | gsc(c=48,k=4)",
    ),
    (
        "olmo_hybrid",
        "d=64,vocab=256,tied | 2*gdn(h=2,k=16,v=32,vg=2)+ffn(128) | attn(h=4,kv=2,k=16,qknorm=whole,post)+ffn(128)",
    ),
    (
        "nemotron_h",
        "d=64,vocab=256,tied | m2(h=8,p=16,n=32) | relu2(200) | attn(h=4,kv=2,k=32,rot=0)+relu2(200)",
    ),
    (
        "granitemoehybrid",
        "d=64,vocab=256,tied | m2(h=8,p=16,n=32)+moe(32,e=6,k=2,s=2) | attn(h=4,kv=2,k=16)+moe(32,e=6,k=2,s=2)",
    ),
    ("fla", "d=64,vocab=256 | 2*gdp(h=2,k=16,v=32,n=2)+ffn(96)"),
    (
        "lm-engine",
        "d=64,vocab=256,tied | attn(h=4,kv=2,k=16,gate,rot=50)+ffn(96) | gdn(h=3,k=16,v=32,nogate,vg=2)+relu2(64) | \
         m2(h=8,p=16,n=32)+ffn(96)",
    ),
    (
        "nemotron_flash",
        "d=64,vocab=256,meta=3 | dn(h=4,k=16,v=16) | ffn(128) | m2(h=8,p=16,n=32)+ffn(128) | attn(h=4,kv=2,k=16,qknorm)",
    ),
    ("qwen3_5_text", "d=64,vocab=256 | attn(h=2,kv=1,k=32,qknorm,gate,rot=50)+ffn(128)"),
];

fn bytes(world: &World, path: &str) -> Vec<u8> {
    std::fs::read(world.folder.join(path)).expect(path)
}

fn floats(view: &TensorView<'_>) -> Vec<f32> {
    view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// Exports a stack to a target, and the checkpoint that comes back.
fn there_and_back(world: &World, target: &str, stack: &str) -> Vec<u8> {
    for (to, folder) in [(target, "there"), ("hf", "own")] {
        let _ = std::fs::remove_dir_all(world.folder.join(folder));
        let words =
            ["export", stack, "--to", to, "--random", "--seed", "5", "-o", folder, "--force"];
        assert_eq!(world.say(&words).code, 0, "{to}");
    }
    let said =
        world.say(&["import", "--weights", "there", "-o", "back.safetensors", "--force", "--json"]);
    assert_eq!(said.code, 0, "{target}: {}", said.stderr);
    let read: Value = serde_json::from_str(&said.stdout).expect("JSON");
    assert_eq!(
        (&read["text"], &read["target"]),
        (&json!(stack.parse::<Architecture>().expect("a stack").to_string()), &json!(target))
    );
    bytes(world, "back.safetensors")
}

#[test]
fn weights_come_back_from_every_target_as_they_were() {
    let world = World::new("returned");
    for (target, stack) in BUILT_IN.into_iter().chain(OTHERS) {
        let back = there_and_back(&world, target, stack);
        let own = bytes(&world, "own/model.safetensors");
        let (back, own) = (SafeTensors::deserialize(&back), SafeTensors::deserialize(&own));
        let (back, own) = (back.expect("ours"), own.expect("an export"));
        let parsed: Architecture = stack.parse().expect("a stack");
        for spec in tensors(&parsed) {
            let returned = floats(&back.tensor(&spec.name).expect(&spec.name));
            let left = floats(&own.tensor(&in_our_modelling_file(&spec.name)).expect(&spec.name));
            if target == "nemotron_flash" {
                // it begins with normalised weights, which the other folder has not
                continue;
            }
            assert_eq!(returned.len(), left.len(), "{}", spec.name);
            for (a, b) in returned.iter().zip(&left) {
                assert!((a - b).abs() <= 1e-7, "{target}: {}: {a} came back of {b}", spec.name);
            }
        }
        // And leave again to the same values.
        let _ = std::fs::remove_dir_all(world.folder.join("again"));
        let words = ["export", "back.safetensors", "--to", target, "-o", "again", "--force"];
        let said = world.say(&words);
        assert_eq!(said.code, 0, "{target}: {}", said.stderr);
        let (first, again) =
            (bytes(&world, "there/model.safetensors"), bytes(&world, "again/model.safetensors"));
        let (first, again) = (SafeTensors::deserialize(&first), SafeTensors::deserialize(&again));
        let (first, again) = (first.expect("an export"), again.expect("an export"));
        for (name, view) in first.tensors() {
            assert_eq!(
                floats(&view),
                floats(&again.tensor(&name).expect(&name)),
                "{target}: {name}"
            );
        }
    }
}

/// Changes tensors of a folder, as a training does.
fn train(world: &World, folder: &str, change: impl Fn(&str, &mut Vec<f32>)) {
    let path = format!("{folder}/model.safetensors");
    let old = bytes(world, &path);
    let file = SafeTensors::deserialize(&old).expect("an export");
    let changed: HashMap<String, (Vec<usize>, Vec<u8>)> = file
        .tensors()
        .into_iter()
        .map(|(name, view)| {
            let mut values = floats(&view);
            change(&name, &mut values);
            let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            (name, (view.shape().to_vec(), bytes))
        })
        .collect();
    let views = changed.iter().map(|(name, (shape, bytes))| {
        (name, TensorView::new(Dtype::F32, shape.clone(), bytes).expect("a tensor"))
    });
    safetensors::serialize_to_file(views, None, &world.folder.join(path)).expect("written");
}

#[test]
fn what_a_type_has_beyond_the_stack_may_have_been_learnt() {
    let world = World::new("returned_learnt");
    let import =
        || world.say(&["import", "--weights", "there", "-o", "back.safetensors", "--force"]);
    there_and_back(&world, "qwen3_5_text", BUILT_IN[3].1);
    train(&world, "there", |name, values| {
        if name.contains("self_attn.q_proj") {
            // the gate of the first head stands behind its queries
            values[16 * 64] = 0.25;
        }
    });
    let said = import();
    assert!(
        said.stdout.contains("attn(h=4,kv=2,k=16,qknorm,gate)"),
        "{}{}",
        said.stdout,
        said.stderr
    );
    there_and_back(&world, "nemotron_h", OTHERS[2].1);
    train(&world, "there", |name, values| {
        if name == "lm_head.weight" {
            values[7] += 1.0;
        }
    });
    let said = import();
    assert!(said.stdout.starts_with("d=64,vocab=256 |"), "{}{}", said.stdout, said.stderr);
}

#[test]
fn what_is_not_of_the_stack_is_refused_by_name() {
    let world = World::new("returned_wrong");
    there_and_back(&world, "llama", BUILT_IN[0].1);
    let import = || world.say(&["import", "--weights", "there", "-o", "new.safetensors"]);
    let config = world.read("there/config.json");
    for (from, to, said) in [
        ("ffn(128)", "ffn(96)", "mlp.gate_proj.weight is [128, 64], and the stack's is [96, 64]"),
        ("2*attn", "3*attn", "there is no tensor model.layers.2"),
        ("2*attn", "attn", "there is a tensor model.layers.1"),
        ("\"llama\"", "\"gpt2\"", "is of the type `gpt2`, which no export of deltafront has"),
    ] {
        world.write("there/config.json", &config.replace(from, to));
        let answer = import();
        assert!(answer.code == 1 && answer.stderr.contains(said), "{}", answer.stderr);
        assert!(!world.folder.join("new.safetensors").exists());
    }
    let answer = world.say(&["import", "--weights", "stack.json"]);
    assert!(answer.code == 1 && answer.stderr.contains("is no folder"), "{}", answer.stderr);
}

#[test]
fn a_model_that_came_back_says_and_scores_what_it_did() {
    let trainer = Path::new(env!("CARGO_BIN_EXE_deltafront")).with_file_name("deltafront-train");
    if !trainer.exists() {
        return say("skipped: deltafront-train is not built; test the whole workspace");
    }
    let mut world = World::new("returned_says");
    let stack = "d=64,vocab=256,tied | gdn(h=3,k=16,v=32,vg=2)+ffn(96) | attn(h=4,kv=2,k=16,qknorm)+ffn(96)";
    there_and_back(&world, "qwen3_5_text", stack);
    let ask = |flag: &str, path: &str, question: &Value| -> Value {
        let mut child = Command::new(&trainer)
            .args([flag, path])
            .current_dir(&world.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the trainer starts");
        serde_json::to_writer(child.stdin.take().expect("an input"), question).expect("asked");
        let output = child.wait_with_output().expect("an answer");
        assert!(output.status.success());
        serde_json::from_slice(&output.stdout).expect("JSON")
    };
    let tokens = json!([[77, 121, 32, 102, 101, 108, 108, 111, 119]]);
    let parsed: Architecture = stack.parse().expect("a stack");
    let own = ask(
        "--logits",
        "own/model.safetensors",
        &json!({ "tokens": tokens, "stack": parsed, "greedy": 8 }),
    );
    let back = ask("--logits", "back.safetensors", &json!({ "tokens": tokens, "greedy": 8 }));
    assert_eq!(own["greedy"], back["greedy"]);
    // norms were written less one, which rounds
    let numbers = |answer: &Value| -> Vec<f64> {
        let rows = answer["logits"][0].as_array().expect("rows");
        rows.iter()
            .flat_map(|row| row.as_array().expect("a row"))
            .filter_map(Value::as_f64)
            .collect()
    };
    for (a, b) in numbers(&own).iter().zip(numbers(&back)) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
    // Untrained, it knows as much of bytes as chance: eight bits of each.
    let text = "The people of these United States. ".repeat(400);
    world.write("text.txt", &text);
    world.write(
        "score.toml",
        "name = \"score\"\n[space]\nd_model = [64]\ndepth = { min = 1, max = 2 }\n[space.mixers.gdn]\n[data]\ncorpus = \"text.txt\"\n\
         [training]\nsequence_length = 32\nvalidation_tokens = 512\nprecision = \"fp32\"\n",
    );
    world.set("DELTAFRONT_TRAIN", &trainer.to_string_lossy());
    let said = world.say(&[
        "import",
        "--weights",
        "there",
        "-o",
        "back.safetensors",
        "--force",
        "--score",
        "score.toml",
        "--json",
    ]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let read: Value = serde_json::from_str(&said.stdout).expect("JSON");
    let bits = read["values"]["bits_per_byte"]["mean"].as_f64().expect("a value");
    assert!((6.0..12.0).contains(&bits), "{bits}");
    let nats = read["values"]["validation_loss"]["mean"].as_f64().expect("a value");
    assert!((nats / std::f64::consts::LN_2 - bits).abs() < 1e-9);
    assert!(read["values"]["test_bits_per_byte"]["mean"].is_number());
}
