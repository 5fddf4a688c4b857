//! Published findings that small trainings can repeat, or fail to: which stacks are set beside each other, what they are trained
//! on, and what is claimed of them. Data for `deltafront study`, and the judgement of what came out.
//!
//! A study is a campaign of a few given stacks, its arms, each trained from several seeds by the training rule. The same seed is
//! the same data and the same order, so arms are compared seed by seed.

mod published;
mod study;

pub use published::studies;
pub use study::{Arm, Expected, Finding, Judgement, Made, Study, Terms, Verdict};

/// The study of this name.
pub fn named(name: &str) -> Option<Study> {
    studies().into_iter().find(|study| study.name == name)
}
