//! Spaces: every move stays inside, impossible ones name their key.

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use search::Architecture;
use search::space::{Space, SpaceConfig, SpaceError};
use search::tensors::parameters;

const FLAT: &str = r#"
d_model = [64, 96, 128]
depth = { min = 2, max = 5 }
ffn = ["none", "2x", "3x", 200]
max_parameters = 900_000
min_parameters = 100_000

[mixers.attn]
head_width = [32]
[mixers.swa]
heads = [2, 4]
kv_heads = [1, 2]
head_width = "auto"
window = [32, 64, 128]
qk_norm = [false, true]
[mixers.dn]
[mixers.gdn]
key_width = [16, 32]
[mixers.m2]
head_width = [32]
state_width = [16, 64]
"#;

/// Every mixer with every option.
const EVERYTHING: &str = r#"
meta_tokens = [0, 5]
d_model = [48, 96]
depth = { min = 1, max = 4 }
ffn = ["none", "2x", "relu2 2x", "relu2 96", "moe e=8 k=2 1x", "moe e=4 k=1 s=1 32"]

[mixers.none]
[mixers.attn]
head_width = [16, 24]
qk_norm = [false, true, "whole"]
selective_rope = [false, true]
phase_gate = [false, true]
phase_temperature = ["rope", "learnt"]
output_gate = [false, true]
norm_after = [true, false]
rotary_percent = [100, 25, 0]
rope_theta = [10_000, 1_000_000]
[mixers.swa]
head_width = [24]
window = [32, 64]
selective_rope = [false, true]
[mixers.dn]
key_width = [16]
output_gate = [false, true]
value_groups = [1, 2]
selective_rope = [false, true]
[mixers.gdn]
key_width = [16]
output_gate = [false, true]
negative_eigenvalues = [false, true]
short_conv = [false, true]
selective_rope = [false, true]
phase_bias = [false, true]
phase_full_rank = [false, true]
[mixers.dp]
key_width = [16]
steps = [2, 3]
[mixers.gdp]
key_width = [16]
selective_rope = [false, true]
[mixers.m2]
head_width = [32]
state_width = [16]
[mixers.lgdn]
key_width = [16]
levels = [8, 15]
selective_rope = [false, true]
[mixers.lm2]
head_width = [32]
state_width = [16]
levels = [8, 15]
[mixers.gsc]
kernel_width = [3, 4]
[mixers.kda]
key_width = [16]
[mixers.par]
head_width = [16]
window = [0, 8]
beside = ["m2", "gdn", "dn"]
branch_norms = [true, false]
beside_key_width = [16]
"#;

/// Three stages over four mixers, with a depth that not every template reaches.
const STAGED: &str = r#"
d_model = [64, 128]
depth = { min = 3, max = 14 }
ffn = ["2x", 200]
max_parameters = 2_000_000

[mixers.attn]
head_width = [32]
[mixers.swa]
head_width = [32]
window = [32, 64]
[mixers.dn]
[mixers.m2]
head_width = [32]
state_width = [16, 64]

[[stages]]
mixers = ["dn", "m2", "attn"]
repeat = { min = 1, max = 3 }
[[stages]]
ratios = ["0:1", "1:1"]
ffns_per_mixer = [1]
repeat = { min = 1, max = 2 }
[[stages]]
mixers = ["swa"]
ratios = ["0:1"]
ffns_per_mixer = [0, 2]
repeat = { min = 1, max = 1 }
"#;

fn config(text: &str) -> SpaceConfig {
    toml::from_str(text).expect("the TOML of this test is a space section")
}

fn space(text: &str) -> Space {
    Space::new(&config(text)).expect("the space of this test is possible")
}

fn error(text: &str) -> SpaceError {
    Space::new(&config(text)).expect_err("the space of this test is impossible")
}

/// Number of single edits (a changed, inserted or removed layer) from one list of layers to another.
fn edits(a: &Architecture, b: &Architecture) -> usize {
    let (a, b) = (a.layers(), b.layers());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut diagonal = std::mem::replace(&mut row[0], i);
        for j in 1..=b.len() {
            let substituted = diagonal + usize::from(a[i - 1] != b[j - 1]);
            diagonal = row[j];
            row[j] = substituted.min(row[j] + 1).min(row[j - 1] + 1);
        }
    }
    row[b.len()]
}

