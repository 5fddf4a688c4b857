//! The GPU's engine against the CPU's, the same architecture and weights, run by the emulator.

use kernels::cuda::Extent;
use kernels::cuda::Source;
use kernels::cuda::decode::Storage;
use kernels::cuda::emulator::{self, Emulator};
use profiles::cuda::Rehearsal;
use profiles::cuda::stream::Decoder;
use profiles::{Engine, Weights};
use search::Architecture;

const EXTENT: Extent = Extent { multiprocessors: 2, shared_bytes: 86_000, warps: 4, hopper: false };

#[test]
fn the_gpu_decodes_as_the_cpu_does() {
    check(
        "d=64,vocab=48,tied | gdn(h=2,k=32,v=64)+ffn(96) | swa(h=2,kv=1,k=64,w=3) \
         | m2(h=2,p=32,n=32) | gsc(c=64,k=3) | ffn(64)",
    );
}

#[test]
fn the_gpu_decodes_forms_of_attention_and_channel_decays_as_the_cpu_does() {
    check(
        "d=64,vocab=48,tied | kda(h=2,k=32,v=32)+relu2(96) | attn(h=2,kv=1,k=64,qknorm,gate,rot=50) \
         | par(h=1,kv=1,k=64,gdn,bh=2,bk=32,bv=32) | attn(h=2,kv=2,k=64,qknorm=whole,post)+ffn(64)",
    );
}

#[test]
fn the_gpu_decodes_levels_and_learnt_angles_as_the_cpu_does() {
    check(
        "d=64,vocab=48,tied | lgdn(h=2,k=32,v=32,l=3) | lm2(h=2,p=32,n=32,l=9) \
         | gdn(h=2,k=32,v=32,srope,pgate,pbias) | attn(h=1,kv=1,k=64,srope,pfull,ptemp=learnt)",
    );
}

#[test]
fn the_gpu_decodes_mixtures_of_experts_as_the_cpu_does() {
    check("d=64,vocab=48,tied | dn(h=2,k=32,v=32)+moe(64,e=6,k=2,s=1) | moe(40,e=3,k=1)");
}

fn check(text: &str) {
    if !emulator::available() {
        eprintln!("SKIPPED: no g++, so the emulator cannot be built");
        return;
    }
    let architecture: Architecture = text.parse().expect("an architecture");
    let weights = Weights::random(&architecture, 3);
    let engine = Engine::new(&architecture, &weights, 1);
    let mut state = engine.state(1);
    let decoder = Decoder::pretended(&mut Rehearsal::of(EXTENT), &architecture, Storage::Bf16, 16);
    let defines = decoder.expect("it fits").launch().defines.clone();
    let mut machine = Emulator::start(Source::Decode, &defines, EXTENT, 1).expect("it builds");
    let load = &mut |name: &str, count: usize| {
        let values = weights.get(name).to_vec();
        assert_eq!(values.len(), count, "{name}");
        values
    };
    let mut decoder = Decoder::new(&mut machine, &architecture, 16, load).expect("it fits");
    for token in [5, 40, 0, 7] {
        let expected = engine.decode(&mut state, &[token]).expect("a token");
        decoder.force(&mut machine, token).expect("it answers");
        decoder.step(&mut machine).expect("it ends");
        let logits = decoder.logits(&mut machine).expect("it answers");
        let size: f32 = expected.iter().map(|x| x * x).sum::<f32>().sqrt();
        let error: f32 =
            expected.iter().zip(&logits).map(|(e, l)| (e - l).powi(2)).sum::<f32>().sqrt() / size;
        // the GPU's weights are bf16
        assert!(error < 1e-2, "token {token}: relative error {error:.1e}");
    }
}
