//! Namespaces around a whole lab: a process of its own count of processes (PID namespace) and
//! mounts, and without root a user namespace in which it is root.
//!
//! [`enter`] starts this very command again inside of them and waits. The process inside is the
//! first of its PID namespace: however it ends, the kernel ends every program of the lab with it,
//! and with the last of them the network namespaces, devices and mounts vanish. A crash leaves
//! nothing behind that anyone would have to find.

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
use nix::unistd::{Pid, getegid, geteuid};

/// Set in the environment of the process inside; `attached` if it ends with its parent.
const MARK: &str = "WEFT_LAB_SANDBOX";

/// Read before /proc becomes that of the inside.
static OUTSIDE: OnceLock<u32> = OnceLock::new();

/// What came of [`enter`].
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
        /// What was refused.
        what: &'static str,
        /// Why.
        source: Errno,
    },
    /// The system refused.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// Whether this process is the first one inside.
pub fn is_inside() -> bool {
    nix::unistd::getpid().as_raw() == 1 && std::env::var_os(MARK).is_some()
}

/// Inside: prepares mounts and returns. Outside: starts this command with the same arguments inside
/// and waits for its end, handing signals on; the process inside dies with this one.
///
/// Call it before the first thread starts: a process with threads cannot enter a user namespace.
pub fn enter() -> Result<Entered, SandboxError> {
    if is_inside() {
        prepare()?;
        return Ok(Entered::Inside);
    }
    separate()?;
    let mut child = again(std::env::args_os().skip(1))?;
    wait(&mut child).map(Entered::Ended)
}

/// As [`enter`] for a lab that outlives this process: starts this command with `arguments` inside
/// and returns it.
pub fn detach<S: AsRef<OsStr>>(
    arguments: impl IntoIterator<Item = S>,
    configure: impl FnOnce(&mut Command),
) -> Result<Child, SandboxError> {
    separate()?;
    let mut command = command(arguments)?;
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

/// Unshares what the next child process shall have for itself.
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
) -> Result<Command, SandboxError> {
    let program = std::env::current_exe().map_err(|source| SandboxError::System {
        what: "find this program",
        source,
    })?;
    let mut command = Command::new(program);
    command.args(arguments).env(MARK, "1");
    Ok(command)
}

fn again<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Result<Child, SandboxError> {
    let mut command = command(arguments)?;
    // In a group of its own: Ctrl-C reaches it once, through `wait`, not from the terminal as well.
    command.env(MARK, "attached").process_group(0);
    // Signals wait until `wait` takes them. The child inherits that: whoever takes signals there, by handlers
    // or by waiting, lets them through.
    signals()
        .thread_block()
        .map_err(|source| SandboxError::System {
            what: "hold back signals",
            source: source.into(),
        })?;
    command.spawn().map_err(|source| SandboxError::System {
        what: "start this program again",
        source,
    })
}

/// What a waiting parent takes.
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
        let signal = signals().wait().map_err(|errno| SandboxError::System {
            what: "wait for signals",
            source: errno.into(),
        })?;
        if signal == Signal::SIGCHLD {
            continue;
        }
        asked += 1;
        // The first of a PID namespace gets only signals that it handles, or SIGKILL: whoever asks
        // twice is not made to wait.
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
    if std::env::var_os(MARK).is_some_and(|mark| mark == "attached") {
        // Before anything is made: if the parent is gone, so is this.
        let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
    }
    let outside = std::fs::read_link("/proc/self").ok();
    if let Some(id) = outside.and_then(|path| path.to_str()?.parse().ok()) {
        let _ = OUTSIDE.set(id);
    }
    let forbidden = |what| move |source| SandboxError::Forbidden { what, source };
    unshare(CloneFlags::CLONE_NEWNS).map_err(forbidden("unshare(CLONE_NEWNS)"))?;
    mount_nothing(Path::new("/"), MsFlags::MS_REC | MsFlags::MS_PRIVATE)
        .map_err(forbidden("make mounts private"))?;
    // A container may hide parts of /proc and so forbid a fresh one. Programs of the lab then see
    // the ids of the outside; nothing here depends on it.
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
