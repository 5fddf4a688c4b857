//! A campaign as a state machine without clock or I/O: events in, commands out.
//!
//! The driver in `tui` owns the processes and the store. It builds a [`Campaign`] from what the store holds, tells it
//! which workers exist ([`Event::Workers`]), hands it every reply, and does what the [`Command`]s say, in their order:
//! a [`Command::Save`] is written before the request behind it is sent, so that a kill at any moment leaves a history
//! that goes on where it stood.
//!
//! The life of a candidate: proposed → its parts timed (known ones are not timed again), of the first few the whole model,
//! too, or of all that ([`crate::latency::WholeModels`]) → over a limit? dropped before a token is trained → trained, a failed attempt is repeated → done, infeasible or failed. With rungs a candidate is
//! done at the lowest one first, and is trained on when it is among the best there ([`rungs`]). When all evaluations are
//! over, extra trainings measure how far the front is to be trusted ([`trust`]), its members are timed as whole models, and
//! the first few whole models once more: how far the machine drifts ([`drift`]) is in the error of every latency.
//!
//! Proposals depend on the campaign's seed, the candidate's number and the earlier candidates' outcomes, never on the
//! order in which these arrived. With one trainer, a campaign that was killed and resumed proposes what it would have
//! proposed anyway.

pub mod calibration;
mod candidate;
mod drawn;
pub mod drift;
mod events;
pub mod findings;
pub mod front;
mod kept;
mod latencies;
mod machine;
pub mod measured;
pub mod noise;
pub mod prediction;
mod proposing;
mod results;
pub mod rungs;
mod settings;
mod standing;
mod table;
mod tasks;
pub mod trust;
mod wanted;

pub use candidate::{Candidate, CandidateState, Progress, Trained};
pub use events::{Command, Event, Finish, History};
pub use machine::Campaign;
pub use settings::{Keep, Quiet, Settings};
pub use table::LatencyTable;
