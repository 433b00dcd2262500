//! The scripts of `tests/python`, in the environment that `scripts/test` made.

use std::process::Command;

use super::process::{Output, run};

/// The interpreter with the packages of `requirements.txt`.
pub(crate) const INTERPRETER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/.venv/bin/python");

/// A script, ready for its arguments.
pub(crate) fn python_command(script: &str) -> Command {
    let mut command = Command::new(INTERPRETER);
    command
        .arg("-u")
        .arg(format!(
            "{}/tests/python/{script}",
            env!("CARGO_MANIFEST_DIR")
        ))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// Runs a script to its end and gives the JSON that it printed last.
#[track_caller]
pub(crate) fn python(script: &str, arguments: &[&str]) -> serde_json::Value {
    let output: Output = run(python_command(script).args(arguments));
    assert_eq!(
        output.code, 0,
        "{script} {arguments:?}:\n{}\n{}",
        output.stdout, output.stderr
    );
    let last = output.stdout.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|error| {
        panic!(
            "{script} {arguments:?}: {error} in {last:?}\n{}",
            output.stderr
        )
    })
}
