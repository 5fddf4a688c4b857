//! What proposals are made of: a set of points that can be sampled and varied.

use std::fmt::Debug;
use std::hash::Hash;

use crate::surrogate::Feature;

/// The generator of all random choices: portable, and one independent stream per proposal.
pub type SearchRng = rand::rngs::ChaCha8Rng;

/// A set of points that can be sampled and varied.
///
/// `None` from a method means that it found nothing in the number of tries it allows itself.
pub trait Domain {
    /// An element.
    type Point: Clone + Debug;
    /// Identity of an element: equal points, and only they, have equal ids.
    type Id: Clone + Eq + Hash;

    /// The identity of a point.
    fn id(&self, point: &Self::Point) -> Self::Id;

    /// A random element.
    fn sample(&self, rng: &mut SearchRng) -> Option<Self::Point>;

    /// A neighbour that differs in one gene, and what changed, for people.
    fn mutate(&self, point: &Self::Point, rng: &mut SearchRng) -> Option<(Self::Point, String)>;

    /// An element made of parts of two.
    fn recombine(
        &self,
        a: &Self::Point,
        b: &Self::Point,
        rng: &mut SearchRng,
    ) -> Option<Self::Point>;

    /// What the coordinates of an encoded point are.
    fn features(&self) -> Vec<Feature>;

    /// A point as coordinates in which likeness shows, one for each feature.
    fn encode(&self, point: &Self::Point) -> Vec<f64>;

    /// All elements, if they can be listed and are at most `limit`.
    fn enumerate(&self, _limit: usize) -> Option<Vec<Self::Point>> {
        None
    }
}
