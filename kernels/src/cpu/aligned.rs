//! Memory that begins at a cache line, so that no vector of it lies across two: for weights, states and caches, which
//! every decode step reads whole.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use bytemuck::{Pod, Zeroable};

#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

// SAFETY: 64 bytes without padding, for which all patterns are valid, zeros among them.
unsafe impl Zeroable for Line {}
// SAFETY: as above.
unsafe impl Pod for Line {}

/// Elements from the beginning of a cache line on.
#[derive(Debug, Clone)]
pub struct Aligned<T> {
    lines: Vec<Line>,
    len: usize,
    element: PhantomData<T>,
}

impl<T: Pod> Aligned<T> {
    /// So many zeros.
    pub fn zeros(len: usize) -> Self {
        Self { lines: vec![Line([0; 64]); lines::<T>(len)], len, element: PhantomData }
    }

    /// Cuts the end off, or adds zeros to it.
    pub fn resize(&mut self, len: usize) {
        self.lines.resize(lines::<T>(len), Line([0; 64]));
        let old = std::mem::replace(&mut self.len, len);
        if let Some(added) = self.get_mut(old..) {
            added.fill(T::zeroed());
        }
    }
}

/// Lines that hold `len` elements.
fn lines<T>(len: usize) -> usize {
    (len * size_of::<T>()).div_ceil(size_of::<Line>())
}

impl<T: Pod> Deref for Aligned<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &bytemuck::cast_slice::<Line, T>(&self.lines)[..self.len]
    }
}

impl<T: Pod> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut bytemuck::cast_slice_mut::<Line, T>(&mut self.lines)[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_is_zero_whatever_stood_there() {
        let mut values = Aligned::<f32>::zeros(20);
        assert_eq!(values.as_ptr() as usize % 64, 0);
        values.fill(1.0);
        values.resize(3);
        assert_eq!(*values, [1.0; 3]);
        values.resize(40);
        assert_eq!(values[..3], [1.0; 3]);
        assert_eq!(values[3..], [0.0; 37]);
        values.resize(0);
        assert!(values.is_empty());
    }
}
