//! Black-box tests of `weft load`: the real command against `weft load serve`, whose behaviour is known, so
//! that every figure can be compared with the true value.
//!
//! Bounds are wide on the slow side, because tests share their machine, and tight on the other: no figure may
//! look better than the truth. `harness.rs` runs the two.

#![allow(
    clippy::unwrap_used,
    reason = "the whole crate is tests: what does not hold must stop them"
)]

mod harness;

mod beside_wrk;
mod compare;
mod ends;
mod errors;
mod latency;
mod protocols;
mod resends;
mod results;
mod secure;
