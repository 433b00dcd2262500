//! Pairs of proxies that an executable starts: `docs/compare.md` describes its arguments and its answers.
//!
//! Closing its stdin ends it, then SIGTERM; the rest of its process group is killed after that.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;
use weft_loadtest::compare::answer::Answer;
use weft_loadtest::compare::{CONTROL, DIRECT, Path as Carried, WEFT};
use weft_loadtest::limits;

use super::call;
use super::wire::Wire;
use crate::failure::{Code, Failure};

/// How long a pair may take until it is up.
const START: Duration = Duration::from_secs(60);
/// How long it may take to end after its stdin closed, and again after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);
/// The end of its output on stderr, for an error message.
const TAIL_BYTES: usize = 500;

/// One plug-in.
pub struct Plugin {
    /// Its name in the table: that of the file, without an ending.
    pub name: String,
    program: PathBuf,
    running: Option<Running>,
    /// Each start has a directory of its own.
    starts: u32,
}

struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    /// Kept open, so that a plug-in may go on writing.
    _stdout: BufReader<ChildStdout>,
    log: PathBuf,
}

/// The environment of a plug-in.
pub struct PluginContext<'a> {
    /// The two sides.
    pub wire: &'a Wire,
    /// Where to forward to.
    pub server: SocketAddr,
    /// Where it may write.
    pub directory: &'a Path,
    /// Threads of each proxy.
    pub workers: usize,
}

impl Plugin {
    /// Checks whether `program` can be one.
    pub fn new(program: &Path) -> Result<Self, Failure> {
        let shown = program.display();
        let usage = |line: String| Failure::new(Code::Usage, line);
        let absolute = std::fs::canonicalize(program)
            .map_err(|error| usage(format!("plug-in {shown}: {error}")))?;
        let metadata = std::fs::metadata(&absolute)
            .map_err(|error| usage(format!("plug-in {shown}: {error}")))?;
        if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
            return Err(usage(format!(
                "plug-in {shown}: not an executable file (chmod +x?); docs/compare.md says what one does"
            )));
        }
        let name = program.file_stem().unwrap_or_default().to_string_lossy();
        if [WEFT, DIRECT, CONTROL].contains(&&*name) {
            return Err(usage(format!(
                "plug-in {shown}: `{name}` names something else here"
            )));
        }
        Ok(Self {
            name: name.into_owned(),
            program: absolute,
            running: None,
            starts: 0,
        })
    }

    /// The executable.
    pub fn program(&self) -> String {
        self.program.display().to_string()
    }

    /// Starts the pair and waits until it answers.
    pub async fn start(&mut self, told: &PluginContext<'_>) -> Result<Answer, Failure> {
        self.starts += 1;
        let directory = format!("{}.{}", self.name, self.starts);
        let directory = told.directory.join(directory);
        std::fs::create_dir(&directory).map_err(|error| Failure::io(&directory, &error))?;
        let log = directory.with_extension("log");
        let stderr = std::fs::File::create(&log).map_err(|error| Failure::io(&log, &error))?;
        let mut child = Command::new(&self.program)
            .current_dir(&directory)
            .env("WEFT_COMPARE", "1")
            .env("WEFT_COMPARE_SERVER", told.server.to_string())
            .env("WEFT_COMPARE_CALLER_HOST", told.wire.caller.to_string())
            .env("WEFT_COMPARE_SERVER_HOST", told.wire.server.to_string())
            .env(
                "WEFT_COMPARE_SERVER_NETNS",
                told.wire.server_namespace.unwrap_or_default(),
            )
            .env("WEFT_COMPARE_DIRECTORY", &directory)
            .env("WEFT_COMPARE_WORKERS", told.workers.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| self.failure(Code::Failed, format!("cannot be started: {error}")))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let Some(stdout) = stdout else {
            return Err(self.failure(Code::Failed, "has no stdout".to_owned()));
        };
        let mut stdout = BufReader::new(stdout);
        let line = timeout(START, first_line(&mut stdout)).await;
        self.running = Some(Running {
            child,
            stdin,
            _stdout: stdout,
            log,
        });
        let line = match line {
            Ok(Ok(line)) => line,
            Ok(Err(error)) => return Err(self.failure(Code::Failed, error.to_string())),
            Err(_) => {
                let line = format!("printed no line within {} s", START.as_secs());
                return Err(self.failure(Code::Failed, line + &self.said()));
            }
        };
        if line.is_empty() {
            return Err(self.ended().await);
        }
        let answer =
            Answer::parse(&line).map_err(|error| self.failure(Code::BadData, error.to_string()))?;
        for address in Carried::ALL
            .into_iter()
            .filter_map(|path| answer.address(path))
        {
            call::until_answered(address, || self.check())
                .await
                .map_err(|failure| Failure {
                    line: format!("plug-in {}: {}{}", self.name, failure.line, self.said()),
                    ..failure
                })?;
        }
        Ok(answer)
    }

    /// Fails if it has ended by itself.
    pub fn check(&mut self) -> Result<(), Failure> {
        let Some(running) = &mut self.running else {
            return Ok(());
        };
        match running.child.try_wait() {
            Ok(Some(status)) => {
                let line = format!("ended while it was needed ({status}){}", self.said());
                Err(self.failure(Code::Failed, line))
            }
            Ok(None) | Err(_) => Ok(()),
        }
    }

    /// Ends it, if it runs.
    pub async fn stop(&mut self) {
        let Some(mut running) = self.running.take() else {
            return;
        };
        let group = running.child.id().map(|id| Pid::from_raw(id.cast_signed()));
        running.stdin = None;
        if timeout(GRACE, running.child.wait()).await.is_err() {
            if let Some(group) = group {
                let _ = killpg(group, Signal::SIGTERM);
            }
            let _ = timeout(GRACE, running.child.wait()).await;
        }
        // Processes that it left must not disturb the next measurement.
        if let Some(group) = group {
            let _ = killpg(group, Signal::SIGKILL);
        }
        let _ = running.child.wait().await;
    }

    /// It closed its stdout without a line.
    async fn ended(&mut self) -> Failure {
        let mut how = String::new();
        if let Some(running) = &mut self.running
            && let Ok(Ok(status)) = timeout(GRACE, running.child.wait()).await
        {
            how = format!(" ({status})");
        }
        let line = format!("ended before it said where to call{how}{}", self.said());
        self.failure(Code::Failed, line)
    }

    /// The end of its output on stderr, in one line.
    fn said(&self) -> String {
        let log = self.running.as_ref().map(|running| &running.log);
        let bytes = log
            .and_then(|log| std::fs::read(log).ok())
            .unwrap_or_default();
        let tail = bytes
            .get(bytes.len().saturating_sub(TAIL_BYTES)..)
            .unwrap_or_default();
        let text = String::from_utf8_lossy(tail);
        let words: Vec<&str> = text.split_whitespace().collect();
        if words.is_empty() {
            return String::new();
        }
        format!(": {}", words.join(" "))
    }

    fn failure(&self, code: Code, line: String) -> Failure {
        Failure::new(code, format!("plug-in {}: {line}", self.name))
    }
}

/// Empty at the end of the stream.
async fn first_line(stdout: &mut BufReader<ChildStdout>) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    stdout
        .take(limits::PLUGIN_LINE_MAX)
        .read_until(b'\n', &mut bytes)
        .await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
