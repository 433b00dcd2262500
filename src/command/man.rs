//! `weft man`: manual pages, made from the help texts of the commands. For those who build packages.

use std::path::PathBuf;

use clap::{Args, CommandFactory};

use crate::failure::{Code, Failure};

/// Writes a manual page for each command.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  weft man --dir ~/.local/share/man/man1")]
pub struct Man {
    /// The directory for the pages (weft.1, weft-proxy.1, weft-proxy-run.1, ...); made if it is not there.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

/// Runs `weft man`.
pub fn run(args: &Man) -> Result<(), Failure> {
    let written = std::fs::create_dir_all(&args.dir)
        .and_then(|()| clap_mangen::generate_to(crate::cli::Cli::command(), &args.dir));
    written.map_err(|error| {
        let line = format!("cannot write to {}: {error}", args.dir.display());
        Failure::new(Code::Failed, line)
    })
}
