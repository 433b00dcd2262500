//! Black-box tests of labs by hand (`weft lab up`, `set`, ...), with tools that know nothing of weft
//! (ping, iperf3) as judges of what the emulator does. Scenarios are tested in `tests/lab/`.
//!
//! `harness.rs` brings labs up and down. The tests run one at a time: a neighbour that floods a
//! link of its own takes the CPU that another's timing needs. What other programs of the machine
//! do to a measurement cannot be helped; so a bound that only an idle machine keeps is asserted of
//! the best packets, and of what the emulator says about its own lateness.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "the whole crate is tests: what does not hold must stop them"
)]

mod commands;
mod harness;
mod truth;
