//! The load generator: when a request is due, how it is sent, and what became of it.
//!
//! Data flows one way. [`schedule`] says when requests are due; what happened to each becomes a
//! [`sample`], samples become [`measurements`], and measurements a result. A sidecar is never inside of this crate:
//! what measures a mesh speaks to it from outside, with the same protocols as every other client.
//!
//! [`limits`] holds every bound.

pub mod histogram;
pub mod limits;
pub mod measurements;
pub mod sample;
pub mod schedule;
pub mod timeline;
