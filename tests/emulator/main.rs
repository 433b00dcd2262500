//! Black-box tests of labs by hand (`weft lab up`, `set`, ...). Tools that know nothing of weft (ping,
//! iperf3) judge the emulator. Scenarios are tested in `tests/lab/`.
//!
//! `harness.rs` brings labs up and down. The tests run one at a time: a test that floods its own link takes
//! CPU time that the timing of another test needs. The load of other programs on the machine cannot be
//! excluded. So bounds that only an idle machine keeps are asserted of the best packets, and of the lateness
//! that the emulator itself reports.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "the whole crate is tests: what does not hold must stop them"
)]

mod commands;
mod harness;
mod truth;
