//! Softmax attention on the CPU: one token against a cache.

use half::bf16;
use half::slice::HalfBitsSliceExt;

use crate::cpu::{Aligned, Element, Kernel, Precision, Simd, vector};

/// The keys or the values of one head of a cache.
#[derive(Debug, Clone)]
pub enum Cached {
    /// As they are.
    F32(Aligned<f32>),
    /// The bits of bf16.
    Bf16(Aligned<u16>),
}

impl Cached {
    /// Nothing yet.
    pub fn new(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32(Aligned::zeros(0)),
            Precision::Bf16 => Self::Bf16(Aligned::zeros(0)),
        }
    }

    /// Numbers.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(all) => all.len(),
            Self::Bf16(all) => all.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that they take.
    pub fn bytes(&self) -> usize {
        match self {
            Self::F32(all) => size_of_val(&all[..]),
            Self::Bf16(all) => size_of_val(&all[..]),
        }
    }

    /// Cuts the end off, or adds zeros to it.
    pub fn resize(&mut self, len: usize) {
        match self {
            Self::F32(all) => all.resize(len),
            Self::Bf16(all) => all.resize(len),
        }
    }

    /// Puts numbers in place of those from `at` on.
    pub fn write(&mut self, at: usize, x: &[f32]) {
        match self {
            Self::F32(all) => all[at..at + x.len()].copy_from_slice(x),
            Self::Bf16(all) => all[at..at + x.len()]
                .reinterpret_cast_mut::<bf16>()
                .iter_mut()
                .zip(x)
                .for_each(|(to, x)| *to = bf16::narrow(*x)),
        }
    }

    /// Reads the numbers from `at` on.
    pub fn read(&self, at: usize, x: &mut [f32]) {
        match self {
            Self::F32(all) => x.copy_from_slice(&all[at..at + x.len()]),
            Self::Bf16(all) => {
                let from = all[at..at + x.len()].reinterpret_cast::<bf16>();
                x.iter_mut().zip(from).for_each(|(x, from)| *x = from.widen());
            }
        }
    }
}

/// One position, the query heads that share one key/value head, against that head's cache.
///
/// The order of the cached positions does not matter, so a ring buffer serves a window as it is.
#[derive(Debug)]
pub struct Decode<'a> {
    /// `[G, K]`
    pub q: &'a [f32],
    /// `[C, K]`, the current position's included.
    pub keys: &'a Cached,
    /// `[C, V]`, in the numbers of the keys.
    pub values: &'a Cached,
    /// K.
    pub key_width: usize,
    /// V.
    pub value_width: usize,
    /// Factor of the scores.
    pub scale: f32,
    /// `[C]`, overwritten.
    pub scores: &'a mut [f32],
    /// o, `[G, V]`, overwritten.
    pub o: &'a mut [f32],
}

impl Kernel for Decode<'_> {
    type Output = ();

    #[inline(always)]
    fn body<S: Simd>(self, s: S) {
        match (self.keys, self.values) {
            (Cached::F32(keys), Cached::F32(values)) => self.over(s, &keys[..], &values[..]),
            (Cached::Bf16(keys), Cached::Bf16(values)) => {
                self.over::<S, bf16>(s, keys.reinterpret_cast(), values.reinterpret_cast());
            }
            _ => panic!("attention decode: keys and values must be of one precision"),
        }
    }
}

impl Decode<'_> {
    #[inline(always)]
    fn over<S: Simd, E: Element>(self, s: S, keys: &[E], values: &[E]) {
        let Self { q, key_width, value_width, scale, scores, o, .. } = self;
        assert_eq!(keys.len(), scores.len() * key_width, "attention decode: keys must be [C, K]");
        assert_eq!(
            values.len(),
            scores.len() * value_width,
            "attention decode: values must be [C, V]"
        );
        for (q, o) in q.chunks_exact(key_width).zip(o.chunks_exact_mut(value_width)) {
            vector::dots(s, q, keys, scores);
            vector::scale(s, scale, scores);
            let sum = vector::exp_and_sum(s, vector::largest(s, scores), scores);
            vector::weighted_sum(s, scores, values, o);
            vector::scale(s, 1.0 / sum, o);
        }
    }
}
