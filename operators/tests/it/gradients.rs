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

fn check(gene: Gene, tokens: i64, directions: usize) {
    let built = Built::new(gene, 11);
    let mut random = Random::new(12);
    let x = random.tensor(&[2, tokens, D.into()], 1.0).set_requires_grad(true);
    let weight = random.tensor(&[2, tokens, D.into()], 1.0);
    let loss = || (built.mixer.forward(&x, None) * &weight).sum(Kind::Double);
    loss().backward();
    let named = built.variables.iter().map(|v| (v.spec.name.as_str(), &v.tensor));
    for (name, tensor) in named.chain([("the input", &x)]) {
        let gradient = tensor.grad();
        assert!(gradient.defined(), "{gene}: {name} has no gradient");
        for _ in 0..directions {
            let direction = random.tensor(&tensor.size(), 1.0);
            let expected = difference(tensor, &direction, loss);
            let got = (&gradient * &direction).sum(Kind::Double).double_value(&[]);
            let size = gradient.norm().double_value(&[]) * direction.norm().double_value(&[]);
            assert!(
                (got - expected).abs() < 1e-7 * size + 1e-9,
                "{gene} over {tokens} positions: {name}: got {got}, finite difference {expected}"
            );
        }
    }
}

#[test]
fn gradients_are_finite_differences() {
    for gene in genes() {
        check(gene, 9, 3);
    }
}

#[test]
fn gradients_are_finite_differences_over_several_chunks() {
    for gene in genes() {
        check(gene, 131, 1);
    }
}

#[test]
fn wide_and_narrow_heads_have_right_gradients_too() {
    check(Gene::Delta(Delta::gated(1, 70, 3)), 65, 1);
    check(Gene::Delta(Delta::deltanet(1, 2, 3)), 65, 1);
}
