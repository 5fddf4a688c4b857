//! `deltafront profile` with a profiler that only pretends to time.

use serde_json::Value;

use super::harness::World;

const STACK: &str = "d=16,vocab=8,tied | 2*gdn(h=1,k=8,v=16)+ffn(32) | attn(h=2,kv=2,k=8)";

#[test]
fn a_stack_is_profiled_from_its_text_its_file_and_its_campaign() {
    let mut world = World::new("profile");
    world.set("FAKE_FIXED", "1");
    let said = world.say(&["profile", STACK]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    insta::assert_snapshot!("profile", said.stdout);

    let json = world.say(&["profile", STACK, "--json", "--batch", "4", "--context", "100"]);
    let json: Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(json["text"], STACK);
    let decode = &json["phases"][0];
    assert_eq!(decode["conditions"]["batch"], 4);
    assert_eq!(decode["conditions"]["context"], 100);
    let parts = decode["parts"].as_array().expect("a list");
    assert_eq!(parts.len(), 2 * 2 + 1 + 1, "mixers, networks, head");
    let sum: f64 = parts.iter().map(|part| part["timing"]["median_us"].as_f64().expect("µs")).sum();
    assert!((sum - decode["sum_us"].as_f64().expect("µs")).abs() < 1e-9);
    assert!(parts.iter().all(|part| part["bound_us"].as_f64().expect("µs") > 0.0));

    std::fs::write(world.folder.join("stack.txt"), format!("{STACK}\n")).expect("a file");
    assert_eq!(world.say(&["profile", "stack.txt"]).stdout, said.stdout);
    world.edit("evaluations = 8", "evaluations = 2");
    assert_eq!(world.say(&["run"]).code, 0);
    let of_campaign = world.say(&["profile", "small", "full-attention"]);
    assert!(of_campaign.stdout.contains("attn("), "{}", of_campaign.stderr);
    let file = ["export", "small", "full-attention", "-o", "stack.json"];
    assert_eq!(world.say(&file).code, 0);
    assert_eq!(world.say(&["profile", "stack.json"]).stdout, of_campaign.stdout);
    let file = ["export", "small", "full-attention", "-o", "stack.toml"];
    assert_eq!(world.say(&file).code, 0);
    assert_eq!(world.say(&["profile", "stack.toml"]).stdout, of_campaign.stdout);
}

#[test]
fn a_candidate_is_profiled_under_the_conditions_of_its_campaign() {
    let world = World::new("profile_conditions");
    world.edit("evaluations = 8", "evaluations = 2");
    world.edit(
        "[evaluator]",
        "[latency]\ndtype = \"int8\"\ndecode_context = 96\nprefill_tokens = 0\n\n[evaluator]",
    );
    assert_eq!(world.say(&["run"]).code, 0);
    assert_eq!(world.say(&["export", "small", "1", "-o", "stack.json"]).code, 0);
    for stack in [&["small", "1"][..], &["stack.json"]] {
        let words: Vec<&str> = ["profile"].iter().chain(stack).copied().collect();
        let said = world.say(&words).stdout;
        assert!(said.contains("decode, one token with 96 in the cache: int8"), "{said}");
        assert!(!said.contains("prefill"), "{said}");
        let words: Vec<&str> =
            words.into_iter().chain(["--prompt", "64", "--dtype", "bf16"]).collect();
        let said = world.say(&words).stdout;
        assert!(said.contains("prefill of 64 tokens: bf16"), "{said}");
    }
}

#[test]
fn what_is_no_stack_is_said_in_one_message() {
    let world = World::new("profile_input");
    for (words, hint) in [
        (&["profile", "nothing-here"][..], "cannot be read as a file"),
        (&["profile", "d=16,vocab=8 | 2*gdn("][..], "does not name a stack"),
        (&["profile", "nobody", "1"][..], "deltafront.db"),
        (&["profile", STACK, "--dtype", "fp7"][..], "fp7"),
    ] {
        let said = world.say(words);
        assert!(said.code != 0 && said.stdout.is_empty(), "{words:?}");
        assert!(said.stderr.contains(hint), "{words:?}: {}", said.stderr);
    }
}
