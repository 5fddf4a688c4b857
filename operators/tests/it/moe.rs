//! A mixture of experts against its definition, and its gradients against finite differences, in f64.

use std::collections::HashMap;

use kernels::moe::{Mixture, balance_definition, definition};
use kernels::swiglu;
use operators::Variable;
use operators::ffn::{self, Ffn};
use search::architecture::{Experts, Ffn as Gene, FfnKind, Layer};
use tch::{Device, Kind, Tensor, nn};

use crate::gradients::difference;
use crate::support::{D, Random, assert_close, numbers, randomise};

const FFNS: [&str; 4] =
    ["moe(7,e=5,k=2,s=1)", "moe(5,e=3,k=1)", "moe(4,e=6,k=6,s=2)", "moe(3,e=16,k=4)"];

struct Built {
    of: Experts,
    ffn: Ffn,
    variables: Vec<Variable>,
    _store: nn::VarStore,
}

impl Built {
    fn new(text: &str, seed: u64) -> Self {
        let layer: Layer = text.parse().expect("the text is canonical");
        let Some(gene @ Gene { kind: FfnKind::Moe(of), .. }) = layer.ffn else {
            panic!("{text} is a mixture")
        };
        let mut store = nn::VarStore::new(Device::Cpu);
        let (ffn, variables) =
            ffn::alone(&store.root(), D, gene, seed).expect("the gene is possible");
        store.double();
        randomise(&variables, seed);
        Self { of, ffn, variables, _store: store }
    }

    fn weights(&self) -> HashMap<&str, Vec<f64>> {
        self.variables.iter().map(|v| (v.spec.name.as_str(), numbers(&v.tensor))).collect()
    }
}

/// x `[T, in]` times weight `[out, in]`, transposed.
fn linear(x: &[f64], weight: &[f64], inputs: usize) -> Vec<f64> {
    let dot = |x: &[f64], w: &[f64]| x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>();
    x.chunks_exact(inputs)
        .flat_map(|x| weight.chunks_exact(inputs).map(move |w| dot(x, w)))
        .collect()
}

#[test]
fn every_mixture_is_its_definition() {
    let d = D as usize;
    for text in FFNS {
        let built = Built::new(text, 3);
        let w = built.weights();
        for tokens in [1, 2, 17, 100] {
            let x = Random::new(tokens as u64).tensor(&[2, tokens, D.into()], 1.0);
            let mut balance = Vec::new();
            let got = built.ffn.forward(&x, Some(&mut balance));
            let rows = numbers(&x);
            let mixture = Mixture {
                per_token: built.of.per_token as usize,
                router: &w["router.weight"],
                gate: &w["gate.weight"],
                up: &w["up.weight"],
                down: &w["down.weight"],
            };
            let mut expected = definition(&rows, d, &mixture);
            if built.of.shared > 0 {
                let [gate, up] = ["shared.gate.weight", "shared.up.weight"]
                    .map(|name| linear(&rows, &w[name], d));
                let down = &w["shared.down.weight"];
                let shared = linear(&swiglu::definition(&gate, &up), down, down.len() / d);
                expected.iter_mut().zip(shared).for_each(|(sum, shared)| *sum += shared);
            }
            let expected = Tensor::from_slice(&expected).view_as(&x);
            assert_close(&format!("{text} of {tokens} tokens"), &got, &expected);
            let logits = linear(&rows, mixture.router, d);
            let uneven = balance_definition(&logits, built.of.experts as usize, mixture.per_token);
            assert_close("the balance", &balance[0], &Tensor::from(uneven));
        }
    }
}

#[test]
fn gradients_are_finite_differences() {
    for text in FFNS {
        let built = Built::new(text, 5);
        let mut random = Random::new(6);
        let x = random.tensor(&[2, 9, D.into()], 1.0).set_requires_grad(true);
        let weight = random.tensor(&[2, 9, D.into()], 1.0);
        let loss = || {
            let mut balance = Vec::new();
            let y = built.ffn.forward(&x, Some(&mut balance));
            (y * &weight).sum(Kind::Double) + &balance[0] * 3.0
        };
        loss().backward();
        let named = built.variables.iter().map(|v| (v.spec.name.as_str(), &v.tensor));
        for (name, tensor) in named.chain([("the input", &x)]) {
            let gradient = tensor.grad();
            assert!(gradient.norm().double_value(&[]) > 1e-3, "{text}, {name}: no gradient");
            let direction = random.tensor(&tensor.size(), 1.0);
            let expected = difference(tensor, &direction, loss);
            let got = (&gradient * &direction).sum(Kind::Double).double_value(&[]);
            let size = gradient.norm().double_value(&[]) * direction.norm().double_value(&[]);
            let what = format!("{text}, {name}");
            assert!((got - expected).abs() < 1e-7 * size + 1e-9, "{what}: {got}, not {expected}");
        }
    }
}

#[test]
fn one_expert_learns_how_much_it_weighs() {
    // with its weight brought to one the router of a single expert would have no gradient but that of the balance
    let built = Built::new("moe(5,e=3,k=1)", 7);
    let x = Random::new(8).tensor(&[20, D.into()], 1.0);
    built.ffn.forward(&x, None).square().sum(Kind::Double).backward();
    assert!(built.variables[0].tensor.grad().norm().double_value(&[]) > 1e-3);
}

#[test]
fn rows_do_not_disturb_each_other() {
    let built = Built::new("moe(7,e=5,k=2,s=1)", 9);
    let x = Random::new(10).tensor(&[30, D.into()], 1.0);
    let together = built.ffn.forward(&x, None);
    let alone: Vec<Tensor> =
        (0..30).map(|row| built.ffn.forward(&x.narrow(0, row, 1), None)).collect();
    assert_close("rows", &Tensor::cat(&alone, 0), &together);
}
