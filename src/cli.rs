//! The command line: the subcommands and their help texts. Flags are data; each `command/*.rs` owns its own.

use clap::{Args, Parser, Subcommand};

use crate::command;

/// The exit codes of both programs; `failure.rs` has them.
const EXIT_CODES: &str = "\
    Exit codes: 0 good, 1 failed or not there, 2 wrong usage, 65 bad data, 69 control plane unreachable,\n\
    70 ended by a fault of its own, 77 not permitted, 99 a threshold failed, 130 interrupted.\n\
    Logs go to stderr; WEFT_LOG=debug says more.";

/// As `--version` says it.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), env!("WEFT_COMMIT_BESIDE"));

/// A service mesh whose wire is HTTP/3.
#[derive(Debug, Parser)]
#[command(
    name = "weft",
    version = VERSION,
    propagate_version = true,
    max_term_width = 100,
    after_help = EXIT_CODES
)]
pub struct Cli {
    #[command(flatten)]
    pub life: Life,
    #[command(subcommand)]
    pub command: Command,
}

/// A sidecar of weft, and nothing else: the commands of `weft proxy` in a smaller program.
#[derive(Debug, Parser)]
#[command(
    name = "weft-proxy",
    version = VERSION,
    propagate_version = true,
    max_term_width = 100,
    after_help = EXIT_CODES
)]
pub struct SidecarCli {
    #[command(flatten)]
    pub life: Life,
    #[command(flatten)]
    pub proxy: command::proxy::Proxy,
}

/// How long the process lives.
#[derive(Debug, Args)]
pub struct Life {
    /// End when the process with this id ends; for commands that start weft themselves
    #[arg(long, global = true, hide = true, value_name = "PID")]
    pub die_with: Option<i32>,
}

/// The subcommands, in the order in which a newcomer needs them.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a whole mesh on this machine and show what it does
    Demo(command::demo::Demo),
    /// Make, run and look after the certificate authority
    Ca(command::ca::Ca),
    /// Run and look after the config service
    Config(command::config::Config),
    /// Log in to a config service as an operator
    Login(command::login::Login),
    /// Remove a login from this host
    Logout(command::logout::Logout),
    /// Run a sidecar, or ask a running one
    Proxy(command::proxy::Proxy),
    /// Apply resources as one revision, and wait until the sidecars run it
    Apply(command::change::Apply),
    /// List sidecars, revisions or resources
    Get(command::get::Get),
    /// Delete resources as one revision
    Delete(command::change::Delete),
    /// Show what applying would change
    Diff(command::change::Diff),
    /// Make the resources of an earlier revision a new one
    Rollback(command::change::Rollback),
    /// Turn the resources of Istio or Linkerd into weft's
    Import(command::import::Import),
    /// Check resources without a config service
    Validate(command::change::Validate),
    /// Show the state of each endpoint as a sidecar sees it, and why one gets no requests
    Endpoints(command::endpoints::Endpoints),
    /// Show the rules of a Service in order, and what each got in the last minute
    Routes(command::routes::Routes),
    /// Show rates, success and response times of the calls in the mesh
    Stat(command::stat::Stat),
    /// Show who talks to whom in the mesh, and how each edge is secured
    Edges(command::stat::Edges),
    /// Tell why a request failed or was slow, and what to do
    Why(command::why::WhyFlags),
    /// Tell where a request would go, and why
    Explain(command::explain::Explain),
    /// Check this host and its sidecar
    Check(command::check::Check),
    /// Send requests at a rate and report how long they took
    Load(Box<command::load::Load>),
    /// Make networks with faults on this machine, and run programs in them
    Lab(command::lab::Lab),
    /// Print completions for a shell
    Completion(command::completion::Completion),
    /// Write manual pages; for those who build packages
    #[command(hide = true)]
    Man(command::man::Man),
    /// Show the version of this binary
    Version(command::version::Version),
}

impl Command {
    /// Runs the subcommand.
    pub fn run(self) -> Result<(), crate::failure::Failure> {
        match self {
            Self::Demo(args) => command::demo::run(&args),
            Self::Ca(args) => command::ca::run(args),
            Self::Config(args) => command::config::run(args),
            Self::Login(args) => command::login::run(&args),
            Self::Logout(args) => command::logout::run(&args),
            Self::Proxy(args) => command::proxy::run(args),
            Self::Apply(args) => command::change::apply(&args),
            Self::Get(args) => command::get::run(&args),
            Self::Delete(args) => command::change::delete(&args),
            Self::Diff(args) => command::change::diff(&args),
            Self::Rollback(args) => command::change::rollback(&args),
            Self::Import(args) => command::import::run(&args),
            Self::Validate(args) => command::change::validate(&args),
            Self::Endpoints(args) => command::endpoints::run(&args),
            Self::Routes(args) => command::routes::run(&args),
            Self::Stat(args) => command::stat::run(&args),
            Self::Edges(args) => command::stat::edges(&args),
            Self::Why(args) => command::why::run(&args),
            Self::Explain(args) => command::explain::run(&args),
            Self::Check(args) => command::check::run(args),
            Self::Load(args) => command::load::run(*args),
            Self::Lab(args) => command::lab::run(args),
            Self::Completion(args) => command::completion::run(&args),
            Self::Man(args) => command::man::run(&args),
            Self::Version(args) => command::version::run(&args),
        }
    }
}
