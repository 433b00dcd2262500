//! `weft proxy`: the sidecar, and what one asks a running one.

pub mod flags;
pub mod wrap;
