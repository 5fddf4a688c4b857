//! Parallel heads: two mixers of one input, each normed and added, or added as they are.

use kernels::cuda::decode::Storage;
use kernels::norm::{RMS_EPS, rms_norm_definition};
use search::architecture::{Mixer, Parallel};

use super::token::Token as Part;
use super::weights::{Keep, wide};
use crate::cuda::shapes::Load;

/// A mixer with the norm behind it.
type Branch = (Box<dyn Part>, Option<Vec<f64>>);

/// Makes the mixer of a branch.
type Make = fn(&Mixer, usize, (Storage, Load)) -> Box<dyn Part>;

#[derive(Debug)]
pub(super) struct Token {
    branches: [Branch; 2],
}

impl Token {
    pub(super) fn new(
        shape: &Parallel,
        d: usize,
        (storage, load): (Storage, Load),
        make: Make,
    ) -> Self {
        let mixers: [(&str, Mixer); 2] =
            [("attention", shape.attention().into()), ("beside", shape.side().into())];
        Self {
            branches: mixers.map(|(name, mixer)| {
                let own =
                    &mut |tensor: &str, count: usize| load(&format!("{name}.{tensor}"), count);
                let own = make(&mixer, d, (storage, own));
                let norm =
                    shape.branch_norms.then(|| wide(&load(&format!("{name}_norm.weight"), d)));
                (own, norm)
            }),
        }
    }
}

impl Part for Token {
    fn step(&mut self, u: &[f64], position: usize, keep: Keep) -> Vec<f64> {
        let mut sum = vec![0.0; u.len()];
        for (branch, norm) in &mut self.branches {
            let mut y = keep(branch.step(u, position, keep));
            if let Some(norm) = norm {
                y = rms_norm_definition(&y, norm, RMS_EPS);
            }
            sum.iter_mut().zip(y).for_each(|(sum, y)| *sum += y);
        }
        sum
    }
}
