//! The duties of a long-running process to its host: signals, the service manager, file descriptors.

use std::convert::Infallible;
use std::future::pending;
use std::pin::Pin;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use weft_transport::vital;

use crate::failure::{Code, Failure};
use crate::{orphans, telemetry};

/// SIGTERM and SIGINT: the first asks for a graceful end, the second ends at once.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// Ends only programs that belong to a terminal.
    hangup: Option<Signal>,
}

impl Signals {
    /// Handles the two signals from here on. Needs a runtime.
    pub fn take() -> Result<Self, Failure> {
        let take = |kind| {
            signal(kind).map_err(|error| {
                Failure::new(Code::Failed, format!("cannot take signals: {error}"))
            })
        };
        Ok(Self {
            terminate: take(SignalKind::terminate())?,
            interrupt: take(SignalKind::interrupt())?,
            hangup: None,
        })
    }

    /// Handles SIGHUP as well, which comes when the terminal closes.
    pub fn take_with_hangup() -> Result<Self, Failure> {
        Ok(Self {
            hangup: signal(SignalKind::hangup()).ok(),
            ..Self::take()?
        })
    }

    /// The next of them; true for SIGINT.
    pub async fn next(&mut self) -> bool {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => false,
            _ = self.interrupt.recv() => true,
            _ = hangup => false,
        }
    }
}

/// Ignores SIGHUP from here on. It comes when a terminal closes, and some operators send it after a change of
/// a settings file. Unhandled, it would end the process.
pub fn outlive_hangups() -> Result<impl Future<Output = Infallible>, Failure> {
    let mut hangup = signal(SignalKind::hangup())
        .map_err(|error| Failure::new(Code::Failed, format!("cannot take signals: {error}")))?;
    Ok(async move {
        while hangup.recv().await.is_some() {
            tracing::info!(
                "SIGHUP changes nothing: settings are read when the process starts, and no file is kept open for logs"
            );
        }
        pending().await
    })
}

/// Runs `serve` until it ends by itself or by a signal. `serve` gets the token that asks it to end; a second
/// signal drops it at once. In the meantime the process performs its duties to its host.
///
/// `serve` comes in a box: it holds tens of KiB, each move of it would copy them on the stack of the main
/// thread, and what that stack once took it keeps for as long as the process lives.
pub async fn until_signal<F>(shutdown: CancellationToken, serve: Pin<Box<F>>) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    let mut signals = Signals::take()?;
    let hangups = outlive_hangups()?;
    let duties = async { tokio::join!(hangups, orphans::reap(None)).0 };
    let serve = vital::unbroken("the main task", serve);
    tokio::pin!(serve, duties);
    tokio::select! {
        result = &mut serve => return result,
        never = &mut duties => match never {},
        _ = signals.next() => {
            tracing::info!("asked to end: finishing what runs; a second signal ends at once");
            notify(&[sd_notify::NotifyState::Stopping]);
            shutdown.cancel();
        }
    }
    tokio::select! {
        result = &mut serve => result,
        never = &mut duties => match never {},
        interrupt = signals.next() => {
            tracing::warn!("ended at once by a second signal");
            Err(Failure::silent(if interrupt { Code::Interrupted } else { Code::Failed }))
        }
    }
}

/// Tells systemd, if it asked for that (`Type=notify`).
pub fn notify(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager cannot be notified");
    }
}

/// Raises the soft limit of open files to the hard one: each connection of an application costs
/// one, and the usual soft limit of 1024 dates from select(2). Returns the limit in force.
pub fn raise_file_limit() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return 0;
    };
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    }
}

/// Has the kernel end this process with its parent, so that a killed demo leaves no orphans.
pub fn die_with(parent: i32) {
    // Without it the parent still ends its children itself whenever it can.
    let _ = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL);
    if nix::unistd::getppid().as_raw() != parent {
        // It ended before the request was made.
        std::process::exit(crate::failure::Code::Failed as i32);
    }
}

/// Starts logging with the filter of the environment (`WEFT_LOG`, else `RUST_LOG`).
pub fn start_logging() -> telemetry::LogFilter {
    let filter = ["WEFT_LOG", "RUST_LOG"]
        .into_iter()
        .find_map(|name| std::env::var_os(name)?.into_string().ok());
    telemetry::start(filter.as_deref())
}

/// Logs the warnings about the settings.
pub fn warn_all(warnings: &[String]) {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
}

/// Tells the service manager that this process serves, and how.
pub fn ready(status: &str) {
    notify(&[
        sd_notify::NotifyState::Ready,
        sd_notify::NotifyState::Status(status),
    ]);
}

/// Tells the service manager that this process stands for the service from here on.
pub fn is_main() {
    notify(&[sd_notify::NotifyState::MainPid(std::process::id())]);
}

/// The runtime of a control-plane service: two threads, so that one slow call delays no other.
pub fn service_runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Code::Failed, format!("cannot start a runtime: {error}")))
}

/// The runtime of short commands and of control work: one thread, this one.
pub fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Code::Failed, format!("cannot start a runtime: {error}")))
}
