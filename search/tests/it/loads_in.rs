//! `space.loads_in`: only what the targets hold is proposed.

use std::collections::HashSet;

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use search::Architecture;
use search::space::{LeftOut, Space, SpaceConfig};
use search::targets::{Target, attention_of, first};

/// Seven mixers with many sizes, FFNs of two kinds or none, meta tokens.
const WIDE: &str = r#"
vocab = 256
tied_embeddings = false
meta_tokens = [0, 4]
d_model = [64, 128]
depth = { min = 2, max = 8 }
ffn = ["none", "2x", "3x", "relu2 2x"]
[mixers.attn]
head_width = [16, 32]
kv_heads = [1, 2]
qk_norm = [false, true, "whole"]
output_gate = [false, true]
rotary_percent = [0, 50, 100]
norm_after = [false, true]
[mixers.swa]
head_width = [16, 32]
window = [16, 32]
[mixers.dn]
key_width = [16, 32]
output_gate = [false, true]
[mixers.gdn]
key_width = [16, 32]
negative_eigenvalues = [false, true]
output_gate = [false, true]
[mixers.m2]
head_width = [16, 32]
state_width = [16, 32]
[mixers.gsc]
[mixers.kda]
key_width = [16]
[mixers.none]
"#;

fn config(loads_in: &[Target]) -> SpaceConfig {
    let mut config: SpaceConfig = toml::from_str(WIDE).expect("a space");
    config.loads_in = loads_in.to_vec();
    config
}

fn is_held(space: &Space, stack: &Architecture, targets: &[Target]) {
    for target in targets {
        let found = target.obstacles(stack);
        assert!(found.is_empty(), "{}: {stack}: {found:?}", target.name());
    }
    space.contains(stack).unwrap_or_else(|violation| panic!("{stack}: {violation}"));
}

#[test]
fn every_move_stays_with_what_the_target_holds_and_gets_about() {
    let alone = Target::ALL.map(|target| vec![target]);
    let both = [
        vec![Target::Qwen35Text, Target::Megatron],
        vec![Target::NemotronFlash, Target::Fla],
        vec![Target::Gguf, Target::NemotronH].into_iter().take(1).collect(),
    ];
    for targets in alone.into_iter().chain(both) {
        let names: Vec<&str> = targets.iter().map(|target| target.name()).collect();
        let space =
            Space::new(&config(&targets)).unwrap_or_else(|error| panic!("{names:?}: {error}"));
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut seen = HashSet::new();
        let mut stacks: Vec<Architecture> = (0..12).map(|_| space.sample(&mut rng)).collect();
        for turn in 0..80 {
            let (a, b) = (turn % 12, (turn + 5) % 12);
            let child = if turn % 3 == 0 {
                space.recombine(&stacks[a], &stacks[b], &mut rng)
            } else {
                space.mutate(&stacks[a], &mut rng).0
            };
            is_held(&space, &child, &targets);
            assert_ne!(child, stacks[a], "{names:?}: a move that changes nothing");
            stacks[a] = child;
            seen.insert(stacks[a].clone());
        }
        let neighbours = space.neighbours(&stacks[0]);
        assert!(!neighbours.is_empty(), "{names:?}: {} has no neighbours", stacks[0]);
        for neighbour in neighbours {
            is_held(&space, &neighbour, &targets);
        }
        assert!(seen.len() > 35, "{names:?}: only {} stacks were reached", seen.len());
        let depths: HashSet<usize> = seen.iter().map(|stack| stack.layers().len()).collect();
        assert!(depths.len() > 2, "{names:?}: only depths {depths:?}");
        // one size for all layers is no one size for ever
        if targets == [Target::Qwen35Text] {
            let sizes: HashSet<_> =
                seen.iter().filter_map(|stack| first(stack, attention_of)).collect();
            assert!(sizes.len() > 4, "{sizes:?}");
        }
    }
}

