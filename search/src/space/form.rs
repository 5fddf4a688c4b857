//! What the flat and the staged form have in common: genomes, and the moves between them.

use rand::{Rng, RngExt};

use super::error::SpaceViolation;
use super::tables::Tables;
use crate::architecture::Architecture;

/// A form of genome: how architectures are made from the tables, and read back.
pub(super) trait Form {
    type Genome: Clone;

    fn random<R: Rng + ?Sized>(&self, tables: &Tables, rng: &mut R) -> Self::Genome;

    fn express(&self, tables: &Tables, genome: &Self::Genome) -> Architecture;

    /// The genes of a member.
    fn read(
        &self,
        tables: &Tables,
        architecture: &Architecture,
    ) -> Result<Self::Genome, SpaceViolation>;

    /// The genes nearest to an architecture that need not be a member.
    fn project(&self, tables: &Tables, architecture: &Architecture) -> Self::Genome;

    /// One random change of one gene, and what it was; none if the drawn gene has no other choice.
    fn mutate<R: Rng + ?Sized>(
        &self,
        tables: &Tables,
        genome: &Self::Genome,
        rng: &mut R,
    ) -> Option<(Self::Genome, String)>;

    fn recombine<R: Rng + ?Sized>(
        &self,
        tables: &Tables,
        a: &Self::Genome,
        b: &Self::Genome,
        rng: &mut R,
    ) -> Self::Genome;

    /// Every change of one gene, and what it was.
    fn neighbours(&self, tables: &Tables, genome: &Self::Genome) -> Vec<(Self::Genome, String)>;

    /// How many genomes there are.
    fn size(&self, tables: &Tables) -> f64;

    /// All of them; ask for the size first.
    fn all(&self, tables: &Tables) -> Vec<Self::Genome>;
}

/// A random index below `n`.
pub(super) fn pick<R: Rng + ?Sized>(rng: &mut R, n: usize) -> usize {
    rng.random_range(0..n)
}

/// A random index below `n` that is not `but`; none if there is no other.
pub(super) fn pick_other<R: Rng + ?Sized>(rng: &mut R, n: usize, but: usize) -> Option<usize> {
    if n < 2 {
        return None;
    }
    let index = rng.random_range(0..n - 1);
    Some(if index < but { index } else { index + 1 })
}
