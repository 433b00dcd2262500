//! Processes of this same binary, or of `weft-proxy` beside it, for commands that bring up a mesh of their
//! own (`weft demo`, `weft load compare`). They end with the command, however it ends: it asks them to end
//! when it finishes, kills those that linger, and the kernel ends them if the command itself is killed.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use crate::failure::{Code, Failure};

/// Children that have not ended this long after the request are killed.
const GRACE: Duration = Duration::from_secs(4);
/// The program of sidecars.
const SIDECAR: &str = "weft-proxy";
/// Lines of a dead child's log that are shown.
const LOG_LINES: usize = 8;

/// What sidecars are processes of.
pub enum SidecarProgram {
    /// The program for sidecars alone.
    Alone(PathBuf),
    /// This one.
    Weft,
}

/// Starts and ends the processes.
pub struct Children {
    program: PathBuf,
    directory: PathBuf,
    /// Words before the program, such as `ip netns exec NAME`. They must exec the program, not fork it.
    prefix: Vec<String>,
    running: Vec<(String, Child)>,
}

impl Children {
    /// Runs this binary, with logs in `directory`.
    pub fn new(directory: &Path) -> Result<Self, Failure> {
        Self::behind(Vec::new(), directory)
    }

    /// As [`Self::new`], with words before the program that lead it elsewhere and then exec it.
    pub fn behind(prefix: Vec<String>, directory: &Path) -> Result<Self, Failure> {
        let program = std::env::current_exe().map_err(|error| {
            Failure::new(Code::Failed, format!("cannot find my own binary: {error}"))
        })?;
        Ok(Self {
            program,
            directory: directory.to_owned(),
            prefix,
            running: Vec::new(),
        })
    }

    /// Runs `weft ARGUMENTS` to its end and returns its stdout.
    pub async fn run(&self, arguments: &[&str]) -> Result<String, Failure> {
        let mut command = self.command(&self.program, arguments);
        let output = command.output().await;
        let output = output
            .map_err(|error| Failure::new(Code::Failed, format!("cannot start weft: {error}")))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(Failure::new(
                Code::Failed,
                format!("`weft {}` failed: {}", arguments.join(" "), said.trim()),
            ));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Starts `weft ARGUMENTS` in the background as `name`; its log is `name.log`.
    pub fn start(&mut self, name: &str, arguments: &[&str]) -> Result<(), Failure> {
        let command = self.command(&self.program, arguments);
        self.spawn(name, command)
    }

    /// Starts a sidecar in the background: `weft-proxy run ARGUMENTS`, or `weft proxy run ARGUMENTS`.
    pub fn start_sidecar(
        &mut self,
        sidecar: &SidecarProgram,
        name: &str,
        arguments: &[&str],
    ) -> Result<(), Failure> {
        let command = match sidecar {
            SidecarProgram::Alone(program) => {
                self.command(program, &[&["run"], arguments].concat())
            }
            SidecarProgram::Weft => {
                self.command(&self.program, &[&["proxy", "run"], arguments].concat())
            }
        };
        self.spawn(name, command)
    }

    fn spawn(&mut self, name: &str, mut command: Command) -> Result<(), Failure> {
        let path = self.log(name);
        let log = std::fs::File::create(&path).map_err(|error| Failure::io(&path, &error))?;
        let child = command
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| Failure::new(Code::Failed, format!("cannot start {name}: {error}")))?;
        self.running.push((name.to_owned(), child));
        Ok(())
    }

    fn command(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut words = self.prefix.iter().map(AsRef::as_ref);
        let mut command = Command::new(words.next().unwrap_or(program.as_os_str()));
        command.args(words);
        if !self.prefix.is_empty() {
            command.arg(program);
        }
        command
            .arg("--die-with")
            .arg(std::process::id().to_string())
            .args(arguments)
            .current_dir(&self.directory)
            .env("WEFT_HOME", self.directory.join("operator"))
            .stdin(Stdio::null())
            // Ctrl-C reaches the command alone, which then ends its children in order.
            .process_group(0)
            .kill_on_drop(true);
        // Settings of a real installation must not affect it.
        for (name, _) in std::env::vars_os() {
            let name_text = name.to_string_lossy();
            if name_text.starts_with("WEFT_") && name_text != "WEFT_LOG" && name_text != "WEFT_HOME"
            {
                command.env_remove(&name);
            }
        }
        command
    }

    /// Fails if a child has ended, with the end of its log.
    pub fn check(&mut self) -> Result<(), Failure> {
        for index in 0..self.running.len() {
            let (name, child) = &mut self.running[index];
            if let Ok(Some(status)) = child.try_wait() {
                let name = name.clone();
                let tail = self.log_tail(&name);
                return Err(Failure::new(
                    Code::Failed,
                    format!("{name} ended ({status}): {tail}"),
                ));
            }
        }
        Ok(())
    }

    /// The last lines of a child's log.
    pub fn log_tail(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.log(name)).unwrap_or_default();
        let mut lines = VecDeque::new();
        for line in text.lines() {
            if lines.len() == LOG_LINES {
                lines.pop_front();
            }
            lines.push_back(line);
        }
        lines.into_iter().collect::<Vec<_>>().join(" | ")
    }

    fn log(&self, name: &str) -> PathBuf {
        self.directory.join(name).with_extension("log")
    }

    /// The process id of a child that runs.
    pub fn id(&self, name: &str) -> Option<u32> {
        let mut running = self.running.iter();
        running.find(|(known, _)| known == name)?.1.id()
    }

    /// Ends one child, as [`Self::end`] ends all. It does nothing if there is no child of this name.
    pub async fn stop(&mut self, name: &str) {
        let position = self.running.iter().position(|(known, _)| known == name);
        if let Some(position) = position {
            let mut one = [self.running.remove(position)];
            end(&mut one).await;
        }
    }

    /// Asks all to end, the last started first, and kills those that do not.
    pub async fn end(mut self) {
        end(&mut self.running).await;
    }
}

impl SidecarProgram {
    /// `weft-proxy` of the same version and commit beside this program, as packages have it. A `cargo run`
    /// may have left an older one there.
    pub async fn find() -> Self {
        let Some(beside) = std::env::current_exe()
            .ok()
            .map(|own| own.with_file_name(SIDECAR))
            .filter(|path| path.is_file())
        else {
            return Self::Weft;
        };
        let said = Command::new(&beside).arg("--version").output().await;
        let own = format!("{SIDECAR} {}", crate::cli::VERSION);
        if said.is_ok_and(|said| String::from_utf8_lossy(&said.stdout).trim_end() == own) {
            return Self::Alone(beside);
        }
        crate::output::note(format_args!(
            "weft: {} is of another build: sidecars are processes of this program",
            beside.display()
        ));
        Self::Weft
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Alone(_) => SIDECAR,
            Self::Weft => "weft",
        }
    }
}

async fn end(running: &mut [(String, Child)]) {
    for (_, child) in running.iter().rev() {
        if let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()) {
            // It may have ended by itself in between.
            let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
        }
    }
    let all = async {
        for (_, child) in running.iter_mut() {
            let _ = child.wait().await;
        }
    };
    if tokio::time::timeout(GRACE, all).await.is_err() {
        for (_, child) in running {
            let _ = child.kill().await;
        }
    }
}
