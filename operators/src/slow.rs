//! Which mixers and FFNs train by plain torch operators though others have kernels: several times slower, and worth saying once.

use kernels::cuda::chunked::check_widths;
use search::architecture::{Ffn, Mixer};
use tch::Device;

/// By which slower way a mixer is trained on a device; none where kernels of its own do the work, as all have on a CPU.
pub fn slow_way(mixer: &Mixer, device: Device) -> Option<String> {
    if device == Device::Cpu {
        return None;
    }
    let title = mixer.kind().title();
    if mixer.levels().is_some() {
        return Some(format!(
            "{title} has no training kernels for GPUs yet and trains by torch operators, several times slower"
        ));
    }
    let (key_width, value_width) = state_widths(mixer)?;
    let error = check_widths(key_width as usize, value_width as usize).err()?;
    Some(format!("{title} trains by torch operators on a GPU, several times slower: {error}"))
}

/// K and V of a recurrence's state.
fn state_widths(mixer: &Mixer) -> Option<(u32, u32)> {
    match mixer {
        Mixer::Delta(gene) => Some((gene.key_width, gene.value_width)),
        Mixer::Kda(gene) => Some((gene.key_width, gene.value_width)),
        Mixer::Mamba2(gene) => Some((gene.state_width, gene.head_width)),
        Mixer::Parallel(gene) => Some((gene.beside_key_width, gene.beside_value_width)),
        _ => None,
    }
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

    #[test]
    fn what_has_no_kernels_is_named() {
        let mixer = |text: &str| {
            let stack: search::Architecture =
                format!("d=64,vocab=256 | {text}").parse().expect("a stack");
            stack.layers()[0].mixer.expect("a mixer")
        };
        let slow = |text: &str, device| slow_way(&mixer(text), device);
        let gpu = Device::Cuda(0);
        for (text, on_gpu) in [
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
            assert_eq!(slow(text, Device::Cpu), None, "{text}");
            assert_eq!(slow(text, gpu).is_some(), on_gpu, "{text}");
        }
        assert_eq!(
            slow("kda(h=2,k=48,v=48)", gpu).as_deref(),
            Some(
                "Kimi Delta Attention trains by torch operators on a GPU, several times slower: cuda: the key width must be 32, 64, 96 or 128, got 48"
            )
        );
    }
}
