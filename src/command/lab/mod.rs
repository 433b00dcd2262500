//! `weft lab`: networks with faults on this machine, for any program. `weft_netem_tests` does the work; this
//! reads flags and prints results.

mod backend;
mod check;
mod down;
mod exec;
mod list;
mod run;
mod runner;
mod scenarios;
mod set;
mod status;
mod up;

use clap::{Args, Subcommand};
use weft_netem_tests::lab::control::CallError;
use weft_netem_tests::lab::join::JoinError;
use weft_netem_tests::lab::sandbox::SandboxError;
use weft_netem_tests::lab::{Base, Directory, StateError};

use crate::failure::{Code, Failure, chain};

/// Make networks with faults on this machine, and run programs in them
#[derive(Debug, Args)]
#[command(
    after_help = "A lab is hosts (network namespaces) and links between them. Each link may delay, \
                  lose,\nreorder, duplicate or damage packets, or limit their rate, in each \
                  direction on its own.\nRoot, or a kernel that lets users make user namespaces: \
                  `weft lab check`."
)]
pub struct Lab {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the scenarios that ship, or show one
    List(list::List),
    /// Run scenarios and check their claims
    Run(run::Run),
    /// Run a scenario with every combination of some settings
    Matrix(run::Matrix),
    /// Check scenario files without running them
    Validate(list::Validate),
    /// Make the hosts and links of a scenario's topology, and leave them up
    Up(up::Up),
    /// Run a command on a host of a lab
    Exec(exec::Exec),
    /// Change what a link does to packets
    Set(set::Set),
    /// Make the NAT of a link forget its mappings
    Rebind(set::Rebind),
    /// Give a host another address
    Move(set::Move),
    /// Show hosts, links and the counts of their packets
    Status(status::Status),
    /// End a lab and everything in it
    Down(down::Down),
    /// Show what this machine can do
    Check(check::Check),
    #[command(hide = true)]
    Hold(up::Hold),
}

/// Which lab.
#[derive(Debug, Args)]
pub struct LabFlag {
    /// The lab; needed only if several are up
    #[arg(long, value_name = "NAME")]
    lab: Option<String>,
}

/// Runs the subcommand.
pub fn run(args: Lab) -> Result<(), Failure> {
    match args.command {
        Command::List(args) => list::list(&args),
        Command::Run(args) => run::run(&args),
        Command::Matrix(args) => run::matrix(&args),
        Command::Validate(args) => list::validate(&args),
        Command::Up(args) => up::run(&args),
        Command::Exec(args) => exec::run(&args),
        Command::Set(args) => set::run(&args),
        Command::Rebind(args) => set::rebind(&args),
        Command::Move(args) => set::change_address(&args),
        Command::Status(args) => status::run(&args),
        Command::Down(args) => down::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Hold(args) => up::hold(&args),
    }
}

impl LabFlag {
    fn find(&self) -> Result<Directory, Failure> {
        Ok(base().find(self.lab.as_deref())?)
    }
}

/// Where this user's labs are.
fn base() -> Base {
    Base::of_user(std::env::var_os("XDG_RUNTIME_DIR").map(Into::into))
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        let code = match &error {
            StateError::Name(_) => Code::Usage,
            StateError::Io { source, .. }
                if source.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                Code::NotPermitted
            }
            StateError::Exists(_)
            | StateError::NoLab
            | StateError::NoSuchLab { .. }
            | StateError::Several { .. }
            | StateError::Io { .. } => Code::Failed,
        };
        Self::new(code, chain(&error))
    }
}

impl From<SandboxError> for Failure {
    fn from(error: SandboxError) -> Self {
        let code = match &error {
            SandboxError::Forbidden { .. } => Code::NotPermitted,
            SandboxError::System { .. } => Code::Failed,
        };
        Self::new(code, chain(&error))
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        Self::new(Code::Failed, chain(&error))
    }
}

impl From<JoinError> for Failure {
    fn from(error: JoinError) -> Self {
        Self::new(Code::Failed, chain(&error))
    }
}
