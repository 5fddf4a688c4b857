//! What trainers are given: Megatron-core's arguments and layers, lm-engine's blocks, and the folder of Nemotron-Flash.

use serde_json::{Value, json};

use super::harness::World;
use super::peers::{peers, say};

/// Of Mamba2, attention and FFNs one size each: full attention without positions, and one window.
const UNIFORM: &str = "d=64,vocab=256 | m2(h=8,p=16,n=32) | relu2(200) | attn(h=4,kv=2,k=16,rot=0)+relu2(200) | \
                       swa(h=4,kv=2,k=16,w=32)+relu2(200)";
/// Sizes and kinds of their own.
const MIXED: &str = "d=64,vocab=256,tied | gdn(h=3,k=16,v=32,vg=2)+ffn(96) | attn(h=2,kv=1,k=32,qknorm,gate)+relu2(64) | \
                     swa(h=4,kv=2,k=32,w=9)";

fn export(world: &World, stack: &str, to: &str, folder: &str) {
    let said = world.say(&["export", stack, "--to", to, "--random", "--seed", "5", "-o", folder]);
    assert_eq!(said.code, 0, "{to}: {}", said.stderr);
    let id = stack.parse::<search::Architecture>().expect("a stack").id().to_string();
    assert!(world.say(&["import", folder]).stdout.contains(&id), "{to} does not come back");
}

#[test]
fn megatron_gets_a_pattern_where_each_kind_has_one_size_and_always_a_list() {
    let world = World::new("megatron");
    export(&world, UNIFORM, "megatron", "uniform");
    let arguments = world.read("uniform/arguments.sh");
    for words in [
        "--hybrid-layer-pattern 'M-*-*-'",
        "--mamba-num-heads 8",
        "--squared-relu",
        "--num-query-groups 2",
        "--no-rope-freq '[0,0,1,0,0,0]'",
        "--window-size 31,0",
        "--window-attn-skip-freq '[0,0,0,0,1,0]'",
        "--untie-embeddings-and-output-weights",
    ] {
        assert!(arguments.contains(words), "{words}: {arguments}");
    }
    export(&world, MIXED, "megatron", "mixed");
    let arguments = world.read("mixed/arguments.sh");
    assert!(!arguments.contains("--hybrid-layer-pattern"), "{arguments}");
    let layers = world.read("mixed/layers.py");
    for line in [
        "(GDNLayerConfig, {\"linear_conv_kernel_dim\": 4, \"linear_key_head_dim\": 16,",
        "(MLPLayerConfig, {\"ffn_hidden_size\": 96, \"gated_linear_unit\": True, \"activation_func\": silu}),",
        "\"num_attention_heads\": 2, \"num_query_groups\": 1, \"qk_layernorm\": True, \"window_size\": None}),",
        "(MLPLayerConfig, {\"ffn_hidden_size\": 64, \"gated_linear_unit\": False, \"activation_func\": squared_relu}),",
        "\"window_size\": (8, 0)}),",
    ] {
        assert!(layers.contains(line), "{line}: {layers}");
    }
    // A relu² beside Gated DeltaNet is a list, too: a pattern has one activation for both.
    let both = "d=64,vocab=256 | gdn(h=3,k=16,v=32) | relu2(64)";
    export(&world, both, "megatron", "both");
    assert!(!world.read("both/arguments.sh").contains("pattern'"));
    let said = world.say(&["export", "d=64,vocab=256 | kda(h=4,k=16,v=16)", "--to", "megatron"]);
    assert!(said.code == 1 && said.stderr.contains("layer 0: Kimi Delta"), "{}", said.stderr);
}

#[test]
fn megatron_reads_the_patterns() {
    let [python, _] = match peers() {
        Ok(found) => found,
        Err(sentence) => return say(&sentence),
    };
    let world = World::new("megatron_reads");
    let stacks = [
        UNIFORM,
        "d=64,vocab=256 | 3*m2(h=8,p=16,n=32)",
        "d=64,vocab=256 | 2*attn(h=4,kv=2,k=16)+ffn(96)",
    ];
    let folders: Vec<String> = (0..stacks.len()).map(|number| format!("stack-{number}")).collect();
    for (stack, folder) in stacks.iter().zip(&folders) {
        export(&world, stack, "megatron", folder);
    }
    let script =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/exports/check_megatron.py");
    let output = std::process::Command::new(python)
        .arg(script)
        .args(&folders)
        .current_dir(&world.folder)
        .output()
        .expect("Python starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text.matches("\"ok\": true").count(), stacks.len(), "{text}");
}