#[test]
fn a_space_of_which_nothing_loads_is_refused_with_the_reason() {
    let said = |text: &str| {
        let config: SpaceConfig = toml::from_str(text).expect("a space");
        Space::new(&config).expect_err("nothing loads").to_string()
    };
    let kda = "loads_in = [\"gguf\"]\nd_model = [64]\ndepth = { min = 2, max = 4 }\n[mixers.kda]\nkey_width = [16]\n";
    let message = said(kda);
    assert!(
        message.starts_with("space.loads_in: no mixer of this space fits gguf: kda (Kimi Delta Attention, and this type has"),
        "{message}"
    );
    // Each is held, but not together: this type wants layers of both.
    let message = said(
        "loads_in = [\"olmo_hybrid\"]\nd_model = [64]\ndepth = { min = 2, max = 4 }\n[mixers.gdn]\nkey_width = [16]\n",
    );
    assert!(
        message.contains(
            "no architecture of this space was found that loads there; the nearest is d=64"
        ) && message.contains("olmo_hybrid: no attention, of which this type wants a layer"),
        "{message}"
    );
    let message = said(
        "loads_in = [\"llama\"]\nmeta_tokens = [8]\nd_model = [64]\ndepth = { min = 2, max = 4 }\n[mixers.attn]\nhead_width = [16]\n",
    );
    assert!(message.contains("no number of meta tokens of this space fits llama"), "{message}");
    let unknown =
        toml::from_str::<SpaceConfig>("loads_in = [\"hf\"]\nd_model = [64]\n[mixers.attn]\n");
    assert!(unknown.expect_err("it holds all").to_string().contains("unknown variant `hf`"));
}

#[test]
fn stages_are_of_what_is_left() {
    let space = "loads_in = [\"nemotron_flash\"]\nd_model = [128]\nffn = [\"1x\"]\n[mixers.dn]\nkey_width = [32]\n[mixers.gdn]\n\
                 key_width = [32]\n[mixers.m2]\nhead_width = [16]\n[mixers.attn]\nhead_width = [32]\n\
                 [[stages]]\nrepeat = { min = 1, max = 2 }\nffns_per_mixer = [1]\nratios = [\"1:1\"]\n";
    let config: SpaceConfig = toml::from_str(space).expect("a space");
    let space = Space::new(&config).expect("possible");
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut stack = space.sample(&mut rng);
    for _ in 0..20 {
        is_held(&space, &stack, &[Target::NemotronFlash]);
        stack = space.mutate(&stack, &mut rng).0;
    }
}

#[test]
fn without_targets_a_seed_draws_what_it_drew() {
    let plain = Space::new(&config(&[])).expect("possible");
    let text = toml::to_string(&config(&[])).expect("TOML");
    assert!(!text.contains("loads_in"), "{text}");
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let held = (0..40).filter(|_| Target::Qwen35Text.obstacles(&plain.sample(&mut rng)).is_empty());
    assert_eq!(held.count(), 0, "such stacks are drawn without being asked for");
}

#[test]
fn what_no_stack_can_have_there_is_said_with_the_reason() {
    let said = |targets: &[Target]| -> Vec<String> {
        let space = Space::new(&config(targets)).expect("possible");
        let words = |left: &LeftOut| format!("{} ({})", left.what, left.reason);
        space.left_out().iter().map(words).collect()
    };
    assert_eq!(said(&[]), [""; 0]);
    let qwen = said(&[Target::Qwen35Text]);
    for words in [
        "kda (Kimi Delta Attention, and this type has",
        "swa (sliding-window attention, and this type has",
        "attn qk_norm false (attention without norms of q and k, which this type has; qk_norm = true)",
        "attn qk_norm whole (norms of q and k over all heads",
        "attn norm_after true (norms behind attention and FFN",
        "gdn negative_eigenvalues true (negative eigenvalues",
        "gdn output_gate false (no output gate",
        "ffn none (no FFN, and this type has one in every layer)",
        "ffn relu2",
        "none (no mixer, and this type has one in every layer)",
        "meta_tokens 4 (4 meta tokens, and no built-in type has any",
    ] {
        assert!(qwen.iter().any(|line| line.starts_with(words)), "{words}: {qwen:#?}");
    }
    // Nothing is left out that a member can have.
    let space = Space::new(&config(&[Target::Sglang])).expect("possible");
    let what: Vec<&str> = space.left_out().iter().map(|left| left.what.as_str()).collect();
    assert_eq!(what, ["meta_tokens 4"]);
}
