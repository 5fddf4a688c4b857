//! TODO-DOC evaluator
