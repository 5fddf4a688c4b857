//! Spaces of architectures as a domain of proposals.

use super::domain::{Domain, SearchRng};
use crate::architecture::{Architecture, ArchitectureId};
use crate::space::{Scale, Space};
use crate::surrogate::Feature;

impl Domain for Space {
    type Point = Architecture;
    type Id = ArchitectureId;

    fn id(&self, point: &Architecture) -> ArchitectureId {
        point.id()
    }

    fn sample(&self, rng: &mut SearchRng) -> Option<Architecture> {
        Some(Self::sample(self, rng))
    }

    fn mutate(&self, point: &Architecture, rng: &mut SearchRng) -> Option<(Architecture, String)> {
        Some(Self::mutate(self, point, rng))
    }

    fn recombine(
        &self,
        a: &Architecture,
        b: &Architecture,
        rng: &mut SearchRng,
    ) -> Option<Architecture> {
        Some(Self::recombine(self, a, b, rng))
    }

    fn features(&self) -> Vec<Feature> {
        let feature = |scale| match scale {
            Scale::Number => Feature::Number,
            Scale::Category => Feature::Category,
        };
        self.coordinates().into_iter().map(|coordinate| feature(coordinate.scale)).collect()
    }

    fn encode(&self, point: &Architecture) -> Vec<f64> {
        Self::encode(self, point)
    }

    fn enumerate(&self, limit: usize) -> Option<Vec<Architecture>> {
        Self::enumerate(self, limit)
    }
}
