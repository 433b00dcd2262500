//! `weft lab exec`: a command on a host of a lab, at this terminal.

use std::ffi::OsString;

use clap::Args;
use weft_netem_tests::lab::join;

use super::LabFlag;
use crate::failure::Failure;

/// Flags of `weft lab exec`.
#[derive(Debug, Args)]
#[command(
    after_help = "The exit code is the command's. It ends with the lab at the latest.\n\n\
                        weft lab exec client -- ping server"
)]
pub struct Exec {
    #[command(flatten)]
    which: LabFlag,
    /// The host or router
    host: String,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

pub fn run(args: &Exec) -> Result<(), Failure> {
    let directory = args.which.find()?;
    match join::exec(&directory, &args.host, &args.command)? {
        0 => Ok(()),
        code => Err(Failure::of_command(code)),
    }
}
