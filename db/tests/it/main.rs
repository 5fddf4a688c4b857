//! The store as its callers see it: what goes in comes out, and nothing else can get in.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod disk;
mod frozen;
mod kill;
mod lock;
mod outline;
mod round_trip;
mod samples;
mod version;
mod viewer;
