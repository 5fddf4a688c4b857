//! The wire protocol between the driver and every worker: one JSON object a line, requests on the worker's stdin,
//! replies on its stdout. The worker's stderr is its log.
//!
//! A worker says [`Reply::Hello`] first. The driver may say [`Request::Configure`] once, then any number of requests.
//! Every request that carries an `id` is answered by exactly one final reply with that `id`
//! (`result`, `timing`, `checked`, `infeasible` or `failed`), with any number of `progress` lines before it.
//! A `configure` is answered only if it cannot be used: by `failed` with [`CONFIGURE_ID`].
//!
//! A black box is a worker that says nothing first: it is asked for its [`Request::Space`] and answers with
//! [`Reply::Space`], then for values at points of it, one [`Request::Eval`] at a time, each answered by `values`,
//! `infeasible` or `failed`. It may pass over requests that it does not know.
//!
//! End of input means: finish nothing, exit. A line that does not parse, a value that is not finite, silence beyond the
//! timeout, or an exit counts as a failed attempt.

mod line;
mod reply;
mod request;

use schemars::Schema;

pub use crate::metric::Direction;
pub use crate::value::Value;
pub use line::WireError;
pub use reply::{
    Checked, Evaluation, Hello, LayerRetrieval, Measured, Memory, ObjectiveSpec, PARTS_MAX,
    Progress, Refusal, Remark, Reply, SpaceReply, Values,
};
pub use request::{Check, Configure, Eval, Evaluate, Measure, MeasureLimit, MeasureWhole, Request};

/// The version of this protocol. A worker of another version is refused.
pub const PROTOCOL: u32 = 1;

/// The id of the `failed` that answers a [`Request::Configure`] which cannot be used (a missing corpus, say): nothing the
/// driver could evaluate would succeed, so it should end the campaign with that reason. Evaluations have other ids.
pub const CONFIGURE_ID: u64 = 0;

/// The JSON Schema of what a driver says, generated from [`Request`].
pub fn request_schema() -> Schema {
    schemars::schema_for!(Request)
}

/// The JSON Schema of what a worker says, generated from [`Reply`].
pub fn reply_schema() -> Schema {
    schemars::schema_for!(Reply)
}
