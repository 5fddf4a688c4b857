//! What a sequence leaves in half a layer.

use super::cache::Cache;
use super::recurrent::Recurrent;
use crate::weights::SplitMix;

/// What one sequence left in one sublayer.
#[derive(Debug, Clone)]
pub(crate) enum Memory {
    /// Keys and values of positions.
    Cache(Cache),
    /// The state of a recurrent mixer.
    Recurrent(Recurrent),
    /// What each of two mixers left that read the same input.
    Both(Box<[Memory; 2]>),
    /// Nothing: a feed-forward network has no past.
    None,
}

impl Memory {
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Cache(cache) => cache.bytes(),
            Self::Recurrent(state) => state.bytes(),
            Self::Both(both) => both.iter().map(Self::bytes).sum(),
            Self::None => 0,
        }
    }

    /// See [`super::State::rewind`].
    pub(crate) fn rewind(&mut self, position: usize) {
        match self {
            Self::Cache(cache) => cache.rewind(position),
            Self::Recurrent(state) => state.rewind(position),
            Self::Both(both) => both.iter_mut().for_each(|memory| memory.rewind(position)),
            Self::None => {}
        }
    }

    /// See [`super::State::steps`].
    pub(crate) fn steps(&self, position: usize) -> usize {
        match self {
            Self::Recurrent(state) => state.steps(position),
            Self::Both(both) => both.iter().map(|memory| memory.steps(position)).max().unwrap_or(1),
            Self::Cache(_) | Self::None => 1,
        }
    }

    /// As if `position` positions had been seen, with values from `random`.
    pub(super) fn pretend(&mut self, position: usize, random: &mut SplitMix) {
        match self {
            Self::Cache(cache) => cache.pretend(position, random),
            Self::Recurrent(state) => state.pretend(position, random),
            Self::Both(both) => {
                both.iter_mut().for_each(|memory| memory.pretend(position, random));
            }
            Self::None => {}
        }
    }

    fn branch(&mut self, index: usize) -> &mut Self {
        match self {
            Self::Both(both) => &mut both[index],
            _ => panic!("the state is of another engine: parallel heads need two"),
        }
    }

    /// The memory of one of two mixers, for as long as that works.
    pub(super) fn take_branch(&mut self, index: usize) -> Self {
        std::mem::replace(self.branch(index), Self::None)
    }

    /// Gives it back.
    pub(super) fn give_branch(&mut self, index: usize, memory: Self) {
        *self.branch(index) = memory;
    }

    pub(super) fn cache(&mut self) -> &mut Cache {
        match self {
            Self::Cache(cache) => cache,
            _ => panic!("the state is of another engine: an attention layer needs a cache"),
        }
    }

    pub(super) fn recurrent(&mut self) -> &mut Recurrent {
        match self {
            Self::Recurrent(state) => state,
            _ => panic!("the state is of another engine: a recurrent layer needs a state"),
        }
    }
}
