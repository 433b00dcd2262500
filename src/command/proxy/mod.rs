//! The settings of a sidecar as flags, and the life of a wrapped application.

pub mod flags;
pub mod wrap;
