//! How far a value may be from the truth, and how much of that it shares with the same value of other candidates. What
//! all share moves no pair: the difference of two losses on the same text is surer than either.

/// The error of a value: a normal variable of its own, and loadings of standard normal variables, the same ones for the
/// same value of every candidate.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Noise {
    /// Standard deviation of its own part.
    pub own: f64,
    /// What each shared variable moves it by. Where another's are more, the missing ones are 0.
    pub shared: Vec<f64>,
}

impl Noise {
    /// All of it its own.
    pub fn of_its_own(deviation: f64) -> Self {
        Self { own: deviation, shared: Vec::new() }
    }

    /// The standard deviation of the value.
    pub fn total(&self) -> f64 {
        (self.own.powi(2) + self.shared.iter().map(|s| s * s).sum::<f64>()).sqrt()
    }

    /// The standard deviation of the difference to `other`.
    pub fn beside(&self, other: &Self) -> f64 {
        let count = self.shared.len().max(other.shared.len());
        let at = |noise: &Self, i: usize| noise.shared.get(i).copied().unwrap_or(0.0);
        let shared: f64 = (0..count).map(|i| (at(self, i) - at(other, i)).powi(2)).sum();
        (self.own.powi(2) + other.own.powi(2) + shared).sqrt()
    }

    /// That of the value times a number.
    pub(super) fn scaled(mut self, by: f64) -> Self {
        self.own *= by.abs();
        for loading in &mut self.shared {
            *loading *= by;
        }
        self
    }

    /// With a further error of its own.
    pub(super) fn and_own(mut self, deviation: f64) -> Self {
        self.own = self.own.hypot(deviation);
        self
    }

    /// With loadings of the shared variables from `first` on.
    pub(super) fn and_shared(mut self, first: usize, loadings: &[f64]) -> Self {
        self.shared.resize(self.shared.len().max(first + loadings.len()), 0.0);
        for (loading, more) in self.shared[first..].iter_mut().zip(loadings) {
            *loading += more;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_drops_out_of_a_difference() {
        let text = [0.03, -0.04];
        let noise = |own| Noise::of_its_own(own).and_shared(1, &text);
        assert_eq!(noise(0.0).shared, [0.0, 0.03, -0.04]);
        assert!((noise(0.0).total() - 0.05).abs() < 1e-15);
        assert!((noise(0.12).total() - 0.13).abs() < 1e-15);
        assert!((noise(0.3).beside(&noise(0.4)) - 0.5).abs() < 1e-15);
        assert!((noise(0.0).beside(&Noise::of_its_own(0.12)) - 0.13).abs() < 1e-15);
        assert!((noise(0.12).scaled(-2.0).total() - 0.26).abs() < 1e-15);
        assert!((noise(0.3).and_own(0.4).own - 0.5).abs() < 1e-15);
    }
}
