//! A latency command: decode and prefill of two stacks.

use search::latency::Conditions;
use search::wire::{Configure, MeasureWhole, Reply, Request};
use serde_json::json;

use super::talk::{Talk, stacks};

/// Positions in the cache of a decode step, tokens of a prefill.
const CONTEXT: u32 = 64;

/// Plays a campaign.
pub(super) async fn check(talk: &mut Talk) {
    let Some(hello) = talk.hello("measure_whole").await else { return };
    let latency = serde_json::from_value(json!({})).expect("every key has a default");
    talk.ask(&Request::Configure(Configure { latency: Some(latency), ..Configure::default() }))
        .await;
    let mut id = 0;
    for architecture in stacks() {
        for phase in [
            json!({ "phase": "decode", "context": CONTEXT }),
            json!({ "phase": "prefill", "tokens": CONTEXT }),
        ] {
            id += 1;
            let mut conditions =
                json!({ "device": hello.device, "dtype": "fp32", "batch": 1, "threads": 1 });
            let both = conditions.as_object_mut().expect("an object");
            both.extend(phase.as_object().expect("an object").clone());
            let conditions: Conditions =
                serde_json::from_value(conditions).expect("conditions of this file");
            let architecture = architecture.clone();
            talk.ask(&Request::MeasureWhole(MeasureWhole { id, architecture, conditions })).await;
            match talk.answer(id, |_| Some("timings have no progress".to_owned())).await {
                Some(Reply::Timing(measured)) => {
                    let timing = measured.timing;
                    if timing.median_us <= 0.0 {
                        talk.wrong("`median_us` is 0: no model takes no time");
                    }
                    if timing.samples == 0 {
                        talk.wrong("`samples` is 0: a timing is of something that was timed");
                    }
                    if timing.kernels.trim().is_empty() {
                        talk.wrong("`kernels` is empty: it says which software took that long");
                    }
                    if timing.spread_us == 0.0 {
                        Talk::remark(
                            "`spread_us` is 0: the front would be drawn as if this timing had no error",
                        );
                    }
                }
                Some(Reply::Infeasible(refusal)) => {
                    Talk::remark(&format!(
                        "this stack would never be on a front: {}",
                        refusal.reason
                    ));
                }
                Some(Reply::Failed(refusal)) => {
                    talk.wrong(&format!("a timing that should work failed: {}", refusal.reason));
                }
                Some(_) => {
                    talk.wrong(
                        "a `measure_whole` is answered by `timing`, `infeasible` or `failed`",
                    );
                }
                None => return,
            }
        }
    }
    talk.unknown().await;
}
