//! `deltafront browse`: the screens.
