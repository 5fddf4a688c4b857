//! Which of many observations a model is made from.

use std::collections::HashSet;

use super::super::select::preference;
use super::super::trial::Known;

/// How many of the first observations hyperparameters are fitted to: grows in steps, so that most proposals find them
/// fitted, and is a function of the observations alone.
pub(super) fn fitted(observations: usize) -> usize {
    let mut count = observations.min(4);
    while count + (count / 12).max(1) <= observations {
        count += (count / 12).max(1);
    }
    count
}

/// The observations that the model sees, ascending.
pub(super) fn chosen<P>(known: &[Known<'_, P>], most: usize) -> Vec<usize> {
    if known.len() <= most {
        return (0..known.len()).collect();
    }
    let all: Vec<&Known<'_, P>> = known.iter().collect();
    let mut chosen: HashSet<usize> = preference(&all).into_iter().take(most / 2).collect();
    // The latest say where the search is; an even sample of all says where it need not go.
    let latest = (0..known.len()).rev().take(most / 4);
    let spread = (0..most).map(|index| index * known.len() / most);
    for index in latest.chain(spread).chain((0..known.len()).rev()) {
        if chosen.len() == most {
            break;
        }
        chosen.insert(index);
    }
    let mut chosen: Vec<usize> = chosen.into_iter().collect();
    chosen.sort_unstable();
    chosen
}

/// At most so many of the labelled points, ascending: the latest, and of neither label so few that it is forgotten.
pub(super) fn balanced<P>(labelled: &[(P, f64)], most: usize) -> Vec<usize> {
    if labelled.len() <= most {
        return (0..labelled.len()).collect();
    }
    let (good, bad): (Vec<usize>, Vec<usize>) =
        (0..labelled.len()).partition(|&index| labelled[index].1 > 0.5);
    let bad_kept = bad.len().min(most / 2).max(most.saturating_sub(good.len()));
    let good_kept = most - bad_kept;
    let mut kept = good[good.len() - good_kept..].to_vec();
    kept.extend(&bad[bad.len() - bad_kept..]);
    kept.sort_unstable();
    kept
}
