//! What to evaluate next: ask/tell without memory. A [`Proposer`] is asked with all trials so far and answers with the
//! next point; the answer is a pure function of its settings, the number asked for, and the trials. Whoever keeps the
//! trials can therefore stop, resume, or ask for many points at once, and no state of the proposer has to be stored.
//!
//! No point is ever proposed twice, whatever became of it: failed, infeasible and pending ones count as seen.
//!
//! One file per algorithm; all of them work on any [`Domain`], architectures and black boxes alike.

mod ageing;
mod architectures;
mod domain;
mod local;
mod model;
mod nsga2;
mod proposer;
mod random;
mod select;
mod trial;

pub use domain::{Domain, SearchRng};
pub use proposer::{Algorithm, Exhausted, Proposer};
pub use trial::{Origin, Outcome, Proposal, Trial};
