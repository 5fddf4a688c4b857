//! Which mixers and FFNs train by plain torch operators though others have kernels: several times slower, and worth saying once.

use search::architecture::{Ffn, Mixer};
use tch::Device;

/// By which slower way a mixer is trained on a device; none where kernels of its own do the work, as all have on a CPU.
pub fn slow_way(mixer: &Mixer, device: Device) -> Option<String> {
    let is_slow =
        device != Device::Cpu && (matches!(mixer, Mixer::Kda(_)) || mixer.levels().is_some());
    is_slow.then(|| {
        format!(
            "{} has no training kernels for GPUs yet and trains by torch operators, several times slower",
            mixer.kind().title()
        )
    })
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
            ("m2(h=4,p=32,n=16)", false),
            ("lgdn(h=2,k=32,v=32,l=15)", true),
            ("lm2(h=4,p=32,n=16,l=15)", true),
            ("kda(h=2,k=32,v=32)", true),
        ] {
            assert_eq!(slow(text, Device::Cpu), None, "{text}");
            assert_eq!(slow(text, gpu).is_some(), on_gpu, "{text}");
        }
        assert_eq!(
            slow("kda(h=2,k=32,v=32)", gpu).as_deref(),
            Some(
                "Kimi Delta Attention has no training kernels for GPUs yet and trains by torch operators, several times slower"
            )
        );
    }
}
