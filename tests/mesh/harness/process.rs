//! Child processes: their output goes to a log, they die with the test, and a failed test shows their last
//! output.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::wait::wait_until;

/// Lines of a log that a failed test shows.
const TAIL: usize = 40;

/// A running program. Killed when dropped.
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its output in `folder/NAME.log`.
    pub(crate) fn spawn(name: &str, folder: &Path, command: &mut Command) -> Self {
        let log = folder.join(format!("{name}.log"));
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Self {
            name: name.to_owned(),
            child,
            log,
        }
    }

    /// Everything that it said.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits for a line that contains `text`, and gives it.
    pub(crate) fn wait_for_line(&mut self, text: &str) -> String {
        let what = format!("{} says {text:?}", self.name);
        wait_until(&what, Duration::from_secs(20), || {
            let log = self.log();
            let line = log.lines().find(|line| line.contains(text));
            assert!(
                line.is_some() || self.is_running(),
                "{} ended before it said {text:?}:\n{log}",
                self.name
            );
            line.map(str::to_owned)
        })
    }

    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits until it ends by itself.
    pub(crate) fn wait_exit(&mut self, patience: Duration) -> ExitStatus {
        let what = format!("{} ends", self.name);
        wait_until(&what, patience, || self.child.try_wait().unwrap())
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    /// Resident memory in KiB.
    pub(crate) fn resident(&self) -> u64 {
        self.status_field("VmRSS:")
    }

    /// The most resident memory so far, in KiB, since [`Self::forget_peak`].
    pub(crate) fn resident_peak(&self) -> u64 {
        self.status_field("VmHWM:")
    }

    /// Makes [`Self::resident_peak`] start from the present resident memory.
    pub(crate) fn forget_peak(&self) {
        // proc(5): 5 resets the peak resident set size.
        std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").unwrap();
    }

    /// How many file descriptors it has.
    pub(crate) fn descriptors(&self) -> u64 {
        let folder = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap();
        folder.count() as u64
    }

    /// Lets it have at most this many from here on.
    pub(crate) fn limit_descriptors(&self, most: u64) {
        let pid = rustix::process::Pid::from_raw(self.pid().as_raw());
        let limit = rustix::process::Rlimit {
            current: Some(most),
            maximum: rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum,
        };
        rustix::process::prlimit(pid, rustix::process::Resource::Nofile, limit).unwrap();
    }

    fn status_field(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))
            .unwrap_or_else(|error| panic!("{} is gone: {error}", self.name));
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        line.and_then(|rest| rest.split_whitespace().next())
            .and_then(|number| number.parse().ok())
            .unwrap_or_else(|| panic!("no {field} in {status}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        let log = self.log();
        if std::thread::panicking() {
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
            eprintln!(
                "---- {} said last ({}):\n{tail}",
                self.name,
                self.log.display()
            );
        } else if let Some(line) = log.lines().find(|line| line.contains("panicked at")) {
            panic!("{} panicked: {line}", self.name);
        }
    }
}

/// The output of a finished program.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Output {
    /// The standard output of a program that succeeded; panics with all of its output otherwise.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}\n{}", self.stdout, self.stderr);
        self.stdout
    }
}

/// Runs `command` to its end.
pub(crate) fn run(command: &mut Command) -> Output {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A program that may be in the folders of the administrator.
pub(crate) fn program(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(name);
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    command.env("PATH", path);
    command
}

/// The folder of `initdb` and `postgres`, the newest version first.
pub(crate) fn postgres_programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    versions
        .flatten()
        .map(|version| version.path().join("bin"))
        .filter(|folder| folder.join("initdb").is_file() && folder.join("postgres").is_file())
        .max()
}
