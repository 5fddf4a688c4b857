//! A stack as a column of blocks.
