//! Every CUDA source compiles for every architecture, without spills.

use kernels::cuda::compiler::{available, compile};
use kernels::cuda::{Error, Extent, Source, decode};

/// A100, H100 and H200; and PTX for what came later.
const ARCHITECTURES: [(&str, Extent); 4] = [
    ("sm_80", Extent { multiprocessors: 108, shared_bytes: 163 << 10, warps: 9 }),
    ("sm_90", Extent { multiprocessors: 132, shared_bytes: 227 << 10, warps: 9 }),
    ("compute_100", Extent { multiprocessors: 148, shared_bytes: 227 << 10, warps: 9 }),
    ("compute_120", Extent { multiprocessors: 170, shared_bytes: 99 << 10, warps: 9 }),
];

#[test]
fn every_source_compiles_for_every_architecture_without_spills() {
    if let Err(error @ Error::Missing { .. }) = available() {
        eprintln!("SKIPPED: {error}");
        return;
    }
    for source in Source::ALL {
        for (architecture, extent) in ARCHITECTURES {
            let defines = match source {
                Source::Decode => decode::defines(extent).expect("the step fits"),
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
