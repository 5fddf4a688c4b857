//! Gradients of the input and of every parameter against finite differences in f64.

use search::architecture::{Delta, Mixer as Gene};
use tch::{Kind, Tensor};

use crate::support::{Built, D, Random, genes};

/// Five-point difference of `loss` along `direction` at `at`, whose values it puts back.
pub(crate) fn difference(at: &Tensor, direction: &Tensor, loss: impl Fn() -> Tensor) -> f64 {
    let step = 1e-5;
    tch::no_grad(|| {
        let value = at.copy();
        let mut at = at.shallow_clone();
        let mut moved = |steps: f64| {
            at.copy_(&(&value + direction * (steps * step)));
            loss().double_value(&[])
        };
        let (near, far) = (moved(1.0) - moved(-1.0), moved(2.0) - moved(-2.0));
        at.copy_(&value);
        (8.0 * near - far) / (12.0 * step)
    })
}

/// A mixer with inputs, the loss that weighs its outputs, and what has a gradient of it.
struct Case {
    gene: Gene,
    built: Built,
    random: Random,
    x: Tensor,
    weight: Tensor,
}

impl Case {
    fn new(gene: Gene, tokens: i64) -> Self {
        let built = Built::new(gene, 11);
        let mut random = Random::new(12);
        let x = random.tensor(&[2, tokens, D.into()], 1.0).set_requires_grad(true);
        let weight = random.tensor(&[2, tokens, D.into()], 1.0);
        let case = Self { gene, built, random, x, weight };
        case.loss().backward();
        case
    }

    fn loss(&self) -> Tensor {
        (self.built.mixer.forward(&self.x, None) * &self.weight).sum(Kind::Double)
    }

    fn tensors(&self) -> Vec<(String, Tensor)> {
        let named = self.built.variables.iter().map(|v| (v.spec.name.clone(), &v.tensor));
        let all = named.chain([("the input".to_owned(), &self.x)]);
        all.map(|(name, tensor)| (name, tensor.shallow_clone())).collect()
    }

    /// Each tensor by itself.
    fn check_each(mut self) {
        for (name, tensor) in self.tensors() {
            let gradient = tensor.grad();
            assert!(gradient.defined(), "{}: {name} has no gradient", self.gene);
            let direction = self.random.tensor(&tensor.size(), 1.0);
            let expected = difference(&tensor, &direction, || self.loss());
            let got = (&gradient * &direction).sum(Kind::Double).double_value(&[]);
            let size = gradient.norm().double_value(&[]) * direction.norm().double_value(&[]);
            let what = format!("{}, {name}", self.gene);
            assert!((got - expected).abs() < 1e-7 * size + 1e-9, "{what}: {got}, not {expected}");
        }
    }

    /// All tensors at once, in directions as long as their gradients ask for to count alike: long texts are slow.
    fn check_together(mut self) {
        let tensors = self.tensors();
        let mut directions = Vec::new();
        let mut got = 0.0;
        for (_, tensor) in &tensors {
            let gradient = tensor.grad();
            let direction = self.random.tensor(&tensor.size(), 1.0);
            // what has no gradient, as the keys of a window of one, moves as far as its values are large
            let of_gradient = gradient.norm().double_value(&[]);
            let of_gradient = if of_gradient < 1e-9 { 1.0 } else { of_gradient };
            let direction = &direction / (direction.norm() * of_gradient);
            got += (&gradient * &direction).sum(Kind::Double).double_value(&[]);
            directions.push(direction);
        }
        let values: Vec<Tensor> = tensors.iter().map(|(_, tensor)| tensor.copy()).collect();
        let step = 1e-3;
        let expected = tch::no_grad(|| {
            let moved = |steps: f64| {
                for (((_, tensor), value), direction) in
                    tensors.iter().zip(&values).zip(&directions)
                {
                    tensor.shallow_clone().copy_(&(value + direction * (steps * step)));
                }
                self.loss().double_value(&[])
            };
            let (near, far) = (moved(1.0) - moved(-1.0), moved(2.0) - moved(-2.0));
            (8.0 * near - far) / (12.0 * step)
        });
        let size = (tensors.len() as f64).sqrt();
        let gene = self.gene;
        assert!((got - expected).abs() < 1e-6 * size, "{gene}: {got}, not {expected}");
    }
}

#[test]
fn gradients_are_finite_differences() {
    for gene in genes() {
        Case::new(gene, 9).check_each();
    }
}

#[test]
fn gradients_are_finite_differences_over_several_chunks() {
    for gene in genes() {
        Case::new(gene, 131).check_together();
    }
}

#[test]
fn wide_and_narrow_heads_have_right_gradients_too() {
    Case::new(Gene::Delta(Delta::gated(1, 70, 3)), 65).check_each();
    Case::new(Gene::Delta(Delta::deltanet(1, 2, 3)), 65).check_each();
}
