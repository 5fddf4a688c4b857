//! Every CUDA source compiles for every architecture, without spills.

use kernels::cuda::compiler::{available, compile};
use kernels::cuda::{Error, Source, decode};

/// A100, H100 and H200; and PTX for what came later.
const ARCHITECTURES: [(&str, u32); 3] = [("sm_80", 12), ("sm_90", 24), ("compute_100", 24)];

#[test]
fn every_source_compiles_for_every_architecture_without_spills() {
    if let Err(error @ Error::Missing { .. }) = available() {
        eprintln!("SKIPPED: {error}");
        return;
    }
    for source in Source::ALL {
        for (architecture, slots) in ARCHITECTURES {
            let defines = match source {
                Source::Decode => decode::defines(12, slots),
            };
            let compiled =
                compile(source, &defines, architecture).unwrap_or_else(|error| panic!("{error}"));
            assert!(!compiled.image.is_empty());
            for kernel in &compiled.resources {
                eprintln!(
                    "{architecture:<12} {:<16} {:>3} registers  {} bytes spilled",
                    kernel.kernel, kernel.registers, kernel.spill_store_bytes
                );
                assert!(
                    kernel.registers > 0,
                    "{architecture} {}: the assembler's report was not understood",
                    kernel.kernel
                );
                assert_eq!(
                    kernel.spill_store_bytes, 0,
                    "{architecture} {}: registers are spilled",
                    kernel.kernel
                );
            }
            assert_eq!(
                compiled.resources.is_empty(),
                architecture.starts_with("compute"),
                "{architecture}: no report"
            );
        }
    }
}
