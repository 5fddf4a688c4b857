//! How the numbers of a mixer follow when a stack is made wider or narrower.

/// `n · scale`, if that is a whole number above 0: proxies keep the proportions of their targets.
pub fn whole(n: u32, scale: f64) -> Option<u32> {
    let scaled = f64::from(n) * scale;
    let rounded = scaled.round();
    ((scaled - rounded).abs() < 1e-6 && rounded >= 1.0 && rounded <= f64::from(u32::MAX))
        .then_some(rounded as u32)
}

/// [`whole`], or the number that stands in the way.
pub(super) fn whole_width(
    name: &'static str,
    n: u32,
    scale: f64,
) -> Result<u32, (&'static str, u32)> {
    whole(n, scale).ok_or((name, n))
}

/// The width nearest to `width · scale` in whole steps, of a thirty-second or less and between 8 and 64, as kernels like
/// them.
pub(crate) fn nearest_width(width: u32, scale: f64) -> u32 {
    let wanted = f64::from(width) * scale;
    let step = 2_f64.powi((wanted / 32.0).log2().floor() as i32).clamp(8.0, 64.0);
    ((wanted / step).round().max(1.0) * step) as u32
}

/// The number of heads nearest to `heads · scale`, and what becomes of a head's width: it stays, but a lone head gets
/// narrower, to an even width.
pub(super) fn nearest_heads(heads: u32, scale: f64) -> (u32, impl Fn(u32) -> u32) {
    let wanted = f64::from(heads) * scale;
    let narrowed =
        move |width: u32| 2 * (f64::from(width) * wanted.min(1.0) / 2.0).round().max(1.0) as u32;
    (wanted.round().max(1.0) as u32, narrowed)
}