#[test]
fn samples_of_the_whole_space_reach_every_mixer_and_option() {
    let space = space(EVERYTHING);
    let rng = &mut ChaCha8Rng::seed_from_u64(1);
    let texts: Vec<String> = (0..400).map(|_| space.sample(rng).to_string()).collect();
    let all = texts.join("\n");
    for kind in search::architecture::MixerKind::ALL {
        let name = kind.name();
        let found = [" ", "*"].iter().any(|before| all.contains(&format!("{before}{name}(")));
        assert!(found, "{name}");
    }
    for option in
        ["qknorm", "srope", ",vg=2", ",neg", ",noconv", ",nogate", ",gate", ",n=3", ",l=8"]
    {
        assert!(all.contains(option), "{option}");
    }
    for option in [
        "+moe(96,e=8,k=2)",
        "+moe(32,e=4,k=1,s=1)",
        "qknorm=whole",
        ",rot=25",
        ",rot=0",
        ",theta=1000000",
        ",post",
        "+relu2(96)",
    ] {
        assert!(all.contains(option), "{option}");
    }
    for meta in [",tied | ", ",tied,meta=5 | "] {
        assert!(all.contains(meta), "{meta}");
    }
    for alone in [" | ffn(192)", " | relu2(96)"] {
        assert!(all.contains(alone), "{alone}");
    }
}

#[test]
fn a_layer_may_be_an_ffn_alone_where_the_file_says_so() {
    let text = "d_model = [64]\ndepth = { min = 1, max = 2 }\nffn = [\"none\", 100, \"relu2 80\"]\n\
                [mixers.attn]\nhead_width = [32]\n[mixers.none]\n";
    let with_none = space(text);
    // one shape × 3 FFNs and 2 FFNs alone, at depth 1 and 2
    assert!((with_none.size() - 30.0).abs() < 1e-9);
    let neighbours = |space: &Space, from: &str| -> Vec<String> {
        let from = format!("d=64,vocab=256,tied | {from}").parse().expect("an architecture");
        let own = |n: &Architecture| n.to_string().replace("d=64,vocab=256,tied | ", "");
        let mut all: Vec<String> = space.neighbours(&from).iter().map(own).collect();
        all.sort();
        all
    };
    let of_one = |from: &str| {
        let all = neighbours(&with_none, from);
        all.into_iter().filter(|text| !text.contains(['|', '*'])).collect::<Vec<_>>()
    };
    let attention = "attn(h=2,kv=2,k=32)";
    // without an FFN the mixer stays
    assert_eq!(
        of_one(attention),
        [format!("{attention}+ffn(100)"), format!("{attention}+relu2(80)")]
    );
    assert_eq!(of_one("ffn(100)"), [format!("{attention}+ffn(100)"), "relu2(80)".to_owned()]);
    let without_none = space(&text.replace("[mixers.none]\n", ""));
    let stack: Architecture = "d=64,vocab=256,tied | ffn(100)".parse().expect("an architecture");
    assert_eq!(with_none.contains(&stack), Ok(()));
    let said = without_none.contains(&stack).expect_err("not a member").to_string();
    assert!(said.contains("layer 0") && said.contains("no mixer"), "{said}");
    let only_none = error(&text.replace("\"none\", 100, \"relu2 80\"", "\"none\""));
    assert_eq!(only_none.key, "space.mixers.none");
    let staged =
        format!("{text}[[stages]]\nrepeat = {{ min = 1, max = 2 }}\n").replace("\"none\", ", "");
    assert_eq!(error(&staged).key, "space.mixers.none");
}

