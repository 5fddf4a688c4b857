//! What the errors of all points share, drawn once for each front.

use rand::{RngExt, SeedableRng};

use super::normal::Normal;
use crate::campaign::noise::Noise;
use crate::proposals::SearchRng;

/// The variables that errors share, in each draw.
pub(super) struct Shared {
    /// Of each objective, `[draws, count]`.
    normals: Vec<Vec<f64>>,
    counts: Vec<usize>,
    /// The largest length of a draw, of each objective.
    longest: Vec<f64>,
}

impl Shared {
    pub(super) fn drawn(noises: &[Vec<Noise>], draws: u32, seed: u64) -> Self {
        let objectives = noises.first().map_or(0, Vec::len);
        let count = |at: usize| noises.iter().map(|of| of[at].shared.len()).max().unwrap_or(0);
        let counts: Vec<usize> = (0..objectives).map(count).collect();
        // A stream of its own, so that it moves nobody's own part.
        let mut rng = SearchRng::seed_from_u64(seed);
        rng.set_stream(1);
        let mut drawn = |&count: &usize| -> Vec<f64> {
            (0..draws as usize * count)
                .map(|_| Normal { u: rng.random(), v: rng.random() }.value())
                .collect()
        };
        let normals: Vec<Vec<f64>> = counts.iter().map(&mut drawn).collect();
        let length = |z: &[f64]| z.iter().map(|z| z * z).sum::<f64>().sqrt();
        let longest = normals
            .iter()
            .zip(&counts)
            .map(|(all, &count)| all.chunks(count.max(1)).map(length).fold(0.0, f64::max))
            .collect();
        Self { normals, counts, longest }
    }

    /// What moves the value of an objective in a draw.
    pub(super) fn moved(&self, noise: &Noise, objective: usize, draw: u32) -> f64 {
        if noise.shared.is_empty() {
            return 0.0;
        }
        let first = draw as usize * self.counts[objective];
        noise.shared.iter().zip(&self.normals[objective][first..]).map(|(s, z)| s * z).sum()
    }

    /// The least of that over some draws.
    pub(super) fn least(&self, noise: &Noise, objective: usize, draws: u32) -> f64 {
        if noise.shared.is_empty() {
            return 0.0;
        }
        (0..draws).map(|draw| self.moved(noise, objective, draw)).fold(f64::INFINITY, f64::min)
    }

    /// No draw moves the value by more.
    pub(super) fn reach(&self, noise: &Noise, objective: usize) -> f64 {
        noise.shared.iter().map(|s| s * s).sum::<f64>().sqrt() * self.longest[objective]
    }
}
