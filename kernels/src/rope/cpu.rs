//! Rotary positions on the CPU, from tables of cosines and sines.

/// The cosines and sines of positions 0 to n − 1, computed in f64 once.
#[derive(Debug, Clone)]
pub struct Table {
    half: usize,
    theta: f64,
    /// `[n, K/2]`
    cos: Vec<f32>,
    /// `[n, K/2]`
    sin: Vec<f32>,
}

impl Table {
    /// An empty table for heads of `head_width` channels.
    pub fn new(head_width: usize, theta: f64) -> Self {
        Self { half: head_width / 2, theta, cos: Vec::new(), sin: Vec::new() }
    }

    /// Channels of a head.
    pub fn head_width(&self) -> usize {
        2 * self.half
    }

    /// Makes the table hold the positions below `positions`.
    pub fn extend_to(&mut self, positions: usize) {
        if self.half == 0 {
            return;
        }
        for position in self.cos.len() / self.half..positions {
            for i in 0..self.half {
                let angle = position as f64 * self.theta.powf(-(i as f64) / self.half as f64);
                self.cos.push(angle.cos() as f32);
                self.sin.push(angle.sin() as f32);
            }
        }
    }

    /// Rotates one head's row, `[K]`, at a position that the table holds.
    pub fn rotate(&self, row: &mut [f32], position: usize) {
        let at = position * self.half;
        let (cos, sin) = (&self.cos[at..at + self.half], &self.sin[at..at + self.half]);
        let (first, second) = row.split_at_mut(self.half);
        for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
            (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
        }
    }
}