#[test]
fn mixtures_of_experts_are_choices_with_their_counts() {
    let of = |ffn: &str| {
        format!(
            "d_model = [64]\ndepth = {{ min = 1, max = 1 }}\nffn = {ffn}\n[mixers.gdn]\nkey_width = [16]\n"
        )
    };
    let space =
        space(&of("[\"2x\", \"moe e=8 k=2 1x\", \"moe e=8 k=2 s=1 1x\", \"moe e=32 k=4 16\"]"));
    let names: Vec<String> = space.coordinates().into_iter().map(|of| of.name).collect();
    for name in ["share of moe", "experts", "experts per token", "shared experts"] {
        assert!(names.iter().any(|own| own == name), "{names:?}");
    }
    let stack = |ffn: &str| -> Architecture {
        format!("d=64,vocab=256,tied | gdn(h=3,k=16,v=32)+{ffn}").parse().expect("valid")
    };
    for ffn in ["ffn(128)", "moe(64,e=8,k=2)", "moe(64,e=8,k=2,s=1)", "moe(16,e=32,k=4)"] {
        assert_eq!(space.contains(&stack(ffn)), Ok(()), "{ffn}");
    }
    let said = space.contains(&stack("moe(64,e=8,k=3)")).expect_err("no member").to_string();
    assert!(said.contains("an FFN of moe e=8 k=3 64"), "{said}");
    let changes: Vec<String> =
        space.neighbours(&stack("ffn(128)")).iter().map(ToString::to_string).collect();
    assert!(changes.iter().any(|text| text.ends_with("+moe(16,e=32,k=4)")), "{changes:?}");
    // What stands between two choices takes the one with more alike.
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let near =
        space.recombine(&stack("moe(60,e=8,k=2,s=1)"), &stack("moe(60,e=8,k=2,s=1)"), &mut rng);
    assert!(space.contains(&near).is_ok());
    for (ffn, says) in [
        ("[\"moe 1x\"]", "moe 1x"),
        ("[\"moe e=8 1x\"]", "moe e=8 1x"),
        ("[\"moe e=8 k=2 x=1 1x\"]", "x=1"),
        ("[\"moe e=8 k=2 s=1 s=1 1x\"]", "s=1"),
        ("[\"relu2 e=8 1x\"]", "relu2 e=8"),
    ] {
        let error = toml::from_str::<SpaceConfig>(&of(ffn)).expect_err(ffn).to_string();
        assert!(error.contains(says), "{error}");
    }
    for (ffn, says) in [
        ("[\"moe e=8 k=9 1x\"]", "goes through 1 to 8 experts, got 9"),
        ("[\"moe e=1 k=1 1x\"]", "experts must be 2 to 1024, got 1"),
        ("[\"moe e=1024 k=1 2000\"]", "the width of all experts"),
    ] {
        let error = error(&of(ffn));
        assert!(error.key == "space.ffn" && error.message.contains(says), "{error}");
    }
}

