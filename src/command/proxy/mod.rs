//! `weft proxy`: runs the sidecar, and asks a running sidecar.

mod admin;
mod advertise;
pub mod flags;
mod run;
mod upkeep;
mod wrap;

use clap::{Args, Subcommand};

pub use run::config_addresses;

use crate::failure::Failure;

/// Runs a sidecar, or asks a running one.
#[derive(Debug, Args)]
pub struct Proxy {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
#[expect(
    clippy::large_enum_variant,
    reason = "one value per process, moved twice"
)]
enum Command {
    /// Run a sidecar, and an application inside its life if there is one after --
    Run(run::Run),
    /// Show whether a sidecar is ready, as whom, and what it is connected to
    Status(admin::Status),
    /// Print the table that a sidecar runs, as JSON
    Config(admin::Dump),
    /// Ask a sidecar to drain and end
    Drain(admin::Drain),
    /// Show what a sidecar logs, or change it
    Logging(admin::Logging),
}

/// Runs `weft proxy`.
pub fn run(args: Proxy) -> Result<(), Failure> {
    match args.command {
        Command::Run(args) => run::run(args),
        Command::Status(args) => admin::status(&args),
        Command::Config(args) => admin::dump(&args),
        Command::Drain(args) => admin::drain(&args),
        Command::Logging(args) => admin::logging(args),
    }
}
