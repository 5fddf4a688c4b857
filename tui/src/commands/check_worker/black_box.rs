//! A black box: its space, and values at points of it.

use search::parameters::ParameterSpace;
use search::wire::{Eval, PROTOCOL, Reply, Request};

use super::talk::Talk;

/// Points that are asked about.
const POINTS: u64 = 4;
/// Objectives that a front may have.
const OBJECTIVES: std::ops::RangeInclusive<usize> = 1..=4;

/// Plays a campaign.
pub(super) async fn check(talk: &mut Talk) {
    talk.ask(&Request::Space { protocol: PROTOCOL }).await;
    let Some(Reply::Space(reply)) = talk.first().await else {
        return talk
            .wrong("`space` is answered by the parameters and objectives, as the first line");
    };
    if !OBJECTIVES.contains(&reply.objectives.len()) {
        talk.wrong(&format!("{} objectives; a front has one to four", reply.objectives.len()));
    }
    let space = match ParameterSpace::new(reply.parameters.clone()) {
        Ok(space) => space,
        Err(error) => return talk.wrong(&format!("this space is not possible: {error}")),
    };
    for id in 1..=POINTS {
        let Some(parameters) = space.drawn(id) else {
            return talk.wrong("no point of this space could be drawn");
        };
        talk.ask(&Request::Eval(Eval { id, attempt: 1, parameters, seed: id })).await;
        match talk.answer(id, |_| None).await {
            Some(Reply::Values(values)) => {
                let lacks: Vec<&str> = reply
                    .objectives
                    .iter()
                    .map(search::wire::ObjectiveSpec::value_name)
                    .filter(|name| values.values.keys().all(|known| known != *name))
                    .collect();
                if !lacks.is_empty() {
                    talk.wrong(&format!("the values lack {}", lacks.join(", ")));
                }
            }
            Some(Reply::Infeasible(refusal)) => {
                Talk::remark(&format!("this point would never be on a front: {}", refusal.reason));
            }
            Some(Reply::Failed(refusal)) => {
                talk.wrong(&format!("an evaluation that should work failed: {}", refusal.reason));
            }
            Some(_) => talk.wrong("an `eval` is answered by `values`, `infeasible` or `failed`"),
            None => return,
        }
    }
}
