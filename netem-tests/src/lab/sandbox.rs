//! Namespaces around a whole lab: a PID namespace and mounts of its own, and without root a user namespace in
//! which it is root.
//!
//! [`enter`] starts this same command again inside of them and waits. The process inside is the first of its
//! PID namespace: however it ends, the kernel ends every program of the lab with it, and with the last of
//! them the network namespaces, devices and mounts vanish. So a crash leaves nothing that has to be cleaned
//! up. That first process only reaps orphans, which is the duty of the first in a PID namespace
//! (pid_namespaces(7)), and starts this command once more: this second process runs the lab.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getegid, geteuid, getpid, getppid};

/// Set in the environment of processes inside, to one of those below.
const MARK: &str = "WEFT_LAB_SANDBOX";

/// The first one, which ends with its parent.
const ATTACHED: &str = "attached";

/// The first one, which outlives its parent.
const DETACHED: &str = "detached";

/// The child of the first one.
const LAB: &str = "lab";

/// Read before /proc becomes that of the inside.
static OUTSIDE: OnceLock<u32> = OnceLock::new();

/// The result of [`enter`].
#[derive(Debug)]
pub enum Entered {
    /// This process is inside: go on.
    Inside,
    /// The process inside did the work and ended: hand its exit code on.
    Ended(u8),
}

/// Why there is no sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The kernel or a policy forbids it.
    #[error(
        "a lab needs root, or a kernel that lets users make user namespaces ({what}: {source}); \
         `weft lab check` says what this machine allows"
    )]
    Forbidden {
        /// The operation.
        what: &'static str,
        /// Why.
        source: Errno,
    },
    /// The system refused.
    #[error("cannot {what}")]
    System {
        /// The operation.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// Where this process is. Programs of the lab inherit the environment, but not the position.
fn mark() -> Option<&'static str> {
    let mark = std::env::var_os(MARK)?;
    let is = |known: &str| mark == known;
    let first = getpid().as_raw() == 1;
    match () {
        () if first && is(ATTACHED) => Some(ATTACHED),
        () if first && is(DETACHED) => Some(DETACHED),
        () if getppid().as_raw() == 1 && is(LAB) => Some(LAB),
        () => None,
    }
}

/// Inside: prepares mounts and returns. Outside: starts this command with the same arguments inside and waits
/// for its end, passing signals on; the process inside dies with this one.
///
/// Call it before the first thread starts: a process with threads cannot enter a user namespace.
pub fn enter() -> Result<Entered, SandboxError> {
    match mark() {
        Some(LAB) => {
            prepare()?;
            return Ok(Entered::Inside);
        }
        Some(first) => return bury_the_dead(first).map(Entered::Ended),
        None => {}
    }
    separate()?;
    let mut child = spawn_self(std::env::args_os().skip(1))?;
    wait(&mut child).map(Entered::Ended)
}

/// As [`enter`] for a lab that outlives this process: starts this command with `arguments` inside
/// and returns it.
pub fn detach<S: AsRef<OsStr>>(
    arguments: impl IntoIterator<Item = S>,
    configure: impl FnOnce(&mut Command),
) -> Result<Child, SandboxError> {
    separate()?;
    let mut command = command(arguments, DETACHED)?;
    configure(&mut command);
    command.spawn().map_err(|source| SandboxError::System {
        what: "start the lab's own process",
        source,
    })
}

/// The id of this process as the outside knows it.
pub(super) fn outside_id() -> u32 {
    OUTSIDE.get().copied().unwrap_or_else(std::process::id)
}

/// Gives the next child process namespaces of its own.
fn separate() -> Result<(), SandboxError> {
    let (user, group) = (geteuid(), getegid());
    if !user.is_root() {
        unshare(CloneFlags::CLONE_NEWUSER).map_err(|source| SandboxError::Forbidden {
            what: "unshare(CLONE_NEWUSER)",
            source,
        })?;
        // The order is the kernel's (user_namespaces(7)): without a right to more than one group,
        // setgroups must be given up before groups are mapped.
        for (file, text) in [
            ("/proc/self/setgroups", "deny".to_owned()),
            ("/proc/self/uid_map", format!("0 {user} 1")),
            ("/proc/self/gid_map", format!("0 {group} 1")),
        ] {
            std::fs::write(file, text).map_err(|source| SandboxError::System {
                what: "map this user into a user namespace",
                source,
            })?;
        }
    }
    unshare(CloneFlags::CLONE_NEWPID).map_err(|source| SandboxError::Forbidden {
        what: "unshare(CLONE_NEWPID)",
        source,
    })
}

fn command<S: AsRef<OsStr>>(
    arguments: impl IntoIterator<Item = S>,
    mark: &str,
) -> Result<Command, SandboxError> {
    let program = std::env::current_exe().map_err(|source| SandboxError::System {
        what: "find this program",
        source,
    })?;
    let mut command = Command::new(program);
    command.args(arguments).env(MARK, mark);
    Ok(command)
}

