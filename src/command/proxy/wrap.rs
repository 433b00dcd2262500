//! `weft proxy run ... -- COMMAND`: runs an application inside its sidecar's life. The command starts when
//! the sidecar is ready, and gets the signals meant for it; when it ends, the sidecar ends.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use nix::sys::signal::{Signal as Number, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::failure::{Code, Failure};
use crate::orphans;

/// Signals that a supervisor sends to an application and means for it.
const FORWARDED: [Number; 7] = [
    Number::SIGTERM,
    Number::SIGINT,
    Number::SIGHUP,
    Number::SIGQUIT,
    Number::SIGUSR1,
    Number::SIGUSR2,
    Number::SIGWINCH,
];

/// Shells report a command ended by signal N as 128 + N.
const SIGNAL_BASE: u8 = 128;

/// Runs `sidecar`; when `ready` resolves, runs `command`; when that ends, cancels `shutdown`,
/// waits for the sidecar's drain and hands on the command's exit code.
pub async fn wrap(
    command: &[OsString],
    ready: impl Future<Output = ()>,
    sidecar: impl Future<Output = Result<(), Failure>>,
    shutdown: CancellationToken,
) -> Result<(), Failure> {
    tokio::pin!(sidecar);
    let mut signals = Forwarder::new()?;
    tokio::select! {
        result = &mut sidecar => return result,
        never = orphans::reap(None) => match never {},
        number = signals.end() => {
            tracing::info!(signal = %number, "ended before the sidecar was ready: the command was not started");
            shutdown.cancel();
            let _ = sidecar.await;
            return Err(Failure::of_command(SIGNAL_BASE.saturating_add(number as i32 as u8)));
        }
        () = ready => {}
    }
    let mut child = start(command)?;
    let orphans = orphans::reap(id(&child));
    tokio::pin!(orphans);
    let status = loop {
        tokio::select! {
            never = &mut orphans => match never {},
            status = child.wait() => break status,
            number = signals.next() => forward(&child, number),
            result = &mut sidecar => {
                tracing::error!("the sidecar ended, so the command is asked to end");
                forward(&child, Number::SIGTERM);
                let _ = child.wait().await;
                return result.and(Err(Failure::new(Code::Failed, "the sidecar ended before the command")));
            }
        }
    };
    let status = status.map_err(|error| {
        Failure::new(
            Code::Failed,
            format!("cannot wait for the command: {error}"),
        )
    })?;
    tracing::info!(status = %status, "the command ended: draining");
    shutdown.cancel();
    tokio::select! {
        result = &mut sidecar => result?,
        never = orphans::reap(None) => match never {},
        // The command has ended, so a signal now asks for the drain.
        _ = signals.end() => tracing::warn!("drain ended at once by a signal"),
    }
    match exit_code(status) {
        0 => Ok(()),
        code => Err(Failure::of_command(code)),
    }
}

fn start(command: &[OsString]) -> Result<Child, Failure> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(Failure::new(Code::Usage, "no command after --"));
    };
    Command::new(program)
        .args(arguments)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| {
            Failure::new(
                Code::Failed,
                format!("cannot start {}: {error}", program.display()),
            )
        })
}

fn forward(child: &Child, number: Number) {
    // Without an id the command has ended, and `wait` will return that.
    if let Some(id) = id(child)
        && let Err(error) = kill(id, number)
    {
        tracing::warn!(signal = %number, %error, "cannot forward a signal");
    }
}

fn id(child: &Child) -> Option<Pid> {
    let id = child.id().and_then(|id| i32::try_from(id).ok());
    id.map(Pid::from_raw)
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = match (status.code(), status.signal()) {
        (Some(code), _) => code,
        (None, Some(number)) => i32::from(SIGNAL_BASE) + number,
        (None, None) => 1,
    };
    u8::try_from(code).unwrap_or(1)
}

/// All forwarded signals as one stream.
struct Forwarder {
    signals: Vec<(Number, Signal)>,
}

impl Forwarder {
    fn new() -> Result<Self, Failure> {
        let signals = FORWARDED.into_iter().map(|number| {
            let stream = signal(SignalKind::from_raw(number as i32))?;
            Ok((number, stream))
        });
        let signals = signals
            .collect::<std::io::Result<_>>()
            .map_err(|error| Failure::new(Code::Failed, format!("cannot take signals: {error}")))?;
        Ok(Self { signals })
    }

    /// The next signal that asks a process to end. The other signals are for a command, which does not run.
    async fn end(&mut self) -> Number {
        loop {
            let number = self.next().await;
            if matches!(number, Number::SIGTERM | Number::SIGINT | Number::SIGQUIT) {
                return number;
            }
            tracing::info!(signal = %number, "a signal for the command, which does not run: nothing is done");
        }
    }

    async fn next(&mut self) -> Number {
        std::future::poll_fn(|context| {
            for (number, stream) in &mut self.signals {
                if stream.poll_recv(context).is_ready() {
                    return std::task::Poll::Ready(*number);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wraps a shell line in a sidecar that is ready at once and drains at once.
    async fn code_of(line: &str) -> u8 {
        let shutdown = CancellationToken::new();
        let drained = shutdown.clone();
        let sidecar = async move {
            drained.cancelled().await;
            Ok(())
        };
        let command = ["sh", "-c", line].map(OsString::from);
        match wrap(&command, std::future::ready(()), sidecar, shutdown).await {
            Ok(()) => 0,
            Err(failure) => failure.code,
        }
    }

    #[tokio::test]
    async fn the_exit_code_of_the_command_is_handed_on() {
        assert_eq!(code_of("exit 0").await, 0);
        assert_eq!(code_of("exit 42").await, 42);
        assert_eq!(code_of("kill -TERM $$").await, 143);
    }

    #[tokio::test]
    async fn a_command_that_cannot_start_is_a_failure_with_its_name() {
        let command = [OsString::from("/no/such/program")];
        let failure = wrap(
            &command,
            std::future::ready(()),
            std::future::pending(),
            CancellationToken::new(),
        )
        .await
        .unwrap_err();
        assert!(
            failure.line.contains("/no/such/program"),
            "{}",
            failure.line
        );
    }

    #[tokio::test]
    async fn a_sidecar_that_fails_before_it_is_ready_starts_no_command() {
        let command = ["sh", "-c", "exit 3"].map(OsString::from);
        let failed = async { Err(Failure::new(Code::Failed, "no identity")) };
        let failure = wrap(
            &command,
            std::future::pending(),
            failed,
            CancellationToken::new(),
        )
        .await
        .unwrap_err();
        assert_eq!(failure.line, "no identity");
    }
}
