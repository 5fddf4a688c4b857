//! Drawings of stacks, and their folding.

use std::collections::BTreeSet;

use proptest::prelude::*;
use search::architecture::{Ffn, Layer, MixerKind};
use search::references::ReferenceShape;
use tui::drawing::{fold, to_text};
use tui::theme::{FFN_SIGN, mixer_sign};

use crate::sample::parse;

#[test]
fn drawings() {
    let stacks = [
        ("one", "gdn(h=3,k=64,v=128)+ffn(768)"),
        ("runs", "3*gdn(h=3,k=64,v=128)+ffn(768) | swa(h=4,kv=2,k=64,w=128,qknorm)+ffn(512)"),
        (
            "alternating",
            &"swa(h=4,kv=4,k=64,w=128)+ffn(768) | attn(h=4,kv=4,k=64)+ffn(384) | ".repeat(3),
        ),
        (
            "every_kind",
            "dn(h=2,k=32,v=32) | ffn(256) | m2(h=8,p=64,n=16) | gdn(h=1,k=63,v=100)+ffn(1) | attn(h=1,kv=1,k=2)",
        ),
        (
            "experts",
            "gdn(h=3,k=64,v=128)+moe(256,e=8,k=2,s=1) | moe(128,e=16,k=1) | 2*attn(h=4,kv=4,k=64)+ffn(768)",
        ),
    ];
    for (name, layers) in stacks {
        let architecture = parse(layers.trim_end_matches(" | "));
        for width in [30, 40, 60] {
            insta::assert_snapshot!(
                format!("{name}_{width}"),
                to_text(&architecture, 512, width, false)
            );
        }
    }
}

#[test]
fn a_long_stack_without_repetition_has_no_frames() {
    let layers: Vec<String> =
        (1..=24).map(|heads| format!("gdn(h={heads},k=64,v=128)+ffn({})", 100 * heads)).collect();
    insta::assert_snapshot!("long", to_text(&parse(&layers.join(" | ")), 512, 60, false));
}

#[test]
fn every_mixer_has_a_sign_and_a_colour_of_its_own() {
    let mut signs = BTreeSet::from([FFN_SIGN]);
    let mut colours = BTreeSet::new();
    let shape = ReferenceShape::usual(64, 1, 256, true);
    for kind in MixerKind::ALL {
        let text = to_text(&parse(&shape.mixer(kind).to_string()), 512, 60, true);
        assert!(text.contains(mixer_sign(kind)), "{kind:?}: {text}");
        assert!(signs.insert(mixer_sign(kind)), "{kind:?} has the sign of another");
        let codes = (31..=36).chain(91..=96);
        let drawn: Vec<u8> =
            codes.filter(|code| text.contains(&format!("\x1b[0;{code}m"))).collect();
        assert_eq!(drawn.len(), 1, "{kind:?} is drawn in one colour: {text}");
        assert!(colours.insert(drawn[0]), "{kind:?} has the colour of another: {text}");
    }
}

fn unfold(layers: &[Layer]) -> Vec<Layer> {
    let blocks = fold(layers);
    let mut all = Vec::new();
    let mut at = 0;
    while at < blocks.len() {
        let (length, times) = blocks[at].group.map_or((1, 1), |group| (group.length, group.times));
        for _ in 0..times {
            for block in &blocks[at..at + length] {
                all.extend(std::iter::repeat_n(block.layer.clone(), block.count));
            }
        }
        at += length;
    }
    all
}

proptest! {
    #[test]
    fn folding_loses_nothing(choice in prop::collection::vec(0u32..3, 1..40)) {
        let layers: Vec<Layer> = choice.iter().map(|&i| Layer { mixer: None, ffn: Some(Ffn::swiglu(i + 1)) }).collect();
        prop_assert_eq!(unfold(&layers), layers);
    }
}

#[test]
fn repetitions_are_found() {
    let count = |layers: &str| fold(parse(layers.trim_end_matches(" | ")).layers()).len();
    assert_eq!(count("7*ffn(1)"), 1);
    assert_eq!(count(&"ffn(1) | ffn(2) | ".repeat(5)), 2);
    assert_eq!(count(&"2*ffn(1) | ffn(2) | ffn(3) | ".repeat(4)), 3);
    assert_eq!(count(&("ffn(9) | ".to_owned() + &"ffn(1) | ffn(2) | ".repeat(2) + "ffn(3)")), 4);
}
