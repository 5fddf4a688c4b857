//! The number of meta tokens, a gene beside those of either form.

use rand::{Rng, RngExt};

use super::error::SpaceViolation;
use super::form::{Form, pick, pick_other};
use super::tables::Tables;
use crate::architecture::Architecture;

/// A form, and how many meta tokens stand before every sequence.
#[derive(Debug, Clone)]
pub(super) struct WithMeta<F>(pub(super) F);

#[derive(Debug, Clone)]
pub(super) struct Genome<G> {
    /// Index into the choices of meta tokens.
    meta: usize,
    stack: G,
}

/// One mutation in so many is of this gene, where there is a choice.
const MUTATIONS: usize = 12;

impl<G: Clone> Genome<G> {
    fn with_stack(&self, stack: G) -> Self {
        Self { meta: self.meta, stack }
    }

    fn change_meta(&self, tables: &Tables, meta: usize) -> (Self, String) {
        let [from, to] = [self.meta, meta].map(|index| tables.meta_tokens[index]);
        (Self { meta, stack: self.stack.clone() }, format!("meta tokens {from} → {to}"))
    }
}

impl<F: Form> Form for WithMeta<F> {
    type Genome = Genome<F::Genome>;

    fn random<R: Rng + ?Sized>(&self, tables: &Tables, rng: &mut R) -> Self::Genome {
        let choices = tables.meta_tokens.len();
        let meta = if choices > 1 { pick(rng, choices) } else { 0 };
        Genome { meta, stack: self.0.random(tables, rng) }
    }

    fn express(&self, tables: &Tables, genome: &Self::Genome) -> Architecture {
        self.0
            .express(tables, &genome.stack)
            .with_meta_tokens(tables.meta_tokens[genome.meta])
            .expect("the tables hold checked choices only")
    }

    fn read(
        &self,
        tables: &Tables,
        architecture: &Architecture,
    ) -> Result<Self::Genome, SpaceViolation> {
        let number = architecture.meta_tokens();
        let meta = tables.meta_tokens.iter().position(|&choice| choice == number);
        let meta =
            meta.ok_or_else(|| SpaceViolation::Model { what: format!("meta_tokens = {number}") })?;
        Ok(Genome { meta, stack: self.0.read(tables, architecture)? })
    }

    fn project(&self, tables: &Tables, architecture: &Architecture) -> Self::Genome {
        Genome {
            meta: tables.nearest_meta_tokens(architecture.meta_tokens()),
            stack: self.0.project(tables, architecture),
        }
    }

    fn mutate<R: Rng + ?Sized>(
        &self,
        tables: &Tables,
        genome: &Self::Genome,
        rng: &mut R,
    ) -> Option<(Self::Genome, String)> {
        let choices = tables.meta_tokens.len();
        if choices > 1 && pick(rng, MUTATIONS) == 0 {
            return Some(genome.change_meta(tables, pick_other(rng, choices, genome.meta)?));
        }
        let (stack, what) = self.0.mutate(tables, &genome.stack, rng)?;
        Some((genome.with_stack(stack), what))
    }

    fn recombine<R: Rng + ?Sized>(
        &self,
        tables: &Tables,
        a: &Self::Genome,
        b: &Self::Genome,
        rng: &mut R,
    ) -> Self::Genome {
        let stack = self.0.recombine(tables, &a.stack, &b.stack, rng);
        let from_b = a.meta != b.meta && rng.random_bool(0.5);
        Genome { meta: if from_b { b.meta } else { a.meta }, stack }
    }

    fn neighbours(&self, tables: &Tables, genome: &Self::Genome) -> Vec<(Self::Genome, String)> {
        let of_stack = self.0.neighbours(tables, &genome.stack).into_iter();
        let others = (0..tables.meta_tokens.len()).filter(|&meta| meta != genome.meta);
        of_stack
            .map(|(stack, what)| (genome.with_stack(stack), what))
            .chain(others.map(|meta| genome.change_meta(tables, meta)))
            .collect()
    }

    fn size(&self, tables: &Tables) -> f64 {
        tables.meta_tokens.len() as f64 * self.0.size(tables)
    }

    fn all(&self, tables: &Tables) -> Vec<Self::Genome> {
        let stacks = self.0.all(tables);
        (0..tables.meta_tokens.len())
            .flat_map(|meta| stacks.iter().map(move |stack| Genome { meta, stack: stack.clone() }))
            .collect()
    }
}
