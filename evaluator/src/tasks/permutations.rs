//! State tracking in the symmetric group Sₙ (arXiv 2404.08819, section 3): the input is a word of its elements, and at
//! each position the product of all so far must be said. S3 is solvable, S5 is not.

use rand::{Rng, RngExt};

use super::Example;

/// The group, its elements numbered in lexicographic order.
#[derive(Debug)]
pub(super) struct Permutations {
    /// `[order, order]`: which element `a` followed by `b` is.
    products: Vec<u32>,
    order: usize,
}

impl Permutations {
    /// Of `n` things.
    pub(super) fn new(n: usize) -> Self {
        let elements = elements(n);
        let number = |p: &Vec<usize>| {
            elements.iter().position(|e| e == p).expect("the group is closed") as u32
        };
        let products = elements
            .iter()
            .flat_map(|a| elements.iter().map(|b| number(&a.iter().map(|&i| b[i]).collect())))
            .collect();
        Self { products, order: elements.len() }
    }

    pub(super) fn order(&self) -> u32 {
        self.order as u32
    }

    fn then(&self, a: u32, b: u32) -> u32 {
        self.products[a as usize * self.order + b as usize]
    }

    pub(super) fn example(&self, rng: &mut impl Rng, length: usize) -> Example {
        let inputs: Vec<u32> = (0..length).map(|_| rng.random_range(0..self.order())).collect();
        // The first element of all is the identity.
        let targets = inputs
            .iter()
            .scan(0, |product, &element| {
                *product = self.then(*product, element);
                Some(Some(*product))
            })
            .collect();
        Example { inputs, targets }
    }
}

/// All arrangements of `0..n`, in lexicographic order.
fn elements(n: usize) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    for _ in 0..n {
        all = all
            .into_iter()
            .flat_map(|prefix| {
                (0..n)
                    .filter(|i| !prefix.contains(i))
                    .map(|i| [prefix.clone(), vec![i]].concat())
                    .collect::<Vec<_>>()
            })
            .collect();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_group_that_does_not_commute() {
        for n in [3, 5] {
            let group = Permutations::new(n);
            let order = group.order();
            assert_eq!(order, (1..=n as u32).product::<u32>());
            for a in 0..order {
                assert_eq!((group.then(0, a), group.then(a, 0)), (a, a));
                let mut row: Vec<u32> = (0..order).map(|b| group.then(a, b)).collect();
                row.sort_unstable();
                assert!(row.into_iter().eq(0..order), "every element is reached once");
                let (b, c) = ((a * 7 + 1) % order, (a * 5 + 2) % order);
                assert_eq!(group.then(group.then(a, b), c), group.then(a, group.then(b, c)));
            }
            assert!((0..order).any(|a| (0..order).any(|b| group.then(a, b) != group.then(b, a))));
        }
    }
}
