//! How large the numbers of an architecture may be, and which are left unsaid.

/// The widest and longest thing that is accepted: keeps every product of two or three of these inside `u64`.
pub(crate) const MAX_WIDTH: u32 = 1 << 20;
/// Layers of an architecture.
pub(crate) const MAX_LAYERS: usize = 4096;
/// Levels above this one would lie beyond any context: positions are 32 bits wide.
const MAX_LEVELS: u32 = 33;

/// Expected and got, when `n` is no width.
pub(crate) fn width(name: &str, n: u32) -> Result<(), String> {
    if (1..=MAX_WIDTH).contains(&n) {
        Ok(())
    } else {
        Err(format!("{name} must be 1 to {MAX_WIDTH}, got {n}"))
    }
}

/// Expected and got, when a log-linear mixer cannot have so many levels.
pub(crate) fn levels(levels: Option<u32>) -> Result<(), String> {
    match levels {
        Some(levels) if !(2..=MAX_LEVELS).contains(&levels) => {
            Err(format!("levels must be 2 to {MAX_LEVELS}, got {levels}"))
        }
        _ => Ok(()),
    }
}

/// What is left out of JSON where it is 0.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
pub(crate) fn is_zero(n: &u32) -> bool {
    *n == 0
}
