//! What sidecars count of their calls for the control plane: what `weft stat` shows. Pure.
//!
//! A sidecar counts by edge ([`EdgeKey`]: who calls which port of which service, by which rule of a route),
//! and tells the config service every [`limits::SIGNALS_INTERVAL`] what came since it did so last
//! ([`EdgeCounts`]). The config service keeps that for a while: `server/signals.rs`. `client/observation.rs`
//! is the stream between them.

mod counts;
mod edge;
mod histogram;
mod recent;

pub use counts::{EdgeCounts, Ended};
pub use edge::{EdgeKey, Side};
pub use histogram::Durations;
pub use recent::{RecentFilter, is_named, workload};

use crate::limits;

const _: () = assert!(limits::SIGNALS_INTERVAL.as_secs() > 0);
