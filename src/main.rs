//! The `weft` command: one binary for the CA, the config service, the sidecar and their operators.
//!
//! `cli.rs` lists the subcommands, `command/` has one file for each, `failure.rs` the exit codes. The crates
//! `weft_ca`, `weft_config` and `weft_proxy` do the work; this crate reads flags, starts runtimes and prints.

#![expect(
    unreachable_pub,
    reason = "a binary has no outside: pub says that other files use it"
)]

mod admin_client;
mod admin_place;
mod children;
mod cli;
mod command;
mod context;
mod control_admin;
mod failure;
mod identity;
mod import;
mod orphans;
mod output;
mod process;
mod process_metrics;
mod settings_file;
mod telemetry;

use std::process::ExitCode;

use clap::Parser;

/// Half of the sidecar's time per request is spent in code that allocates; this allocator is made for many
/// small, short-lived buffers on few threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    if let Some(parent) = cli.die_with {
        process::die_with(parent);
    }
    match cli.command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.line.is_empty() {
                output::note(format_args!("weft: {}", output::printable(&failure.line)));
            }
            ExitCode::from(failure.code)
        }
    }
}
