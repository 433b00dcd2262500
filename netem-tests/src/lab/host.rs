//! One network namespace, and the thread that lives in it.
//!
//! The thread makes the namespace and does all work that must be done inside: it opens devices, runs `ip`,
//! starts programs (which inherit its namespace). The namespace lasts as long as this value or any process in
//! it; it has no name in the file system that could be left behind.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, unshare};

use super::UpError;

type Job = Box<dyn FnOnce() + Send>;

/// A host or router.
#[derive(Debug)]
pub(super) struct Host {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
    namespace: File,
}

impl Host {
    /// Makes the namespace, with only a loopback interface.
    pub(super) fn new(name: &str) -> io::Result<Self> {
        let (jobs, todo) = sync_channel::<Job>(1);
        let (born, birth) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let namespace = unshare(CloneFlags::CLONE_NEWNET)
                    .map_err(io::Error::from)
                    .and_then(|()| File::open("/proc/thread-self/ns/net"));
                // The caller waits for it.
                let _ = born.send(namespace);
                for job in todo {
                    job();
                }
            })?;
        let namespace = birth.recv().map_err(|_| gone())??;
        Ok(Self {
            jobs: Some(jobs),
            thread: Some(thread),
            namespace,
        })
    }

    /// Runs `job` inside and waits for its result.
    pub(super) fn run<R: Send + 'static>(
        &self,
        job: impl FnOnce() -> R + Send + 'static,
    ) -> io::Result<R> {
        let (result, answer) = sync_channel(1);
        let job: Job = Box::new(move || {
            let _ = result.send(job());
        });
        let jobs = self.jobs.as_ref().ok_or_else(gone)?;
        jobs.send(job).map_err(|_| gone())?;
        answer.recv().map_err(|_| gone())
    }

    /// Runs lines of `ip -batch` inside.
    pub(super) fn ip(&self, lines: Vec<String>) -> Result<(), UpError> {
        let first = lines.first().cloned().unwrap_or_default();
        let batch = lines.join("\n") + "\n";
        self.run(move || tool("ip", &["-batch", "-"], &batch))
            .map_err(|source| system("reach a host's thread", source))?
            .map_err(|said| UpError::Command {
                what: format!("run `ip {first}`"),
                said,
            })
    }

    /// Writes kernel settings inside: names below /proc/sys/net, and values. A setting that this
    /// kernel does not have is skipped.
    pub(super) fn sysctl(
        &self,
        settings: Vec<(&'static str, &'static str)>,
    ) -> Result<(), UpError> {
        self.run(move || {
            settings.into_iter().try_for_each(|(name, value)| {
                let path = format!("/proc/sys/net/{name}");
                match std::fs::write(&path, value) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        Err(system(&format!("write {value} to {path}"), error))
                    }
                    Ok(()) | Err(_) => Ok(()),
                }
            })
        })
        .map_err(|source| system("reach a host's thread", source))?
    }

    /// Packets that its devices dropped because they were not read, by device.
    pub(super) fn drops(&self) -> io::Result<Vec<(String, u64)>> {
        let table = self.run(|| std::fs::read_to_string("/proc/thread-self/net/dev"))??;
        Ok(transmit_drops(&table))
    }

    /// The descriptor of the namespace, in this process.
    pub(super) fn descriptor(&self) -> i32 {
        self.namespace.as_raw_fd()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Without a sender the thread's loop ends.
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Runs a tool of the system with `input`; returns its output if it failed.
pub(crate) fn tool(program: &str, arguments: &[&str], input: &str) -> Result<(), String> {
    let run = || -> io::Result<_> {
        let mut child = Command::new(program)
            .args(arguments)
            .env("PATH", tools_path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A tool that ended early says on stderr why.
            let _ = stdin.write_all(input.as_bytes());
        }
        child.wait_with_output()
    };
    match run() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(said.trim().replace('\n', "; "))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(format!(
            "there is no program `{program}` (Debian: apt install iproute2 ethtool)"
        )),
        Err(error) => Err(error.to_string()),
    }
}

/// Where the tools of the system are: a plain user's PATH lacks some of these directories.
fn tools_path() -> std::ffi::OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin:/usr/bin:/bin");
    path
}

pub(super) fn system(what: &str, source: io::Error) -> UpError {
    UpError::System {
        what: what.to_owned(),
        source,
    }
}

fn gone() -> io::Error {
    io::Error::other("the host's thread has ended")
}

/// The column of dropped packets on transmission in /proc/net/dev (proc_net(5)): the receiver of a
/// TUN device is the emulator.
fn transmit_drops(table: &str) -> Vec<(String, u64)> {
    let rows = table.lines().filter_map(|line| line.split_once(':'));
    rows.filter_map(|(name, numbers)| {
        let drops = numbers.split_whitespace().nth(11)?.parse().ok()?;
        Some((name.trim().to_owned(), drops))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_on_transmission_are_read_from_the_kernel_s_table() {
        let table = "Inter-|   Receive                                                |  Transmit\n \
             face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n\
                lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0\n  \
              wire:    1344      16    1    2    3     4          5         6     1345      17    7    8    9    10      11         12\n";
        assert_eq!(
            transmit_drops(table),
            [("lo".to_owned(), 0), ("wire".to_owned(), 8)]
        );
    }
}
