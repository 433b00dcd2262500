//! Runs a command on a host of a lab that another command made: enters its namespaces and passes the terminal
//! on.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::{Directory, StateError};

/// Why a command did not run.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The lab cannot be found.
    #[error(transparent)]
    State(#[from] StateError),
    /// It has no such host.
    #[error("the lab has no host `{host}`; there are: {hosts}")]
    NoSuchHost {
        /// The name that was asked for.
        host: String,
        /// The names that exist.
        hosts: String,
    },
    /// Its namespaces cannot be entered.
    #[error("cannot enter the lab ({what})")]
    Enter {
        /// The step.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The command did not start.
    #[error("cannot start `{command}`")]
    Start {
        /// Which.
        command: String,
        /// Why.
        source: io::Error,
    },
}

/// Runs `command` on `host` of the lab and waits for it; returns its exit code, or 128 and its signal. Only
/// in a process of one thread: the kernel lets no other enter a user namespace.
pub fn exec(directory: &Directory, host: &str, command: &[OsString]) -> Result<u8, JoinError> {
    let card = directory.read_card()?;
    let Some(network) = card.namespaces.get(host) else {
        let hosts: Vec<&str> = card.namespaces.keys().map(String::as_str).collect();
        return Err(JoinError::NoSuchHost {
            host: host.to_owned(),
            hosts: hosts.join(", "),
        });
    };
    let process = format!("/proc/{}", card.process);
    let here = std::env::current_dir();
    // All are opened before the first is entered, because /proc is another one afterwards.
    let user = foreign_user_namespace(&process)?;
    let others = [
        ("network", format!("fd/{network}"), CloneFlags::CLONE_NEWNET),
        ("processes", "ns/pid".to_owned(), CloneFlags::CLONE_NEWPID),
        ("mounts", "ns/mnt".to_owned(), CloneFlags::CLONE_NEWNS),
    ]
    .map(|(what, file, kind)| {
        let opened = File::open(format!("{process}/{file}"));
        opened.map(|file| (what, file, kind)).map_err(enter(what))
    });
    if let Some(user) = user {
        setns(user, CloneFlags::CLONE_NEWUSER)
            .map_err(io::Error::from)
            .map_err(enter("user"))?;
    }
    for namespace in others {
        let (what, file, kind) = namespace?;
        setns(file, kind)
            .map_err(io::Error::from)
            .map_err(enter(what))?;
    }
    if let Ok(here) = here {
        // A new mount namespace begins at its root; if this directory is hidden there, the process stays at
        // the root.
        let _ = std::env::set_current_dir(here);
    }
    let Some((name, arguments)) = command.split_first() else {
        return Ok(0);
    };
    let status = Command::new(name)
        .args(arguments)
        .status()
        .map_err(|source| JoinError::Start {
            command: name.to_string_lossy().into_owned(),
            source,
        })?;
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(u8::try_from(code).unwrap_or(1))
}

/// Kills a lab that does not end by itself, and with it everything inside.
pub fn kill(directory: &Directory) -> Result<(), JoinError> {
    let card = directory.read_card()?;
    // While the lock is held it lives; its id cannot be reused before it is gone.
    if directory.is_up() {
        let process = Pid::from_raw(card.process.cast_signed());
        nix::sys::signal::kill(process, Signal::SIGKILL)
            .map_err(io::Error::from)
            .map_err(enter("kill its process"))?;
    }
    Ok(())
}

/// The user namespace of the lab, if it is not that of this process.
fn foreign_user_namespace(process: &str) -> Result<Option<File>, JoinError> {
    let open = |path: &str| File::open(path).map_err(enter("user"));
    let inode = |file: &File| {
        file.metadata()
            .map(|data| data.ino())
            .map_err(enter("user"))
    };
    let theirs = open(&format!("{process}/ns/user"))?;
    let own = open("/proc/self/ns/user")?;
    Ok((inode(&theirs)? != inode(&own)?).then_some(theirs))
}

fn enter(what: &'static str) -> impl FnOnce(io::Error) -> JoinError {
    move |source| JoinError::Enter { what, source }
}
