//! The list of tensors and the formula for their number.

use std::collections::HashSet;

use proptest::prelude::*;
use search::tensors::{Role, parameters, tensors};

use crate::strategies;

proptest! {
    #[test]
    fn the_formula_is_the_sum_of_the_tensors(architecture in strategies::architecture()) {
        let sum: u64 = tensors(&architecture).iter().map(search::tensors::TensorSpec::elements).sum();
        prop_assert_eq!(parameters(&architecture), sum);
    }

    #[test]
    fn names_are_unique_and_sizes_positive(architecture in strategies::architecture()) {
        let list = tensors(&architecture);
        let names: HashSet<&str> = list.iter().map(|t| t.name.as_str()).collect();
        prop_assert_eq!(names.len(), list.len());
        prop_assert!(list.iter().all(|t| t.elements() > 0));
    }
}

fn listing(text: &str) -> Vec<String> {
    let architecture = text.parse().expect("the text of this test is an architecture");
    tensors(&architecture)
        .iter()
        .map(|t| format!("{} {:?} {:?}", t.name, t.shape, t.role))
        .collect()
}

#[test]
fn every_mixer_has_the_tensors_of_its_definition() {
    let got = listing(
        "d=10,vocab=7 | attn(h=4,kv=2,k=6,qknorm)+ffn(11) | dn(h=2,k=3,v=5) | gdn(h=2,k=3,v=5) | m2(h=2,p=3,n=5) | gsc(c=6,k=3) | kda(h=2,k=3,v=5) | par(h=2,kv=1,k=4,qknorm,bh=2,bk=5,bv=3)",
    );
    let expected = "\
embedding.weight [7, 10] Embedding
layers.0.mixer_norm.weight [10] NormWeight
layers.0.mixer.q.weight [24, 10] Reader
layers.0.mixer.k.weight [12, 10] Reader
layers.0.mixer.v.weight [12, 10] Reader
layers.0.mixer.q_norm.weight [6] NormWeight
layers.0.mixer.k_norm.weight [6] NormWeight
layers.0.mixer.o.weight [10, 24] Writer
layers.0.ffn_norm.weight [10] NormWeight
layers.0.ffn.gate.weight [11, 10] Reader
layers.0.ffn.up.weight [11, 10] Reader
layers.0.ffn.down.weight [10, 11] Writer
layers.1.mixer_norm.weight [10] NormWeight
layers.1.mixer.q.weight [6, 10] Reader
layers.1.mixer.k.weight [6, 10] Reader
layers.1.mixer.v.weight [10, 10] Reader
layers.1.mixer.b.weight [2, 10] Reader
layers.1.mixer.q_conv.weight [6, 4] ConvWeight
layers.1.mixer.k_conv.weight [6, 4] ConvWeight
layers.1.mixer.v_conv.weight [10, 4] ConvWeight
layers.1.mixer.norm.weight [5] NormWeight
layers.1.mixer.o.weight [10, 10] Writer
layers.2.mixer_norm.weight [10] NormWeight
layers.2.mixer.q.weight [6, 10] Reader
layers.2.mixer.k.weight [6, 10] Reader
layers.2.mixer.v.weight [10, 10] Reader
layers.2.mixer.b.weight [2, 10] Reader
layers.2.mixer.a.weight [2, 10] Reader
layers.2.mixer.g.weight [10, 10] Reader
layers.2.mixer.A_log [2] ALog
layers.2.mixer.dt_bias [2] DtBias
layers.2.mixer.q_conv.weight [6, 4] ConvWeight
layers.2.mixer.k_conv.weight [6, 4] ConvWeight
layers.2.mixer.v_conv.weight [10, 4] ConvWeight
layers.2.mixer.norm.weight [5] NormWeight
layers.2.mixer.o.weight [10, 10] Writer
layers.3.mixer_norm.weight [10] NormWeight
layers.3.mixer.in.weight [24, 10] Reader
layers.3.mixer.conv.weight [16, 4] ConvWeight
layers.3.mixer.conv.bias [16] ConvBias
layers.3.mixer.A_log [2] ALog
layers.3.mixer.dt_bias [2] DtBias
layers.3.mixer.D [2] SkipD
layers.3.mixer.norm.weight [6] NormWeight
layers.3.mixer.out.weight [10, 6] Writer
layers.4.mixer_norm.weight [10] NormWeight
layers.4.mixer.in.weight [18, 10] Reader
layers.4.mixer.conv.weight [6, 3] ConvWeight
layers.4.mixer.out.weight [10, 6] Writer
layers.5.mixer_norm.weight [10] NormWeight
layers.5.mixer.q.weight [6, 10] Reader
layers.5.mixer.k.weight [6, 10] Reader
layers.5.mixer.v.weight [10, 10] Reader
layers.5.mixer.b.weight [2, 10] Reader
layers.5.mixer.f_a.weight [5, 10] Reader
layers.5.mixer.f_b.weight [6, 5] Inner
layers.5.mixer.g_a.weight [5, 10] Reader
layers.5.mixer.g_b.weight [10, 5] Inner
layers.5.mixer.A_log [2] ALog
layers.5.mixer.dt_bias [6] DtBias
layers.5.mixer.q_conv.weight [6, 4] ConvWeight
layers.5.mixer.k_conv.weight [6, 4] ConvWeight
layers.5.mixer.v_conv.weight [10, 4] ConvWeight
layers.5.mixer.norm.weight [5] NormWeight
layers.5.mixer.o.weight [10, 10] Writer
layers.6.mixer_norm.weight [10] NormWeight
layers.6.mixer.attention.q.weight [8, 10] Reader
layers.6.mixer.attention.k.weight [4, 10] Reader
layers.6.mixer.attention.v.weight [4, 10] Reader
layers.6.mixer.attention.q_norm.weight [4] NormWeight
layers.6.mixer.attention.k_norm.weight [4] NormWeight
layers.6.mixer.attention.o.weight [10, 8] Writer
layers.6.mixer.beside.in.weight [24, 10] Reader
layers.6.mixer.beside.conv.weight [16, 4] ConvWeight
layers.6.mixer.beside.conv.bias [16] ConvBias
layers.6.mixer.beside.A_log [2] ALog
layers.6.mixer.beside.dt_bias [2] DtBias
layers.6.mixer.beside.D [2] SkipD
layers.6.mixer.beside.norm.weight [6] NormWeight
layers.6.mixer.beside.out.weight [10, 6] Writer
layers.6.mixer.attention_norm.weight [10] NormWeight
layers.6.mixer.beside_norm.weight [10] NormWeight
final_norm.weight [10] NormWeight
head.weight [7, 10] Head";
    assert_eq!(got.join("\n"), expected);
}

#[test]
fn tied_models_have_no_head() {
    let tied = "d=10,vocab=7,tied | ffn(3)".parse().expect("an architecture");
    assert!(tensors(&tied).iter().all(|t| t.role != Role::Head));
    assert_eq!(parameters(&tied), 7 * 10 + 10 + 3 * 3 * 10 + 10);
}
