//! Says of which commit a release is: `weft --version`, `weft version` and `weft_build_info` tell it.
//!
//! `WEFT_COMMIT` has the last word, for builds from an archive. Other builds than releases are not asked:
//! each commit would compile the command anew.

use std::process::Command;

#[expect(
    clippy::disallowed_methods,
    reason = "cargo talks to a build script by the environment, and there is no settings loader"
)]
fn main() {
    println!("cargo::rerun-if-env-changed=WEFT_COMMIT");
    let given = std::env::var("WEFT_COMMIT").ok();
    let is_release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let commit = given.or_else(|| if is_release { of_git() } else { None });
    let commit = commit.unwrap_or_default();
    let plain = commit
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let commit = if plain { commit.as_str() } else { "" };
    println!("cargo::rustc-env=WEFT_COMMIT={commit}");
    let beside = match commit {
        "" => String::new(),
        commit => format!(" ({commit})"),
    };
    println!("cargo::rustc-env=WEFT_COMMIT_BESIDE={beside}");
}

/// The commit of the working tree, if it is one.
fn of_git() -> Option<String> {
    let output = Command::new("git")
        .args(["rev-parse", "--short=12", "HEAD"])
        .output()
        .ok()?;
    let place = Command::new("git")
        .args(["rev-parse", "--git-path", "logs/HEAD"])
        .output()
        .ok()?;
    if let Ok(place) = String::from_utf8(place.stdout) {
        println!("cargo::rerun-if-changed={}", place.trim());
    }
    let commit = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| commit.trim().to_owned())
}
