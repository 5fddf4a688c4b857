//! Which mixers and FFNs train by plain torch operators though others have kernels: several times slower, and worth saying once.

use kernels::cuda::Extent;
use kernels::cuda::chunked::{Chunked, Rule, Shape, check_widths, kda};
use search::architecture::{Ffn, Mixer};
use tch::Device;

use crate::gpu;
use crate::precision::Precision;

/// By which slower way a mixer is trained on a device, its products in `precision`; none where kernels of its own do the
/// work, as all have on a CPU.
pub fn slow_way(mixer: &Mixer, device: Device, precision: Precision) -> Option<String> {
    match device {
        Device::Cuda(ordinal) => on_gpu(mixer, gpu::extent_of(ordinal), precision),
        _ => None,
    }
}

/// The same on a GPU that offers so much; none: it is not known.
fn on_gpu(mixer: &Mixer, extent: Option<Extent>, precision: Precision) -> Option<String> {
    let title = mixer.kind().title();
    if mixer.levels().is_some() {
        return Some(format!(
            "{title} has no training kernels for GPUs yet and trains by torch operators, several times slower"
        ));
    }
    let State { rule, key_width, value_width } = state(mixer)?;
    let wide = precision == Precision::F32;
    // The fewest positions and heads there are: what is refused of these is refused of more.
    let (batch, tokens, heads) = (1, 1, 1);
    let result = match (extent, rule) {
        (None, _) => check_widths(key_width, value_width),
        (Some(extent), None) => {
            let shape = kda::Shape { batch, tokens, heads, key_width, value_width, wide };
            kda::Kda::training(shape, 1.0, extent).map(drop)
        }
        (Some(extent), Some(rule)) => {
            let key_heads = heads;
            let shape = Shape { batch, tokens, heads, key_heads, key_width, value_width, wide };
            Chunked::new(rule, shape, 1.0, extent).map(drop)
        }
    };
    let error = result.err()?;
    Some(format!("{title} trains by torch operators on a GPU, several times slower: {error}"))
}

/// A recurrence's state `[K, V]` and the rule that changes it.
struct State {
    /// None: that of Kimi Delta Attention, which has kernels of its own.
    rule: Option<Rule>,
    key_width: usize,
    value_width: usize,
}

fn state(mixer: &Mixer) -> Option<State> {
    let (rule, key_width, value_width) = match mixer {
        Mixer::Delta(gene) => (Some(Rule::Delta), gene.key_width, gene.value_width),
        Mixer::Kda(gene) => (None, gene.key_width, gene.value_width),
        Mixer::Mamba2(gene) => (Some(Rule::LinearAttention), gene.state_width, gene.head_width),
        Mixer::Parallel(gene) => return state(&gene.side().into()),
        _ => return None,
    };
    Some(State { rule, key_width: key_width as usize, value_width: value_width as usize })
}

/// By which slower way a feed-forward network is trained on a device; none where kernels of its own do the work.
pub fn slow_ffn(ffn: Ffn, device: Device) -> Option<String> {
    let is_slow = ffn.kind.experts().is_some() && device != Device::Cpu;
    is_slow.then(|| {
        format!(
            "a {} has no training kernels for GPUs yet: its experts are started one after the other, and no step is recorded",
            ffn.kind.title()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mixer(text: &str) -> Mixer {
        let stack: search::Architecture =
            format!("d=64,vocab=256 | {text}").parse().expect("a stack");
        stack.layers()[0].mixer.expect("a mixer")
    }

    #[test]
    fn what_has_no_kernels_is_named() {
        let slow = |text: &str| on_gpu(&mixer(text), None, Precision::Bf16);
        for (text, is_slow) in [
            ("gdn(h=2,k=32,v=32)", false),
            ("attn(h=2,kv=2,k=32)", false),
            ("m2(h=4,p=32,n=32)", false),
            ("kda(h=2,k=32,v=32)", false),
            ("lgdn(h=2,k=32,v=32,l=15)", true),
            ("lm2(h=4,p=32,n=16,l=15)", true),
            ("gdn(h=2,k=48,v=32)", true),
            ("m2(h=4,p=32,n=16)", true),
            ("kda(h=2,k=32,v=24)", true),
        ] {
            let on_cpu = slow_way(&mixer(text), Device::Cpu, Precision::F32);
            assert_eq!(on_cpu, None, "{text}");
            assert_eq!(slow(text).is_some(), is_slow, "{text}");
        }
        assert_eq!(
            slow("kda(h=2,k=48,v=48)").as_deref(),
            Some(
                "Kimi Delta Attention trains by torch operators on a GPU, several times slower: cuda: the key width must be 32, 64, 96 or 128, got 48"
            )
        );
    }

    #[test]
    fn what_a_gpu_has_too_little_memory_for_is_named() {
        use Precision::{Bf16, F32};
        // Shared memory of a block on cards of compute capability 8.6, 8.0 and 9.0.
        let of = |kib: u32| {
            let (multiprocessors, warps, hopper) = (80, 8, kib > 200);
            Some(Extent { multiprocessors, shared_bytes: kib << 10, warps, hopper })
        };
        for (text, precision, kib, is_slow) in [
            ("kda(h=2,k=64,v=64)", Bf16, 99, false),
            ("kda(h=2,k=128,v=128)", Bf16, 99, true),
            ("kda(h=2,k=128,v=128)", Bf16, 163, false),
            ("kda(h=2,k=128,v=128)", F32, 163, true),
            ("kda(h=2,k=128,v=128)", F32, 227, false),
            ("gdn(h=2,k=128,v=128)", F32, 227, false),
            ("m2(h=4,p=64,n=128)", Bf16, 99, false),
        ] {
            let said = on_gpu(&mixer(text), of(kib), precision);
            assert_eq!(said.is_some(), is_slow, "{text} {precision:?} {kib} KiB: {said:?}");
            assert!(said.is_none_or(|said| said.contains("shared memory of a block")));
        }
    }
}
