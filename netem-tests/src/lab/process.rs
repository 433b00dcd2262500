//! Programs on a host: started in its namespaces, with their output in bounded files.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::host::Host;
use crate::limits;

/// A program to start.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// A name; the output is appended to `NAME.stdout` and `NAME.stderr`, so that a program that is started
    /// again continues its files.
    pub name: String,
    /// The program, and its arguments.
    pub command: Vec<OsString>,
    /// Variables on top of the lab's own environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Its working directory; `None`: that of the lab's start.
    pub directory: Option<PathBuf>,
}

/// The actions on a running process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL: it ends at once, without notice.
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

/// A program that was started. Dropping it kills it and its children.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    /// Its exit status was read: its id may be reused.
    ended: bool,
    output: [PathBuf; 2],
    writers: Vec<JoinHandle<()>>,
}

/// Why a program did not start.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The lab has no such host.
    #[error("the lab has no host `{0}`")]
    NoSuchHost(String),
    /// A name that cannot be one.
    #[error("`{0}` cannot name a program: write 1 to 64 of a-z, A-Z, 0-9, `-`, `_` and `.`")]
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

impl Process {
    /// Starts `program` on `host`; its output goes to `directory`.
    pub(super) fn start(
        host: &Host,
        program: Program,
        directory: &Path,
    ) -> Result<Self, SpawnError> {
        if !is_name(&program.name) {
            return Err(SpawnError::Name(program.name));
        }
        let shown = program.command.first().map_or_else(String::new, |command| {
            command.to_string_lossy().into_owned()
        });
        let failed = |source| SpawnError::Start {
            command: shown.clone(),
            source,
        };
        let output =
            ["stdout", "stderr"].map(|stream| directory.join(format!("{}.{stream}", program.name)));
        let name = program.name.clone();
        // The child's namespace is that of the thread that starts it.
        let mut child = host
            .run(move || spawn(program))
            .and_then(|spawned| spawned)
            .map_err(failed)?;
        let streams: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|stream| Box::new(stream) as _),
            child.stderr.take().map(|stream| Box::new(stream) as _),
        ];
        let mut process = Self {
            name,
            child,
            ended: false,
            output,
            writers: Vec::new(),
        };
        for (stream, path) in streams.into_iter().flatten().zip(process.output.clone()) {
            let file = BoundedFile::open(path).map_err(failed)?;
            let writer = std::thread::Builder::new()
                .name(process.name.clone())
                .spawn(move || file.fill(stream))
                .map_err(failed)?;
            process.writers.push(writer);
        }
        Ok(process)
    }

    /// The program's name in the lab.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id, in the lab's own count.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its output on stdout. If there is much, the last [`limits::OUTPUT_BYTES_MAX`] are in this file and in
    /// one beside it, `NAME.stdout.earlier`.
    pub fn stdout(&self) -> &Path {
        &self.output[0]
    }

    /// Its output on stderr; bounded as stdout is.
    pub fn stderr(&self) -> &Path {
        &self.output[1]
    }

    /// Applies an action to it and its children. It does nothing to a process that has ended.
    pub fn inflict(&self, fault: Fault) -> io::Result<()> {
        if self.ended {
            return Ok(());
        }
        let signal = match fault {
            Fault::Kill => Signal::SIGKILL,
            Fault::Stop => Signal::SIGSTOP,
            Fault::Continue => Signal::SIGCONT,
            Fault::Terminate => Signal::SIGTERM,
            Fault::Interrupt => Signal::SIGINT,
        };
        match killpg(Pid::from_raw(self.child.id().cast_signed()), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// How it ended, if it did; children that are left end with it.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        let status = self.child.try_wait()?;
        if status.is_some() {
            self.has_ended()?;
        }
        Ok(status)
    }

    /// Waits until it ends and all of its output is in its files.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait()?;
        self.has_ended()?;
        Ok(status)
    }

    /// Ends its children, which would keep the pipes open, and closes its files.
    fn has_ended(&mut self) -> io::Result<()> {
        self.inflict(Fault::Kill)?;
        self.ended = true;
        self.join_writers();
        Ok(())
    }

    fn join_writers(&mut self) {
        for writer in self.writers.drain(..) {
            let _ = writer.join();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.inflict(Fault::Kill);
        let _ = self.wait();
    }
}

fn spawn(program: Program) -> io::Result<Child> {
    let Some((name, arguments)) = program.command.split_first() else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the command is empty",
        ));
    };
    let mut command = Command::new(name);
    command
        .args(arguments)
        .envs(program.environment)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // An action applies to the program with its children.
        .process_group(0);
    if let Some(directory) = program.directory {
        command.current_dir(directory);
    }
    command.spawn()
}

fn is_name(name: &str) -> bool {
    (1..=limits::PROGRAM_NAME_BYTES_MAX).contains(&name.len())
        && !name.starts_with('.')
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// A file of which the last part is kept: half of the bound in it, the half before in `.earlier`.
struct BoundedFile {
    path: PathBuf,
    file: File,
    length: u64,
}

impl BoundedFile {
    fn open(path: PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let length = file.metadata()?.len();
        Ok(Self { path, file, length })
    }

    /// Writes all bytes of `stream`. A full disk loses output, but the program goes on.
    fn fill(mut self, mut stream: impl Read) {
        let mut buffer = [0; 8192];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => {
                    if let Err(error) = self.write(&buffer[..length]) {
                        tracing::debug!(%error, path = %self.path.display(), "output is lost");
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.length >= limits::OUTPUT_BYTES_MAX / 2 {
            let mut earlier = self.path.clone().into_os_string();
            earlier.push(".earlier");
            std::fs::rename(&self.path, earlier)?;
            *self = Self::open(self.path.clone())?;
        }
        self.length += bytes.len() as u64;
        self.file.write_all(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_much_output_is_kept_in_bounded_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("talker.stdout");
        let mut all = Vec::new();
        for number in 0..3_000_000u32 {
            writeln!(all, "{number}").unwrap();
        }
        BoundedFile::open(path.clone()).unwrap().fill(&all[..]);
        let mut kept = std::fs::read(folder.path().join("talker.stdout.earlier")).unwrap();
        kept.extend(std::fs::read(&path).unwrap());
        assert!(all.ends_with(&kept));
        let bound = limits::OUTPUT_BYTES_MAX as usize;
        assert!(
            (bound / 2..=bound + 8192).contains(&kept.len()),
            "{}",
            kept.len()
        );
    }

    #[test]
    fn a_program_s_name_is_a_plain_file_name() {
        for good in ["orders", "weft-proxy.1", "A_b"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "..", "a/b", "a b", &"x".repeat(65)] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
