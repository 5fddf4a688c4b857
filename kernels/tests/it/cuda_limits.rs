//! Shapes that no launch could hold are refused by their check, so that whoever trains falls back on other operators.

use kernels::cuda::chunked::kda::decays::LogDecays;
use kernels::cuda::chunked::{Chunked, Rule, Shape, kda};
use kernels::cuda::gated_conv::GatedConv;
use kernels::cuda::short_conv::ShortConv;
use kernels::cuda::values::Values;
use kernels::cuda::{Error, Extent};

const EXTENT: Extent =
    Extent { multiprocessors: 132, shared_bytes: 227 << 10, warps: 8, hopper: true };

/// Whether each takes so many sequences of 32 positions.
fn checks(batch: usize) -> [(&'static str, Result<(), Error>); 6] {
    let (tokens, wide) = (32, false);
    let positions = batch * tokens;
    let (heads, key_heads, key_width, value_width) = (1, 1, 32, 32);
    let of_delta = Shape { batch, tokens, heads, key_heads, key_width, value_width, wide };
    let of_kda = kda::Shape { batch, tokens, heads, key_width, value_width, wide };
    [
        ("delta rule", Chunked::new(Rule::Delta, of_delta, 1.0, EXTENT).map(drop)),
        ("KDA", kda::Kda::training(of_kda, 1.0, EXTENT).map(drop)),
        ("log-decays", LogDecays { positions, heads, key_width, wide }.check()),
        ("values", Values { positions, heads, width: value_width, wide }.check()),
        ("convolution", ShortConv { batch, tokens, channels: 32, wide }.check()),
        ("gated convolution", GatedConv { batch, tokens, channels: 32, taps: 3, wide }.check()),
    ]
}

#[test]
fn more_than_a_grid_holds_is_refused() {
    for (what, result) in checks(65_535 / 8) {
        assert!(result.is_ok(), "{what}: {result:?}");
    }
    for (what, result) in checks(1 << 20) {
        let error = result.expect_err(what).to_string();
        assert!(error.contains("at most 65535"), "{what}: {error}");
    }
}
