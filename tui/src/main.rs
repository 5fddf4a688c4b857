//! TODO-DOC tui
fn main() {}
