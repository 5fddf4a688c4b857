//! Draws from the standard normal distribution.

/// Words of the random stream that a [`Normal`] takes: two doubles.
pub(super) const WORDS_A_NORMAL: u128 = 4;

/// The same in bytes.
pub(super) const BYTES_A_NORMAL: usize = 16;

/// Further off than a normal of doubles ever is: √(−2 ln 2⁻⁵³) = 8.57.
pub(super) const REACH: f64 = 8.6;

/// A draw (Box and Muller 1958).
pub(super) struct Normal {
    pub(super) u: f64,
    pub(super) v: f64,
}

impl Normal {
    /// From the next bytes of the stream: two numbers of 53 bits in [0, 1).
    pub(super) fn of(bytes: &[u8; BYTES_A_NORMAL]) -> Self {
        let number = |bytes: &[u8]| {
            let bits = bytes.iter().rev().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
            (bits >> 11) as f64 / 2_f64.powi(53)
        };
        let (u, v) = bytes.split_at(BYTES_A_NORMAL / 2);
        Self { u: number(u), v: number(v) }
    }

    pub(super) fn value(&self) -> f64 {
        (-2.0 * (1.0 - self.u).ln()).sqrt() * (std::f64::consts::TAU * self.v).cos()
    }
}
