//! A model of an expensive function on mixed discrete points: what it predicts, how sure it is, and how much a further
//! point is expected to enlarge the dominated volume.
//!
//! Pure numerics on encoded points. It knows nothing of architectures or proposals: `proposals` calls it.

pub(crate) mod cholesky;
mod ehvi;
mod following;
mod kernel;
mod normal;
mod optimize;
mod process;

pub use ehvi::ExpectedImprovement;
pub use following::Following;
pub use kernel::{Encoded, Feature};
pub use normal::{cdf as normal_cdf, pdf as normal_pdf};
pub(crate) use process::moments;
pub use process::{GaussianProcess, Hyperparameters, Prediction};
