//! Parallel heads layer by layer: attention, then what stands beside it, of the same rows.

use kernels::cuda::Error;
use kernels::cuda::chunked::Rows;
use search::architecture::{Mixer, Parallel};

use super::pass::{Recorder, Sublayer};
use super::weights::Builder;
use crate::cuda::shapes::Load;

/// Two mixers, each with the norm behind it, 0 where there is none.
#[derive(Debug)]
pub(super) struct ParallelLayer {
    branches: [(Box<dyn Sublayer>, u64); 2],
}

/// Makes the mixer of a branch.
type Make = fn(&mut Builder<'_>, &Mixer, Load) -> Result<Box<dyn Sublayer>, Error>;

impl ParallelLayer {
    pub(super) fn new(
        on: &mut Builder<'_>,
        shape: &Parallel,
        load: Load,
        make: Make,
    ) -> Result<Self, Error> {
        let mut branch = |name: &str, mixer: Mixer| {
            let own = &mut |tensor: &str, count: usize| load(&format!("{name}.{tensor}"), count);
            let own = make(on, &mixer, own)?;
            let d = on.d_model;
            let norm = if shape.branch_norms {
                on.vector(load, &format!("{name}_norm.weight"), d)?
            } else {
                0
            };
            Ok::<_, Error>((own, norm))
        };
        let attention = branch("attention", shape.attention().into())?;
        Ok(Self { branches: [attention, branch("beside", shape.side().into())?] })
    }
}

impl Sublayer for ParallelLayer {
    fn record(&self, on: &mut Recorder<'_>, u: Rows) -> Result<(), Error> {
        self.branches.iter().try_for_each(|(branch, norm)| {
            on.behind((*norm != 0).then_some(*norm), |on| branch.record(on, u))
        })
    }
}