proptest! {
    #[test]
    fn moves_stay_inside_and_move(seed in any::<u64>()) {
        for space in [space(FLAT), space(STAGED), space(EVERYTHING)] {
            let rng = &mut ChaCha8Rng::seed_from_u64(seed);
            let a = space.sample(rng);
            prop_assert_eq!(space.contains(&a), Ok(()));
            let (b, what) = space.mutate(&a, rng);
            prop_assert_eq!(space.contains(&b), Ok(()));
            prop_assert_ne!(&a, &b);
            prop_assert!(!what.is_empty());
            let child = space.recombine(&a, &b, rng);
            prop_assert_eq!(space.contains(&child), Ok(()));
            for neighbour in space.neighbours(&a) {
                prop_assert_eq!(space.contains(&neighbour), Ok(()));
                prop_assert_ne!(&a, &neighbour);
            }
        }
    }

    #[test]
    fn a_flat_mutation_changes_one_thing(seed in any::<u64>()) {
        let space = space(FLAT);
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let a = space.sample(rng);
        let (b, what) = space.mutate(&a, rng);
        if a.d_model() == b.d_model() {
            // A swap is two edits, everything else one.
            prop_assert!(edits(&a, &b) <= if what.contains("swapped") { 2 } else { 1 }, "{} from {} to {}", what, a, b);
        } else {
            prop_assert!(what.starts_with("d_model"));
            prop_assert_eq!(a.layers().len(), b.layers().len());
        }
    }

    #[test]
    fn coordinates_are_finite_and_tell_members_apart(seed in any::<u64>(), staged in any::<bool>(), meta in any::<bool>()) {
        let text = if staged { STAGED } else { FLAT };
        let space = space(&if meta { format!("meta_tokens = [0, 1, 64]\n{text}") } else { text.to_owned() });
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let a = space.sample(rng);
        let point = space.encode(&a);
        prop_assert_eq!(point.len(), space.coordinates().len());
        prop_assert!(point.iter().all(|x| x.is_finite()));
        prop_assert_eq!(&point, &space.encode(&a));
        // A swap of two layers can keep every mean; whatever else is done must show.
        let (b, what) = space.mutate(&a, rng);
        prop_assert!(what.contains("swapped") || point != space.encode(&b), "{} from {} to {}", what, a, b);
    }

    #[test]
    fn the_number_of_meta_tokens_changes_alone_and_passes_on(seed in any::<u64>(), staged in any::<bool>()) {
        // Without limits, so that every change is allowed.
        let text = if staged { STAGED } else { FLAT }.lines().filter(|line| !line.contains("parameters"));
        let text = text.collect::<Vec<_>>().join("\n");
        let space = space(&format!("meta_tokens = [0, 16, 64]\n{text}"));
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let a = space.sample(rng);
        let changed: Vec<Architecture> = (0..300)
            .map(|_| space.mutate(&a, rng))
            .filter(|(_, what)| what.starts_with("meta tokens"))
            .map(|(child, _)| child)
            .collect();
        prop_assert!(!changed.is_empty() && changed.len() < 150, "{}", changed.len());
        for child in &changed {
            prop_assert_eq!(a.layers(), child.layers());
            prop_assert_ne!(a.meta_tokens(), child.meta_tokens());
        }
        let b = std::iter::repeat_with(|| space.sample(rng)).find(|b| b.meta_tokens() != a.meta_tokens());
        let b = b.expect("there are others");
        let of_a = (0..40).filter(|_| space.recombine(&a, &b, rng).meta_tokens() == a.meta_tokens()).count();
        prop_assert!((1..40).contains(&of_a), "{}", of_a);
    }

    #[test]
    fn the_same_seed_makes_the_same_moves(seed in any::<u64>(), staged in any::<bool>()) {
        let space = space(if staged { STAGED } else { FLAT });
        let play = || {
            let rng = &mut ChaCha8Rng::seed_from_u64(seed);
            let a = space.sample(rng);
            let (b, what) = space.mutate(&a, rng);
            let c = space.recombine(&a, &b, rng);
            (a, b, what, c)
        };
        prop_assert_eq!(play(), play());
    }
}

#[test]
fn parents_outside_the_space_give_members() {
    for space in [space(FLAT), space(STAGED)] {
        let rng = &mut ChaCha8Rng::seed_from_u64(1);
        let foreign: Architecture = "d=100,vocab=300 | 9*attn(h=5,kv=5,k=20)+ffn(333) | ffn(20)"
            .parse()
            .expect("an architecture");
        assert!(space.contains(&foreign).is_err());
        for _ in 0..50 {
            let (child, _) = space.mutate(&foreign, rng);
            assert_eq!(space.contains(&child), Ok(()));
            assert_eq!(space.encode(&foreign).len(), space.coordinates().len());
            let sample = space.sample(rng);
            assert_eq!(space.contains(&space.recombine(&sample, &foreign, rng)), Ok(()));
        }
    }
}

