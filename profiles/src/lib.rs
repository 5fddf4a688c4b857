//! TODO-DOC profiles
