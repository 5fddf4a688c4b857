//! `deltafront browse`: the screens, live on a database that another process may be writing.
//!
//! A functional core: [`State`], [`Message`], [`update`] (pure, gives [`Effect`]s) and [`view`] (pure). Around it one
//! loop that reads keys, signals and the store, and a guard that gives the terminal back on every way out. Nothing
//! here writes to the store.

mod details;
mod frame;
mod progress;
mod rows;
mod run;
mod state;
mod table;
mod terminal;
mod trace;
mod update;
mod view;

pub use progress::Progress;
pub use rows::{Column, Filter, Order, Sort, StateFilter};
pub use run::{Export, run};
pub use state::{Notice, State, Zoom};
pub use update::{Effect, Message, update};
pub use view::view;