#[test]
fn a_template_expands_to_a_list_of_layers() {
    let space = space(
        "d_model = [64]\nffn = [100]\n[mixers.dn]\nkey_width = [32]\n[mixers.m2]\nhead_width = [32]\nstate_width = [16]\n\
         [[stages]]\nratios = [\"1:2\"]\nffns_per_mixer = [2]\nrepeat = { min = 2, max = 2 }\n\
         [[stages]]\nmixers = [\"m2\"]\nratios = [\"0:1\"]\nffns_per_mixer = [0]\nrepeat = { min = 1, max = 3 }\n",
    );
    // first stage dn:m2 or m2:dn; second stage 1, 2 or 3 repeats
    let members = space.enumerate(6).expect("six members");
    assert_eq!(members.len(), 6);
    let block = "dn(h=2,k=32,v=32)+ffn(100) | ffn(100) | m2(h=4,p=32,n=16)+ffn(100) | ffn(100) | m2(h=4,p=32,n=16)+ffn(100) | ffn(100)";
    let expected = format!("d=64,vocab=256,tied | {block} | {block} | 2*m2(h=4,p=32,n=16)");
    assert!(members.iter().any(|member| member.to_string() == expected), "{members:#?}");
    assert_eq!(space.enumerate(5), None);
}

#[test]
fn every_member_of_a_small_space_is_reached_by_single_genes() {
    let flat = "meta_tokens = [3, 0]\nd_model = [64, 96]\ndepth = { min = 1, max = 2 }\nffn = [\"none\", \"2x\"]\n[mixers.dn]\n[mixers.m2]\nhead_width = [64]\nstate_width = [16]\n";
    let staged = "meta_tokens = [0, 16, 64]\nd_model = [64]\ndepth = { min = 3, max = 9 }\n[mixers.dn]\n[mixers.m2]\nhead_width = [64]\n[mixers.attn]\nhead_width = [32]\n\
         [[stages]]\nmixers = [\"dn\", \"m2\"]\nrepeat = { min = 1, max = 2 }\n\
         [[stages]]\nratios = [\"0:1\", \"1:1\"]\nffns_per_mixer = [0, 2]\nrepeat = { min = 1, max = 1 }\n";
    let alone = "d_model = [64, 96]\ndepth = { min = 1, max = 2 }\nffn = [\"none\", \"2x\", \"relu2 3x\"]\n[mixers.none]\n[mixers.dn]\n";
    for space in [space(flat), space(staged), space(alone)] {
        let members = space.enumerate(1 << 20).expect("a small space");
        let mut reached = std::collections::HashSet::from([members[0].clone()]);
        let mut new = vec![members[0].clone()];
        while let Some(member) = new.pop() {
            assert_eq!(space.contains(&member), Ok(()));
            new.extend(space.neighbours(&member).into_iter().filter(|n| reached.insert(n.clone())));
        }
        assert_eq!(reached.len(), members.len());
        assert!(members.len() as f64 <= space.size());
    }
}

#[test]
fn tight_limits_are_met() {
    let text = FLAT.replace("900_000", "101_000");
    let space = space(&text);
    let rng = &mut ChaCha8Rng::seed_from_u64(2);
    for _ in 0..50 {
        assert!((100_000..=101_000).contains(&parameters(&space.sample(rng))));
    }
}

#[test]
fn a_space_of_one_architecture_gives_that_one() {
    let space =
        space("d_model = [64]\ndepth = { min = 2, max = 2 }\n[mixers.attn]\nhead_width = [32]\n");
    assert!((space.size() - 1.0).abs() < 1e-9);
    let rng = &mut ChaCha8Rng::seed_from_u64(3);
    let only = space.sample(rng);
    assert_eq!(only.to_string(), "d=64,vocab=256,tied | 2*attn(h=2,kv=2,k=32)+ffn(192)");
    assert_eq!(space.mutate(&only, rng).0, only);
    assert_eq!(space.recombine(&only, &only, rng), only);
    assert_eq!(space.neighbours(&only), []);
}

