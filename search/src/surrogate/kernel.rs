//! How alike two points are: a Matérn-5/2 kernel over a mixed distance, one length scale per feature (ARD).
//!
//! The squared distance adds, over the features, (difference/ℓ)² for numbers and [different]/ℓ² for categories, so
//! that on purely categorical points it is a Hamming distance with learnt weights.

/// What a coordinate of an encoded point is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// A number, scaled to 0..1 over its range; nearness means likeness.
    Number,
    /// The index of a category; two are equal or not.
    Category,
}

/// Points as rows of coordinates, one for each feature.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoded {
    /// What the coordinates are.
    pub features: Vec<Feature>,
    /// The coordinates, row-major `[points, features]`.
    pub rows: Vec<f64>,
}

impl Encoded {
    /// No points yet.
    pub fn new(features: Vec<Feature>) -> Self {
        Self { features, rows: Vec::new() }
    }

    /// Number of points.
    pub fn len(&self) -> usize {
        if self.features.is_empty() { 0 } else { self.rows.len() / self.features.len() }
    }

    /// Whether there are no points.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Adds a point.
    pub fn push(&mut self, row: &[f64]) {
        assert_eq!(row.len(), self.features.len(), "a coordinate for each feature");
        self.rows.extend_from_slice(row);
    }

    /// The coordinates of a point.
    pub fn row(&self, index: usize) -> &[f64] {
        &self.rows[index * self.features.len()..(index + 1) * self.features.len()]
    }
}

/// The squared difference of two coordinates before its length scale.
pub(super) fn squared(feature: Feature, a: f64, b: f64) -> f64 {
    match feature {
        Feature::Number => (a - b) * (a - b),
        Feature::Category => f64::from(u8::from(a.to_bits() != b.to_bits())),
    }
}

/// The Matérn-5/2 correlation at squared distance r².
pub(super) fn matern(r2: f64) -> f64 {
    let r = (5.0 * r2).sqrt();
    (1.0 + r + r * r / 3.0) * (-r).exp()
}

/// The correlation and its derivative by r².
pub(super) fn matern_with_slope(r2: f64) -> (f64, f64) {
    let r = (5.0 * r2).sqrt();
    let e = (-r).exp();
    ((1.0 + r + r * r / 3.0) * e, -5.0 / 6.0 * (1.0 + r) * e)
}
