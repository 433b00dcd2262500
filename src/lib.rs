//! The commands: `weft` for the CA, the config service, the sidecar and their operators, and `weft-proxy` for
//! sidecars alone.
//!
//! `cli.rs` lists the subcommands, `command/` has one file for each, `failure.rs` the exit codes. The crates
//! `weft_ca`, `weft_config` and `weft_proxy` do the work; this crate reads flags, starts runtimes and prints.
//! It is a library for its two programs (`bin/`) and its tests, and for no other crate.

#![expect(
    unreachable_pub,
    reason = "nothing outside uses it but its programs: pub says that other files use it"
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

/// The program `weft`.
pub fn weft() -> ExitCode {
    let cli::Cli { life, command } = cli::Cli::parse();
    run(&life, || command.run())
}

/// The program `weft-proxy`: the subcommands of `weft proxy`. It has no code of the control plane, the lab
/// and the load generator, so an idle sidecar holds less memory.
pub fn weft_proxy() -> ExitCode {
    let cli::SidecarCli { life, proxy } = cli::SidecarCli::parse();
    run(&life, || command::proxy::run(proxy))
}

fn run(life: &cli::Life, command: impl FnOnce() -> Result<(), failure::Failure>) -> ExitCode {
    if let Some(parent) = life.die_with {
        process::die_with(parent);
    }
    match command() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.line.is_empty() {
                output::note(format_args!("weft: {}", output::printable(&failure.line)));
            }
            ExitCode::from(failure.code)
        }
    }
}