#[test]
fn neighbours_of_a_small_space_are_all_one_gene_changes() {
    let space = space(
        "d_model = [64]\ndepth = { min = 1, max = 2 }\nffn = [\"none\", 100]\n\
         [mixers.attn]\nhead_width = [32]\n[mixers.swa]\nhead_width = [32]\nwindow = [8, 16]\n",
    );
    let from = "d=64,vocab=256,tied | swa(h=2,kv=2,k=32,w=8)".parse().expect("an architecture");
    let mut got: Vec<String> = space
        .neighbours(&from)
        .iter()
        .map(|n| n.to_string().replace("d=64,vocab=256,tied | ", ""))
        .collect();
    got.sort();
    let expected = [
        "2*swa(h=2,kv=2,k=32,w=8)",
        "attn(h=2,kv=2,k=32)",
        "attn(h=2,kv=2,k=32) | swa(h=2,kv=2,k=32,w=8)",
        "swa(h=2,kv=2,k=32,w=16)",
        "swa(h=2,kv=2,k=32,w=8) | attn(h=2,kv=2,k=32)",
        "swa(h=2,kv=2,k=32,w=8)+ffn(100)",
    ];
    assert_eq!(got, expected);
    // 3 shapes × 2 FFNs, at depth 1 and 2
    assert!((space.size() - 42.0).abs() < 1e-9);
}

#[test]
fn violations_say_what_is_not_a_choice() {
    let space = space(FLAT);
    let message = |text: &str| {
        let architecture = text.parse().expect("an architecture");
        space.contains(&architecture).expect_err("not a member").to_string()
    };
    assert_eq!(
        message("d=64,vocab=300,tied | ffn(8)"),
        "vocab = 300 is not a choice of this space"
    );
    assert_eq!(
        message("d=80,vocab=256,tied | ffn(8)"),
        "d_model = 80 is not a choice of this space"
    );
    assert_eq!(
        message("d=64,vocab=256,tied | ffn(8)"),
        "a depth of 1 is not a choice of this space"
    );
    assert_eq!(
        message("d=64,vocab=256,tied | 2*attn(h=2,kv=2,k=32)+ffn(201)"),
        "layer 0: an FFN of 201 is not a choice of this space"
    );
    assert_eq!(
        message("d=64,vocab=256,tied | 2*attn(h=2,kv=2,k=32)"),
        "49344 parameters are outside the limits of this space (100000 to 900000)"
    );
}

#[test]
fn impossible_spaces_name_their_key() {
    let cases = [
        ("[64, 96, 128]", "[]", "space.d_model"),
        ("[64, 96, 128]", "[64, 96, 64]", "space.d_model"),
        ("[64, 96, 128]", "[0]", "space.d_model"),
        ("min = 2, max = 5", "min = 5, max = 2", "space.depth"),
        ("min = 2, max = 5", "min = 0, max = 2", "space.depth"),
        ("depth = { min = 2, max = 5 }", "", "space.depth"),
        ("\"none\", \"2x\", \"3x\", 200", "", "space.ffn"),
        ("heads = [2, 4]", "heads = [2, 5]", "space.mixers.swa.heads"),
        ("heads = [2, 4]", "heads = [3]", "space.mixers.swa.heads"),
        ("heads = [2, 4]", "heads = []", "space.mixers.swa.heads"),
        ("heads = [2, 4]", "heads = \"auto\"", "space.mixers.swa.heads"),
        ("kv_heads = [1, 2]", "kv_heads = [3]", "space.mixers.swa.kv_heads"),
        (
            "[mixers.attn]\nhead_width = [32]",
            "[mixers.attn]\nhead_width = [31]",
            "space.mixers.attn.head_width",
        ),
        ("window = [32, 64, 128]", "window = []", "space.mixers.swa.window"),
        ("state_width = [16, 64]", "state_width = [0]", "space.mixers.m2.state_width"),
        ("900_000", "10_000", "space.min_parameters"),
        (
            "min_parameters = 100_000",
            "min_parameters = 100_000\nvocab = 20_000",
            "space.max_parameters",
        ),
        (
            "max_parameters = 900_000\nmin_parameters = 100_000",
            "min_parameters = 900_000_000",
            "space.min_parameters",
        ),
    ];
    for (good, bad, key) in cases {
        assert!(FLAT.contains(good), "{good}");
        let error = error(&FLAT.replacen(good, bad, 1));
        assert_eq!(error.key, key, "{good} → {bad}: {error}");
        assert!(error.message.len() > 15, "{error}");
    }
    let none =
        FLAT.split("[mixers.attn]").next().expect("the first part").to_owned() + "[mixers]\n";
    assert_eq!(error(&none).key, "space.mixers");
}

