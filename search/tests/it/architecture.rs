//! The architecture: its text and its JSON read back, its identity is its text's, wrong ones are refused where they
//! are wrong.

use std::collections::BTreeSet;

use proptest::prelude::*;
use search::Architecture;
use search::architecture::{ArchitectureError, Delta, Layer, Mixer, MixerKind};
use search::references::ReferenceShape;

use crate::strategies;

proptest! {
    #[test]
    fn the_text_reads_back(architecture in strategies::architecture()) {
        let text = architecture.to_string();
        prop_assert_eq!(text.parse::<Architecture>(), Ok(architecture));
    }

    #[test]
    fn the_json_and_the_toml_read_back(architecture in strategies::architecture()) {
        let json = serde_json::to_string(&architecture).expect("an architecture is JSON");
        prop_assert_eq!(&serde_json::from_str::<Architecture>(&json).expect("its own JSON"), &architecture);
        let toml = toml::to_string(&architecture).expect("an architecture is TOML");
        prop_assert_eq!(&toml::from_str::<Architecture>(&toml).expect("its own TOML"), &architecture);
    }

    #[test]
    fn a_layer_reads_back(layer in strategies::layer()) {
        prop_assert_eq!(layer.to_string().parse::<Layer>(), Ok(layer));
    }

    #[test]
    fn equal_architectures_and_only_they_have_equal_ids(a in strategies::architecture(), b in strategies::architecture()) {
        let again: Architecture = a.to_string().parse().expect("its own text");
        prop_assert_eq!(a.id(), again.id());
        prop_assert_eq!(a == b, a.id() == b.id());
        prop_assert_eq!(a.id().as_str().len(), 16);
    }

    #[test]
    fn any_cut_of_a_text_is_refused_or_is_an_architecture(architecture in strategies::architecture(), cut in any::<prop::sample::Index>()) {
        let text = architecture.to_string();
        let cut = &text[..cut.index(text.len())];
        match cut.parse::<Architecture>() {
            Ok(shorter) => prop_assert!(shorter.to_string().len() <= text.len()),
            Err(ArchitectureError::Text { at, .. }) => prop_assert!(at <= cut.len()),
            // A number cut short may be too small.
            Err(ArchitectureError::Model(_) | ArchitectureError::Layer { .. }) => {}
        }
    }

    #[test]
    fn nothing_makes_the_parser_panic(text in ".{0,60}") {
        prop_assert!(text.parse::<Architecture>().is_err());
    }
}

#[test]
fn one_architecture_has_one_text() {
    let spelled =
        "d=8,vocab=9 | dn(h=1,k=2,v=3) | 1*dn(h=1,k=2,v=3) | 2*dn(h=1,k=2,v=3)+ffn(4) | ffn(5)";
    let architecture: Architecture = spelled.parse().expect("an architecture");
    let canonical = "d=8,vocab=9 | 2*dn(h=1,k=2,v=3) | 2*dn(h=1,k=2,v=3)+ffn(4) | ffn(5)";
    assert_eq!(architecture.to_string(), canonical);
    let canonical: Architecture = canonical.parse().expect("an architecture");
    assert_eq!(architecture.id(), canonical.id());
}

/// Databases keep these: a change makes every stored campaign unreadable.
#[test]
fn ids_do_not_change() {
    let id = |text: &str| text.parse::<Architecture>().expect("an architecture").id().to_string();
    assert_eq!(
        id(
            "d=256,vocab=256,tied | 2*gdn(h=3,k=64,v=128)+ffn(768) | swa(h=4,kv=2,k=64,w=128)+ffn(768)"
        ),
        "c27ff230b9b30285"
    );
    assert_eq!(
        id(
            "d=64,vocab=1000 | attn(h=2,kv=1,k=32,qknorm) | m2(h=4,p=32,n=64) | dn(h=2,k=32,v=32) | ffn(8)"
        ),
        "5b11482646215f72"
    );
}

#[test]
fn wrong_texts_are_refused_where_they_are_wrong() {
    // (text, position of the fault, part of the message)
    let cases = [
        ("", 0, "expected `d=`, got the end"),
        ("D=8", 0, "expected `d=`"),
        ("d=,vocab=9 | ffn(1)", 2, "expected a number"),
        ("d=-8,vocab=9 | ffn(1)", 2, "expected a number"),
        ("d=99999999999,vocab=9 | ffn(1)", 2, "expected a number"),
        ("d=8 | ffn(1)", 3, "expected `,vocab=`"),
        ("d=8,vocab=9|ffn(1)", 11, "expected ` | `"),
        (
            "d=8,vocab=9 | ",
            14,
            "expected a layer (one of attn, swa, dn, gdn, dp, gdp, m2, lgdn, lm2, gsc, kda, par, ffn)",
        ),
        ("d=8,vocab=9 | rwkv(h=1)", 14, "expected a layer"),
        ("d=8,vocab=9 | 0*ffn(1)", 14, "1 to 4096 layers, got 0"),
        ("d=8,vocab=9 | 5000*ffn(1)", 14, "1 to 4096 layers, got 5000"),
        ("d=8,vocab=9 | 2ffn(1)", 15, "expected `*`"),
        ("d=8,vocab=9 | ffn(1", 19, "expected `)`, got the end"),
        ("d=8,vocab=9 | dn(k=1,h=1,v=1)", 17, "expected `h`"),
        ("d=8,vocab=9 | dn(h=1,k=1)", 24, "expected `,v`"),
        ("d=8,vocab=9 | dn(h=1,k=1,v=1,nogate)", 28, "expected `)`"),
        ("d=8,vocab=9 | gdn(h=1,k=1,v=1,noconv,neg)", 36, "expected `)`"),
        ("d=8,vocab=9 | gdp(h=1,k=1,v=1,noconv)", 31, "expected `=`"),
        ("d=8,vocab=9 | swa(h=1,kv=1,k=2)", 30, "expected `,w`"),
        ("d=8,vocab=9 | attn(h=1,kv=1,k=2,w=3)", 31, "expected `)`"),
        ("d=8,vocab=9 | ffn(1) ", 20, "expected ` | `"),
        ("d=8,vocab=9 | dn(h=1,k=1,v=1)+ffn(1)+ffn(1)", 36, "expected ` | `"),
    ];
    for (text, at, message) in cases {
        let error = text.parse::<Architecture>().expect_err(text);
        let shown = error.to_string();
        assert!(shown.contains(message), "{text}: {shown}");
        let ArchitectureError::Text { at: got, .. } = error else { panic!("{text}: {shown}") };
        assert_eq!(got, at, "{text}: {shown}");
    }
}

