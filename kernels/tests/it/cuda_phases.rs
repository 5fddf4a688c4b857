//! The host and the kernel `decode_step` see the same phases, or the kernel does not compile.

use kernels::cuda::decode::defines;
use kernels::cuda::emulator::{self, Emulator};
use kernels::cuda::{Extent, Source};

const EXTENT: Extent = Extent { multiprocessors: 2, shared_bytes: 86_000, warps: 4, hopper: false };

#[test]
fn a_phase_that_the_host_sees_otherwise_does_not_compile() {
    if !emulator::available() {
        eprintln!("SKIPPED: no g++, so the emulator cannot be built");
        return;
    }
    let text = Source::Decode.text();
    let changes = [
        ("u32 kind, unit_bytes,", "u32 unit_bytes, kind,", "Phase::kind"),
        ("float scale, largest_beta;", "u32 scale, largest_beta;", "Phase::scale"),
        ("rope, unused;", "rope, unused, more;", "the size of Phase"),
        ("u64 next[2];", "u64 next[4];", "Control::next"),
        ("u32 phase_count;\n    u32 d_model;", "u32 d_model;\n    u32 phase_count;", "DecodeArgs"),
        ("{ GEMV, DELTA,", "{ DELTA, GEMV,", "GEMV"),
        ("const u32 TILE_HEADS = 8;", "const u32 TILE_HEADS = 4;", "TILE_HEADS"),
    ];
    let defines = defines(EXTENT).expect("it fits");
    for (from, to, what) in changes {
        assert_eq!(text.matches(from).count(), 1, "`{from}`: the source has changed");
        let changed = text.replace(from, to);
        let started = Emulator::start_text(Source::Decode, &changed, &defines, EXTENT, 1);
        let log = started.expect_err(what).to_string();
        assert!(log.contains(what) && log.contains("of the host"), "{what}: {log}");
    }
}
