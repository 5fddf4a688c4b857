//! TODO-DOC db
