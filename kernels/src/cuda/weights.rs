//! Weights for checks: the same wherever they are asked for by the same name.

/// `count` values for the tensor `name`, of the size that such tensors have in a model.
pub fn weight(name: &str, count: usize) -> Vec<f32> {
    let mut state = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let mut uniform = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1 << 24) as f32 * 2.0 - 1.0
    };
    let (centre, spread) = match name.rsplit('.').next().unwrap_or_default() {
        "A_log" => (0.0, 1.0),
        "dt_bias" => (-2.0, 1.0),
        "D" | "L" => (1.0, 0.5),
        _ if name.ends_with("norm.weight") => (1.0, 0.3),
        _ if name.contains("conv") => (0.0, 0.5),
        _ => (0.0, 0.1),
    };
    (0..count).map(|_| centre + spread * uniform()).collect()
}
