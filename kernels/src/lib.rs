//! TODO-DOC kernels