/// The space of `text` without the choices that `refuses` names.
fn without(
    text: &str,
    refuses: impl Fn(&Architecture) -> Option<&'static str>,
) -> Result<(Space, Vec<String>), SpaceError> {
    let config: SpaceConfig = toml::from_str(text).expect("a space");
    let probes = Space::new(&config).expect("it is possible").probes();
    let refused: Vec<(Architecture, String)> = probes
        .into_iter()
        .filter_map(|probe| refuses(&probe).map(|reason| (probe.clone(), reason.to_owned())))
        .collect();
    let (space, left_out) = Space::without(&config, &refused)?;
    Ok((
        space,
        left_out.into_iter().map(|left| format!("{}: {}", left.what, left.reason)).collect(),
    ))
}

#[test]
fn what_cannot_be_computed_is_never_proposed() {
    let refuses = |probe: &Architecture| {
        let text = probe.to_string();
        if text.contains("lgdn") || text.contains("lm2") {
            Some("log-linear")
        } else if text.contains("attn(") && text.contains("k=24") {
            Some("width")
        } else if probe.meta_tokens() > 0 {
            Some("meta")
        } else if text.contains("swa(") && text.contains("w=32") && text.contains("srope") {
            Some("both")
        } else {
            None
        }
    };
    let (space, said) = without(EVERYTHING, refuses).unwrap();
    let expected = [
        "attn head_width 24: width",
        "1 of 4 shapes of swa: both",
        "lgdn: log-linear",
        "lm2: log-linear",
        "meta_tokens 5: meta",
    ];
    assert_eq!(said.len(), expected.len(), "{said:?}");
    for (said, expected) in said.iter().zip(expected) {
        let (count, rest) = (said.split(" of ").nth(1), expected.split(" of ").nth(1));
        assert!(said == expected || (count.is_some() && rest.is_some()), "{said}, not {expected}");
    }
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut stack = space.sample(&mut rng);
    for _ in 0..300 {
        let (child, _) = space.mutate(&stack, &mut rng);
        let other = space.sample(&mut rng);
        for member in [&child, &other, &space.recombine(&child, &other, &mut rng)] {
            space.contains(member).unwrap();
            let text = member.to_string();
            assert!(!text.contains("lgdn") && !text.contains("lm2"), "{text}");
            assert!(
                !text.contains("attn(") || !text.contains("k=24") || text.contains("swa("),
                "{text}"
            );
            assert_eq!(member.meta_tokens(), 0);
        }
        stack = child;
    }
}

#[test]
fn a_width_at_which_nothing_can_be_computed_is_left_out() {
    let at_96 = |probe: &Architecture| (probe.d_model() == 96).then_some("a multiple of 64");
    let (space, said) = without(FLAT, at_96).unwrap();
    assert_eq!(said, ["d_model 96: a multiple of 64"]);
    assert_eq!(space.d_model(), [64, 128]);
}

#[test]
fn where_nothing_is_left_the_key_is_named() {
    let error = without(FLAT, |_| Some("no kernels")).unwrap_err();
    assert_eq!(error.key, "space.mixers");
    assert_eq!(error.message, "nothing of it can be computed there: no kernels");
    let only_at = |probe: &Architecture| {
        (probe.d_model() == 96 && probe.to_string().contains("m2(")).then_some("no kernels")
    };
    let error = without(FLAT, only_at).unwrap_err();
    assert_eq!(error.key, "space.mixers.m2");
    assert!(
        error.message.contains("no choice can be computed at d_model = 96, no kernels"),
        "{error}"
    );
    let ffns = |probe: &Architecture| probe.layers()[0].mixer.is_none().then_some("too wide");
    let (_, said) = without(FLAT, ffns).unwrap();
    assert_eq!(said.len(), 3, "{said:?}");
    let without_none = FLAT.replace("\"none\", ", "");
    assert_eq!(without(&without_none, ffns).unwrap_err().key, "space.ffn");
}
