//! TODO-DOC operators
