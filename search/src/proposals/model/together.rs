//! Several of one pool: the best, then who is the best once that one is believed to be what is expected of it, and so on
//! (Kriging believer, Ginsbourger et al. 2010).

use super::super::domain::Domain;
use super::super::trial::Proposal;
use super::learnt::{Model, encoded};
use crate::surrogate::{Following, Prediction};

/// Members of the pool that are looked at for each that is taken.
const MEMBERS: usize = 16;

/// Up to so many of the pool's members, which come best first with their scores.
pub(super) fn taken<D: Domain>(
    domain: &D,
    mut model: Model,
    mut members: Vec<(f64, Proposal<D::Point>)>,
    computed: &dyn Fn(&D::Point) -> Vec<Option<f64>>,
    count: usize,
) -> Vec<Proposal<D::Point>> {
    members.truncate(MEMBERS * count);
    let candidates = encoded(domain, members.iter().map(|(_, member)| &member.point));
    let computed: Vec<Vec<Option<f64>>> =
        members.iter().map(|(_, member)| computed(&member.point)).collect();
    let chances = model.chances(&candidates);
    let processes = std::mem::take(&mut model.objectives);
    let mut following: Vec<Following<'_>> =
        processes.iter().map(|process| process.follow(&candidates)).collect();
    // No score grows by what is believed of others, so one that is behind a new one when it was better is behind it now.
    let mut open: Vec<(f64, usize)> =
        members.iter().enumerate().map(|(index, (score, _))| (*score, index)).collect();
    let mut taken = Vec::new();
    while taken.len() < count {
        let mut best = (0.0, 0);
        for (place, (score, index)) in open.iter_mut().enumerate() {
            if *score <= best.0 {
                break;
            }
            let expected = expected(&model, &following, *index, &computed[*index]);
            *score = model.score(&expected, chances[*index]);
            if *score > best.0 {
                best = (*score, place);
            }
        }
        if best.0 <= 0.0 {
            break;
        }
        let (_, index) = open.remove(best.1);
        let expected = expected(&model, &following, index, &computed[index]);
        model.believe(&expected);
        for process in &mut following {
            process.believe(index);
        }
        taken.push(index);
        open.sort_by(|a, b| b.0.total_cmp(&a.0));
    }
    let mut members: Vec<Option<Proposal<D::Point>>> =
        members.into_iter().map(|(_, member)| Some(member)).collect();
    taken.into_iter().filter_map(|index| members[index].take()).collect()
}

fn expected(
    model: &Model,
    following: &[Following<'_>],
    index: usize,
    computed: &[Option<f64>],
) -> Vec<Prediction> {
    model.knowing(following.iter().map(|process| process.prediction(index)), computed)
}
