//! Seeded numbers, genes, and mixers in f64 with weights of a size at which everything matters.

use std::collections::HashMap;

use operators::Variable;
use operators::mixer::{Mixer, alone};
use search::architecture::{Delta, Layer, Mamba2, Mixer as Gene};
use search::tensors::Role;
use tch::{Device, Kind, Tensor, nn};

/// SplitMix64.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to n − 1.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// Of standard deviation `scale`, uniform.
    pub(crate) fn numbers(&mut self, n: usize, scale: f64) -> Vec<f64> {
        let mut unit = || (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        (0..n).map(|_| (2.0 * unit() - 1.0) * scale * 3.0_f64.sqrt()).collect()
    }

    pub(crate) fn tensor(&mut self, shape: &[i64], scale: f64) -> Tensor {
        let n: i64 = shape.iter().product();
        Tensor::from_slice(&self.numbers(n as usize, scale)).reshape(shape)
    }
}

/// Width of the residual stream in these tests.
pub(crate) const D: u32 = 12;

/// One gene of every kind, with every option, small and lopsided.
pub(crate) fn genes() -> Vec<Gene> {
    vec![
        gene("attn(h=4,kv=4,k=6)"),
        gene("attn(h=4,kv=2,k=6,qknorm)"),
        gene("swa(h=4,kv=1,k=6,w=1)"),
        gene("swa(h=4,kv=2,k=6,w=7)"),
        gene("swa(h=4,kv=4,k=6,w=40,qknorm)"),
        Gene::Delta(Delta::deltanet(2, 5, 7)),
        Gene::Delta(Delta::gated(3, 4, 9)),
        gene("dn(h=2,k=5,v=7,gate,vg=3,neg)"),
        gene("gdn(h=2,k=5,v=3,nogate,vg=2,noconv)"),
        gene("dp(h=2,k=5,v=7,n=2,neg)"),
        gene("gdp(h=2,k=4,v=3,n=3,vg=2,neg)"),
        gene("gdp(h=1,k=4,v=3,n=2,nogate,noconv)"),
        Gene::Mamba2(Mamba2::new(3, 5, 7)),
        gene("lgdn(h=2,k=4,v=3,l=8,vg=2,neg)"),
        gene("lgdn(h=1,k=4,v=5,l=3,nogate,noconv)"),
        gene("lm2(h=3,p=5,n=4,l=9)"),
        gene("attn(h=4,kv=2,k=6,qknorm,srope)"),
        gene("swa(h=2,kv=2,k=4,w=9,srope)"),
        gene("attn(h=4,kv=2,k=8,qknorm,gate,rot=25,theta=1000000)"),
        gene("attn(h=4,kv=2,k=6,qknorm=whole)"),
        gene("attn(h=2,kv=1,k=6,rot=0)"),
        gene("attn(h=2,kv=2,k=4,qknorm=whole,srope,gate)"),
        gene("swa(h=4,kv=1,k=12,w=9,qknorm=whole,gate,rot=50,theta=100)"),
        gene("dn(h=2,k=6,v=5,srope)"),
        gene("gdn(h=5,k=4,v=3,noconv,srope)"),
        gene("gdp(h=2,k=4,v=3,n=2,vg=2,neg,srope)"),
        gene("lgdn(h=3,k=4,v=3,l=8,srope)"),
        gene("attn(h=4,kv=2,k=6,srope,pgate,pbias,pfull,ptemp=learnt)"),
        gene("swa(h=5,kv=5,k=4,w=9,qknorm,srope,pfull,ptemp=rfa)"),
        gene("gdn(h=3,k=4,v=5,neg,srope,pgate,pfull)"),
        gene("dp(h=2,k=6,v=3,n=2,srope,pbias,ptemp=ones)"),
        gene("lgdn(h=2,k=4,v=3,l=8,srope,pgate,pbias,ptemp=learnt)"),
        gene("kda(h=2,k=5,v=7)"),
        gene("gsc(c=12,k=3)"),
        gene("gsc(c=5,k=2)"),
        gene("gsc(c=7,k=8)"),
        gene("par(h=4,kv=2,k=6,bh=3,bk=7,bv=5)"),
        gene("par(h=2,kv=1,k=4,w=9,qknorm,gdn,bh=2,bk=5,bv=7)"),
        gene("par(h=3,kv=3,k=4,rot=50,dn,bh=2,bk=5,bv=3)"),
        gene("par(h=4,kv=2,k=6,bh=3,bk=7,bv=5,nonorms)"),
    ]
}

/// The gene of a text.
pub(crate) fn gene(text: &str) -> Gene {
    let layer: Layer = text.parse().expect("the text is canonical");
    layer.mixer.expect("the text has a mixer")
}

/// A mixer in f64 and its variables.
pub(crate) struct Built {
    pub(crate) gene: Gene,
    pub(crate) mixer: Box<dyn Mixer>,
    pub(crate) variables: Vec<Variable>,
    _store: nn::VarStore,
}

impl Built {
    pub(crate) fn new(gene: Gene, seed: u64) -> Self {
        let mut store = nn::VarStore::new(Device::Cpu);
        let (mixer, variables) = alone(&store.root(), D, gene, seed).expect("the gene is possible");
        store.double();
        randomise(&variables, seed);
        Self { gene, mixer, variables, _store: store }
    }

    /// The value of every variable.
    pub(crate) fn weights(&self) -> HashMap<&str, Vec<f64>> {
        self.variables.iter().map(|v| (v.spec.name.as_str(), numbers(&v.tensor))).collect()
    }
}

/// Values at which no part of a mixer is negligible.
pub(crate) fn randomise(variables: &[Variable], seed: u64) {
    let mut random = Random::new(seed);
    for Variable { spec, tensor } in variables {
        let shape: Vec<i64> = spec.shape.iter().map(|n| n.cast_signed()).collect();
        let value = match spec.role {
            Role::NormWeight | Role::SkipD | Role::PhaseScale => random.tensor(&shape, 0.3) + 1.0,
            Role::ALog | Role::DtBias => random.tensor(&shape, 0.5) - 1.0,
            Role::LevelScale => random.tensor(&shape, 0.5) + 1.0,
            _ => random.tensor(
                &shape,
                if shape.len() == 1 { 0.5 } else { (shape[shape.len() - 1] as f64).powf(-0.5) },
            ),
        };
        tch::no_grad(|| tensor.shallow_clone().copy_(&value));
    }
}

pub(crate) fn numbers(x: &Tensor) -> Vec<f64> {
    Vec::try_from(x.detach().to_kind(Kind::Double).reshape([-1])).expect("a tensor of numbers")
}

/// The largest difference over the largest value.
pub(crate) fn error(got: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(got.size(), expected.size());
    let (got, expected) = (got.to_kind(Kind::Double), expected.to_kind(Kind::Double));
    assert!(bool::try_from(got.isfinite().all()).expect("one value"), "not finite");
    let largest = expected.abs().max().double_value(&[]);
    assert!(largest > 0.0, "nothing to compare with");
    (got - expected).abs().max().double_value(&[]) / largest
}

#[track_caller]
pub(crate) fn assert_close(what: &str, got: &Tensor, expected: &Tensor) {
    let error = error(got, expected);
    assert!(error < 1e-9, "{what}: relative error {error:e}");
}
