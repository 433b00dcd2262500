//! The requirements of a test on the machine, and the result if one is missing.

use std::fs::File;
use std::io::Write;
use std::path::Path;

/// One requirement of a test.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Need {
    /// A program on the PATH, from a Debian package.
    Program(&'static str),
    /// PostgreSQL's server programs, which Debian keeps off the PATH.
    Postgres,
    /// `.venv` with the packages of `tests/python/requirements.txt`.
    Python,
    /// Root, for network namespaces.
    Root,
    /// Root and the cpu controller of control groups.
    Quota,
}

/// Whether everything is there. If not, prints that the test is skipped, or fails it in CI.
///
/// ```ignore
/// if !need(&[Need::Program("nginx")]) { return; }
/// ```
pub(crate) fn need(needs: &[Need]) -> bool {
    let missing: Vec<String> = needs.iter().filter_map(|need| need.missing()).collect();
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

impl Need {
    fn missing(self) -> Option<String> {
        match self {
            Self::Program(name) => {
                (!on_path(name)).then(|| format!("no program `{name}` on the PATH"))
            }
            Self::Postgres => super::process::postgres_programs()
                .is_none()
                .then(|| "no PostgreSQL server".to_owned()),
            Self::Python => (!Path::new(super::python::INTERPRETER).exists())
                .then(|| "no Python environment in .venv".to_owned()),
            Self::Root => (!nix::unistd::geteuid().is_root())
                .then(|| "network namespaces need root".to_owned()),
            Self::Quota => (!super::quota::Quota::is_possible())
                .then(|| "no cpu controller for control groups of root".to_owned()),
        }
    }
}

fn on_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian installs nginx and nft where a plain user's PATH does not look.
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|folder| folder.join(name).is_file())
}

/// Held by tests that keep both cores or much memory busy, so that only one of them runs at a
/// time. A lock file: it also holds between runners that give each test its own process.
pub(crate) fn heavy() -> File {
    let file = File::create(std::env::temp_dir().join("weft-tests-heavy.lock")).unwrap();
    file.lock().unwrap();
    file
}