#[test]
fn impossible_architectures_name_their_layer() {
    let cases = [
        ("d=0,vocab=9 | ffn(1)", "d_model must be 1 to 1048576, got 0"),
        ("d=8,vocab=1048577 | ffn(1)", "vocab must be 1 to 1048576, got 1048577"),
        ("d=8,vocab=9", "1 to 4096 layers, got 0"),
        ("d=8,vocab=9 | 3000*ffn(1) | 3000*ffn(2)", "1 to 4096 layers, got 6000"),
        ("d=8,vocab=9 | ffn(1) | ffn(0)", "layer 1: ffn: width must be 1 to 1048576, got 0"),
        (
            "d=8,vocab=9 | attn(h=4,kv=3,k=2)",
            "layer 0: attn: kv_heads must divide heads, got 4 heads and 3 kv_heads",
        ),
        ("d=8,vocab=9 | 2*swa(h=4,kv=4,k=3,w=1)", "layer 0: swa: head_width must be even"),
        ("d=8,vocab=9 | swa(h=4,kv=4,k=2,w=0)", "layer 0: swa: window must be 1"),
        ("d=8,vocab=9 | attn(h=4,kv=0,k=2)", "layer 0: attn: kv_heads must be 1"),
        ("d=8,vocab=9 | gdn(h=1,k=0,v=1)", "layer 0: gdn: key_width must be 1"),
        ("d=8,vocab=9 | m2(h=1,p=1,n=0)", "layer 0: m2: state_width must be 1"),
    ];
    for (text, message) in cases {
        let error = text.parse::<Architecture>().expect_err(text).to_string();
        assert!(error.contains(message), "{text}: {error}");
    }
    let json = r#"{"d_model":8,"vocab":9,"tied_embeddings":false,"layers":[{}]}"#;
    let error = serde_json::from_str::<Architecture>(json).expect_err("an empty layer").to_string();
    assert!(error.contains("layer 0: empty: a layer needs a mixer"), "{error}");
    let json = r#"{"d_model":8,"vocab":9,"tied_embeddings":false,"layers":[],"depth":3}"#;
    assert!(
        serde_json::from_str::<Architecture>(json)
            .expect_err("an unknown key")
            .to_string()
            .contains("`depth`")
    );
}

#[test]
fn every_kind_of_mixer_has_a_row_of_its_own() {
    let mut seen = BTreeSet::new();
    for kind in MixerKind::ALL {
        let row = kind.row();
        assert_eq!(row.kind, kind);
        assert_eq!(serde_json::to_value(kind).expect("a name"), row.name);
        assert!(
            seen.insert(row.name.to_owned()) && seen.insert(row.title.to_owned()),
            "{}",
            row.name
        );
        assert!(seen.insert(row.sign.to_string()), "{} has the sign of another", row.name);
        assert!(seen.insert(format!("{:?}", row.colour)), "{} has the colour of another", row.name);
        let names: BTreeSet<&str> = row.genes.iter().map(|gene| gene.name).collect();
        assert_eq!(names.len(), row.genes.len(), "{}", row.name);
        let shape = ReferenceShape::usual(64, 1, 256, true);
        assert_eq!(shape.mixer(kind).kind(), kind);
    }
}

/// Only what the names say can be written, so nothing else may be built.
#[test]
fn levels_need_a_decay_and_one_step() {
    let gated = Delta { levels: Some(8), ..Delta::gated(2, 4, 8) };
    let stack = |mixer| {
        let layer = Layer { mixer: Some(Mixer::Delta(mixer)), ffn: None };
        Architecture::new(8, 9, true, vec![layer])
    };
    assert!(stack(gated).is_ok());
    for wrong in [Delta { decay: false, ..gated }, Delta { steps: Some(2), ..gated }] {
        let error = stack(wrong).expect_err("no such mixer").to_string();
        assert_eq!(error, "layer 0: lgdn: levels are of a mixer with a decay and one step");
    }
}
