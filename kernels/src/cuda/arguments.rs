//! The one struct that a kernel takes, as bytes.

/// Fields in the order of the struct: addresses and other 64-bit fields first.
#[derive(Debug, Default)]
pub(crate) struct Arguments(Vec<u8>);

impl Arguments {
    pub(crate) fn addresses(&mut self, values: &[u64]) -> &mut Self {
        self.0.extend(values.iter().flat_map(|value| value.to_ne_bytes()));
        self
    }

    pub(crate) fn counts(&mut self, values: &[usize]) -> &mut Self {
        self.0.extend(values.iter().flat_map(|value| (*value as u32).to_ne_bytes()));
        self
    }

    pub(crate) fn factor(&mut self, value: f32) -> &mut Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    /// With the padding at the end that C++ gives it.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        self.0.resize(self.0.len().next_multiple_of(8), 0);
        std::mem::take(&mut self.0)
    }
}