/// The first process inside: starts the lab, passes signals on to it, and reaps orphans until the lab ends.
fn bury_the_dead(mark: &str) -> Result<u8, SandboxError> {
    if mark == ATTACHED {
        // Checked before anything is made: if the parent is gone, this process ends.
        let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
    }
    // A child inherits blocked signals, and the lab's programs must receive all signals.
    let free = signals().thread_unblock();
    free.map_err(|source| SandboxError::System {
        what: "let signals through",
        source: source.into(),
    })?;
    let mut command = command(std::env::args_os().skip(1), LAB)?;
    let lab = command.spawn().map_err(|source| SandboxError::System {
        what: "start this program again",
        source,
    })?;
    hold_back_signals()?;
    let lab = Pid::from_raw(lab.id().cast_signed());
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(id, code)) if id == lab => {
                return Ok(u8::try_from(code).unwrap_or(1));
            }
            Ok(WaitStatus::Signaled(id, signal, _)) if id == lab => {
                return Ok(u8::try_from(128 + signal as i32).unwrap_or(1));
            }
            Ok(WaitStatus::StillAlive) => {}
            // An orphan, or a signal that does not end this process.
            Ok(_) | Err(Errno::EINTR) => continue,
            Err(errno) => {
                return Err(SandboxError::System {
                    what: "wait for the lab",
                    source: errno.into(),
                });
            }
        }
        let signal = next_signal()?;
        if signal != Signal::SIGCHLD {
            // It may have ended just before.
            let _ = kill(lab, signal);
        }
    }
}

fn spawn_self<S: AsRef<OsStr>>(
    arguments: impl IntoIterator<Item = S>,
) -> Result<Child, SandboxError> {
    let mut command = command(arguments, ATTACHED)?;
    // In a group of its own: Ctrl-C reaches it once, through `wait`, not from the terminal as well.
    command.process_group(0);
    hold_back_signals()?;
    command.spawn().map_err(|source| SandboxError::System {
        what: "start this program again",
        source,
    })
}

/// Signals are blocked until [`next_signal`] takes them. A child inherits that.
fn hold_back_signals() -> Result<(), SandboxError> {
    let held = signals().thread_block();
    held.map_err(|source| SandboxError::System {
        what: "hold back signals",
        source: source.into(),
    })
}

fn next_signal() -> Result<Signal, SandboxError> {
    signals().wait().map_err(|errno| SandboxError::System {
        what: "wait for signals",
        source: errno.into(),
    })
}

/// The signals that a waiting parent takes.
fn signals() -> SigSet {
    let mut set = SigSet::empty();
    for signal in [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGCHLD,
    ] {
        set.add(signal);
    }
    set
}

fn wait(child: &mut Child) -> Result<u8, SandboxError> {
    let system = |what| move |source| SandboxError::System { what, source };
    let id = Pid::from_raw(child.id().cast_signed());
    let mut asked = 0;
    loop {
        if let Some(status) = child.try_wait().map_err(system("wait for the lab"))? {
            return Ok(code(status));
        }
        let signal = next_signal()?;
        if signal == Signal::SIGCHLD {
            continue;
        }
        asked += 1;
        // The first of a PID namespace gets only signals that it handles, or SIGKILL: a second request to end
        // is not delayed.
        let signal = if asked > 1 { Signal::SIGKILL } else { signal };
        // It may have ended just before.
        let _ = kill(id, signal);
    }
}

fn code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code).unwrap_or(1)
}

/// Inside: mounts of its own, and a /proc that shows the lab's processes.
fn prepare() -> Result<(), SandboxError> {
    let outside = std::fs::read_link("/proc/self").ok();
    if let Some(id) = outside.and_then(|path| path.to_str()?.parse().ok()) {
        let _ = OUTSIDE.set(id);
    }
    let forbidden = |what| move |source| SandboxError::Forbidden { what, source };
    unshare(CloneFlags::CLONE_NEWNS).map_err(forbidden("unshare(CLONE_NEWNS)"))?;
    mount_nothing(Path::new("/"), MsFlags::MS_REC | MsFlags::MS_PRIVATE)
        .map_err(forbidden("make mounts private"))?;
    // A container may hide parts of /proc and so forbid a fresh one. Programs of the lab then see the ids of
    // the outside; no code here depends on it.
    let fresh = mount(
        Some("proc"),
        "/proc",
        Some("proc"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        None::<&str>,
    );
    if let Err(error) = fresh {
        tracing::debug!(%error, "the lab keeps the /proc of the outside");
    }
    Ok(())
}

fn mount_nothing(target: &Path, flags: MsFlags) -> nix::Result<()> {
    mount(None::<&str>, target, None::<&str>, flags, None::<&str>)
}