#[test]
fn lm_engine_gets_blocks_with_sizes_of_their_own_and_weights() {
    let world = World::new("lm_engine");
    let stack = "d=64,vocab=256 | gdn(h=3,k=16,v=32,nogate,neg)+ffn(96) | swa(h=4,kv=2,k=16,w=9,gate,rot=50)+relu2(40) | \
                 m2(h=8,p=16,n=32)+ffn(128)";
    export(&world, stack, "lm-engine", "out");
    let config: Value = serde_json::from_str(&world.read("out/config.json")).expect("JSON");
    let mixers = config["sequence_mixer_blocks"].as_array().expect("a list");
    assert_eq!(mixers[0]["num_v_heads"], 3);
    assert_eq!(mixers[1]["sliding_window"], 8);
    assert_eq!(mixers[2]["intermediate_size"], 128);
    let widths: Vec<&Value> = config["mlp_blocks"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|mlp| &mlp["intermediate_size"])
        .collect();
    assert_eq!(json!(widths), json!([96, 40, 128]));
    assert_eq!(
        (&config["rope_dim"], &config["position_embedding_type"]),
        (&json!(8), &json!("rope"))
    );
    assert!(world.read("out/model_args.yml").contains("      - activation_function: \"relu2\"\n"));
    let bytes = std::fs::read(world.folder.join("out/model.safetensors")).expect("weights");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    let shape = |name: &str| file.tensor(name).expect(name).shape().to_vec();
    assert_eq!(shape("transformer.h.0.sequence_mixer.ab_proj.weight"), [6, 64]);
    // queries, key, value and gates of two key heads
    assert_eq!(shape("transformer.h.1.sequence_mixer.c_attn.weight"), [(4 + 2 + 2 + 4) * 16, 64]);
    assert_eq!(shape("transformer.h.0.mlp_block.c_fc.weight"), [192, 64]);
    assert_eq!(shape("transformer.h.1.mlp_block.c_fc.weight"), [40, 64]);
}

#[test]
fn nemotron_flash_gets_operators_and_divides_its_logits() {
    let world = World::new("nemotron_flash");
    let config = |folder: &str| -> Value {
        serde_json::from_str(&world.read(&format!("{folder}/config.json"))).expect("JSON")
    };
    let apart = "d=96,vocab=256,meta=4 | dn(h=3,k=32,v=32) | ffn(128) | m2(h=8,p=24,n=32)+ffn(128) | attn(h=3,kv=1,k=32)";
    export(&world, apart, "nemotron_flash", "apart");
    let read = config("apart");
    assert_eq!(read["layer_types"], json!(["deltanet", "f", "m2", "f", "a"]));
    assert_eq!((&read["intermediate_size"], &read["num_memory_tokens"]), (&json!(0), &json!(4)));
    // as its modelling file computes the width
    let ratio = read["ffn_expand_ratio"].as_f64().expect("a number");
    assert_eq!((ratio * 96.0) as u32 / 128 * 128, 128);
    let together = "d=64,vocab=256,tied | dn(h=2,k=32,v=32)+relu2(100) | attn(h=2,kv=1,k=32,qknorm,rot=0)+relu2(100)";
    export(&world, together, "nemotron_flash", "together");
    let read = config("together");
    assert_eq!(read["layer_types"], json!(["deltanet", "a"]));
    assert_eq!(
        (&read["intermediate_size"], &read["ffn_expand_ratio"]),
        (&json!(100), &Value::Null)
    );
    assert_eq!(
        (&read["mlp_hidden_act"], &read["kq_norm"], &read["rope"]),
        (&json!("relu2"), &json!("rms"), &json!(false))
    );
    // What it begins with is what a training with normalised weights begins with.
    let bytes = std::fs::read(world.folder.join("apart/model.safetensors")).expect("weights");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    let queries = file.tensor("model.layers.0.gla.q_proj.weight").expect("queries");
    let floats: Vec<f32> = queries
        .data()
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect();
    for row in floats.chunks_exact(96) {
        let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
        assert!((norm - 1.0).abs() < 1e-5, "{norm}");
    }
}

#[test]
fn a_search_keeps_to_what_its_targets_hold() {
    let world = World::new("loads_in");
    world.edit("[space]\n", "[space]\nloads_in = [\"mamba2\"]\n");
    let said = world.say(&["run"]);
    let expected = "space.loads_in: no mixer of this space fits mamba2: attn (full attention, and this type has Mamba2 alone)";
    let words: Vec<&str> = said.stderr.split_whitespace().collect();
    assert!(said.code == 1 && words.join(" ").contains(expected), "{}", said.stderr);
    world.edit("[\"mamba2\"]", "[\"ministral\", \"megatron\"]");
    let words = "never proposed as it does not load in ministral and megatron: gdn (Gated DeltaNet, and this type has";
    for command in ["plan", "run"] {
        let said = world.say(&[command]);
        assert_eq!(said.code, 0, "{}", said.stderr);
        let text: Vec<&str> = said.stderr.split_whitespace().collect();
        assert!(text.join(" ").contains(words), "{command}: {}", said.stderr);
    }
    let campaign = world.campaign();
    let rows = campaign["candidates"].as_array().expect("a list");
    let proposed = rows.iter().filter(|row| row["reference"].is_null());
    let texts: Vec<&str> = proposed.filter_map(|row| row["text"].as_str()).collect();
    assert!(texts.len() > 3, "{texts:?}");
    for text in texts {
        let checked = world.say(&["export", text, "--check"]).stdout;
        for target in ["ministral", "megatron"] {
            let line = checked.lines().find(|line| line.starts_with(target)).expect("a line");
            assert_eq!(line.split_whitespace().last(), Some("loads"), "{text}: {line}");
        }
    }
}
