//! The load generator: when a request is due, how it is sent, and how it ended.
//!
//! Data flows one way. A [`plan`] says what to do, [`schedule`] when requests are due; the [`engine`] sends
//! them; each request becomes a [`sample`], samples become [`measurements`], and measurements a [`result`],
//! which is shown, judged and compared. A sidecar is never part of this crate: a tool that measures a mesh
//! speaks to it from outside, with the same protocols as every other client.
//!
//! [`serve`] is the server for a load: its behaviour is known. [`limits`] holds every bound.

mod client;
mod clock;
pub mod compare;
pub mod diff;
mod early_wake;
pub mod engine;
pub mod histogram;
pub mod limits;
pub mod machine;
pub mod measurements;
mod pacer;
pub mod plan;
pub mod replay;
pub mod report;
pub mod result;
pub mod sample;
pub mod schedule;
pub mod search;
pub mod serve;
mod tasks;
pub mod text;
pub mod threshold;
pub mod timeline;
