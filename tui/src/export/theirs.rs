//! Tensors of other software, made of ours.

/// A tensor under the names of other software.
pub(crate) struct Theirs {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    /// Our tensors that it is made of.
    pub(crate) of: Vec<String>,
    /// How, from their values, row by row.
    pub(crate) make: Make,
}

/// How a tensor is made of ours.
pub(crate) type Make = Box<dyn Fn(Vec<Vec<f32>>) -> Vec<f32> + Send + Sync>;

impl Theirs {
    /// Ours one after the other: what concatenates rows, and what gives a tensor another shape.
    pub(crate) fn rows(name: impl Into<String>, shape: &[u64], of: &[&str]) -> Self {
        Self::made(name, shape, of, |ours| ours.concat())
    }

    /// Made by a function.
    pub(crate) fn made(
        name: impl Into<String>,
        shape: &[u64],
        of: &[&str],
        make: impl Fn(Vec<Vec<f32>>) -> Vec<f32> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            shape: shape.iter().map(|&n| n as usize).collect(),
            of: of.iter().map(|&name| name.to_owned()).collect(),
            make: Box::new(make),
        }
    }
}
