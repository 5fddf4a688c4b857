//! The SQLite store of campaigns: one file that holds every campaign, candidate, value, curve and latency.
//!
//! The driver (`deltafront run`) is the only writer: it takes a [`Run`] on its campaign and hands over [`Change`]s, one
//! transaction for each event, so that a `kill -9` loses at most the work that was running. Everybody else opens the
//! file read-only, leaves nothing beside it, and reads [`snapshot::Snapshot`]s, live if they like: [`Store::refresh`] and
//! [`Store::revision`] are cheap. Who shows many
//! candidates asks for an [`Store::outline`], before it for a [`Store::glance`], who lists campaigns for a [`Store::tally`], who shows one candidate for
//! [`Store::candidate`]: only what is shown is read.
//!
//! The store decides nothing: what a candidate is worth is `search`'s business. It refuses what must never be stored:
//! a value that is not finite, a second driver on one campaign, a file of a newer version. Its tables as they are now, with
//! what each column holds, are in `schema.sql`.
//!
//! ```
//! use db::snapshot::CampaignKind;
//! use db::{Access, Change, NewCampaign, Owner, RunEnd, Store};
//!
//! # let folder = std::env::temp_dir().join(format!("deltafront-{}", std::process::id()));
//! # std::fs::create_dir_all(&folder)?;
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let store = Store::open(&folder.join("deltafront.db"), Access::ReadWrite).await?;
//! let new = NewCampaign {
//!     name: "small".to_owned(),
//!     config_toml: "name = \"small\"".to_owned(),
//!     config_folder: "/data".to_owned(),
//!     kind: CampaignKind::Stacks,
//!     seed: 0,
//!     evaluations: 24,
//!     tokens: 262_144,
//!     target_tokens: 262_144,
//!     objectives: vec!["bits_per_byte".parse()?, "-throughput".parse()?],
//!     latency: search::config::LatencyConfig::default(),
//! };
//! store.create_campaign(&new).await?;
//! let run = store.begin_run("small", &Owner::current(), "0.1.0").await?;
//! let note = Change::Event { kind: "note".to_owned(), body: "it begins".to_owned() };
//! store.apply(&run, &[note]).await?;
//! store.end_run(&run, RunEnd::Paused).await?;
//! let snapshot = store.snapshot("small").await?;
//! assert_eq!(snapshot.campaign.objectives, new.objectives);
//! assert!(snapshot.candidates.is_empty());
//! store.close().await;
//! # std::fs::remove_dir_all(&folder)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod campaigns;
mod candidates;
mod changes;
mod circumstances;
mod columns;
mod contenders;
mod error;
mod file;
mod glance;
mod latencies;
mod log;
mod open;
pub mod optuna;
mod outline;
mod process;
mod read;
mod row;
mod runs;
pub mod snapshot;
mod trainers;
mod viewing;
mod way;

pub use campaigns::NewCampaign;
pub use changes::Change;
pub use circumstances::Circumstance;
pub use error::DbError;
pub use glance::{Glance, Mark};
pub use log::{EventRow, RunRow, WorkerRow, profiler_of};
pub use open::{Access, SCHEMA_VERSION, Store};
pub use process::{Owner, WATCH_S};
pub use runs::{Run, RunEnd};
pub use trainers::TrainedBy;
