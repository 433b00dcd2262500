//! Labs for tests: brought up from a topology, queried, and removed when dropped.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

/// Two hosts and a wire.
pub(crate) const PAIR: &str = "
topology:
  hosts: [client, server]
  links:
    wire: { between: [client, server] }
";

/// Whether labs are possible and the programs are installed. If not, prints that the test is skipped, or
/// fails it in CI.
pub(crate) fn can_run(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = |name: &str| {
        let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
        let mut files = folders.map(|folder: PathBuf| folder.join(name));
        files.any(|file| file.is_file())
    };
    let mut missing: Vec<String> = programs
        .iter()
        .filter(|program| !on_path(program))
        .map(|program| format!("no program `{program}` on the PATH"))
        .collect();
    if !nix::unistd::geteuid().is_root() {
        missing.push("network namespaces need root".to_owned());
    }
    if missing.is_empty() {
        return true;
    }
    let thread = std::thread::current();
    let line = format!(
        "SKIPPED {}: {} (scripts/test installs it, as root)",
        thread.name().unwrap_or("a test"),
        missing.join(", ")
    );
    assert!(std::env::var_os("CI").is_none(), "{line}");
    // Written to the descriptor itself: the test runner captures the output of passing tests.
    let _ = writeln!(std::io::stderr(), "{line}");
    false
}

/// Held by each test: see `main.rs`.
pub(crate) fn alone() -> File {
    let file = File::create(std::env::temp_dir().join("weft-tests-heavy.lock")).unwrap();
    file.lock().unwrap();
    file
}

/// `weft` with these arguments, without a lab.
pub(crate) fn weft<S: AsRef<OsStr>>(arguments: &[S]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
    command.args(arguments).output().unwrap()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A lab that is up.
pub(crate) struct Lab {
    pub(crate) name: String,
    _folder: tempfile::TempDir,
    _alone: File,
}

impl Lab {
    /// Brings up `topology` with more flags, when no other test runs.
    pub(crate) fn up(topology: &str, flags: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("t{}-{count}", std::process::id());
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("network.yaml");
        std::fs::write(&file, topology).unwrap();
        let lab = Self {
            name,
            _folder: folder,
            _alone: alone(),
        };
        let file = file.to_str().unwrap();
        let fixed = [
            "lab",
            "up",
            file,
            "--name",
            &lab.name,
            "--backend",
            "emulator",
        ];
        let output = weft(&[&fixed, flags].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        lab
    }

    /// `weft lab COMMAND --lab NAME ...`, which must succeed; its stdout.
    pub(crate) fn weft(&self, command: &str, arguments: &[&str]) -> String {
        let fixed = ["lab", command, "--lab", &self.name];
        let output = weft(&[&fixed, arguments].concat());
        assert!(
            output.status.success(),
            "{command} {arguments:?}: {} {}",
            stdout(&output),
            stderr(&output)
        );
        stdout(&output)
    }

    /// Starts a command on a host.
    pub(crate) fn command(&self, host: &str, command: &[&str]) -> Command {
        let mut weft = Command::new(env!("CARGO_BIN_EXE_weft"));
        weft.args(["lab", "exec", "--lab", &self.name, host, "--"]);
        weft.args(command);
        weft
    }

    /// Runs a command on a host, whatever its exit code; its stdout.
    pub(crate) fn exec(&self, host: &str, command: &[&str]) -> String {
        stdout(&self.command(host, command).output().unwrap())
    }

    /// The lab's own report.
    pub(crate) fn status(&self) -> Value {
        serde_json::from_str(&self.weft("status", &["-o", "json"])).unwrap()
    }

    /// A counter of the direction from `from`.
    pub(crate) fn counter(&self, from: &str, counter: &str) -> u64 {
        let status = self.status();
        let links = status["links"].as_array().unwrap();
        let link = links.iter().find(|link| link["from"] == from).unwrap();
        link["counters"][counter].as_u64().unwrap()
    }

    /// The lab's directory, as `weft lab status` names it.
    pub(crate) fn directory(&self) -> PathBuf {
        let text = self.weft("status", &[]);
        let (_, path) = text
            .lines()
            .next()
            .unwrap()
            .split_once("files in ")
            .unwrap();
        PathBuf::from(path)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = weft(&["lab", "down", &self.name]);
    }
}
