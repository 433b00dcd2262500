//! The files that are kept of a failed run, bounded, without keys and tokens: logs, settings, the last
//! packets of each link and the packets of connections (qlog).

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::limits::{LOG_BYTES_KEPT, RUNS_KEPT};
use super::outcome::Outcome;

/// Copies the logs of the run in `directory` to a new folder below `keep`, and removes the oldest
/// folders when there are too many. Returns the folder.
///
/// # Errors
/// When the folder cannot be written.
pub fn keep(outcome: &Outcome, directory: &Path, keep: &Path) -> io::Result<PathBuf> {
    fs::create_dir_all(keep)?;
    let folder = free_folder(keep, &format!("{}-seed{}", outcome.scenario, outcome.seed))?;
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let Some(name) = name else { continue };
        if is_log(&name) {
            copy_end(&path, &folder.join(name))?;
        } else if name.ends_with(CAPTURE) {
            fs::copy(&path, folder.join(name))?;
        } else if let Some(sidecar) = name.strip_suffix(QLOG) {
            copy_qlog(&path, sidecar, &folder)?;
        }
    }
    let document = serde_json::to_vec_pretty(outcome).map_err(io::Error::other)?;
    fs::write(folder.join("outcome.json"), document)?;
    forget_oldest(keep)?;
    Ok(folder)
}

/// The suffix of a link's capture. Its size is bounded where it is made.
const CAPTURE: &str = ".pcapng";

/// The suffix of a directory with the qlog of a sidecar's connections.
const QLOG: &str = ".qlog";

/// The name of the directory for the qlog of a sidecar's connections.
pub(super) fn qlog_directory(sidecar: &str) -> String {
    format!("{sidecar}{QLOG}")
}

/// Files of qlog, which the sidecar bounded, with the sidecar's name as prefix.
fn copy_qlog(directory: &Path, sidecar: &str, folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = format!("{sidecar}-{}", entry.file_name().to_string_lossy());
        fs::copy(entry.path(), folder.join(name))?;
    }
    Ok(())
}

/// Logs and settings; not stores, state directories (keys) and tokens.
fn is_log(name: &str) -> bool {
    let endings = [".stdout", ".stderr", ".yaml"];
    endings.iter().any(|ending| name.ends_with(ending)) && !name.starts_with("errand-")
}

fn free_folder(keep: &Path, name: &str) -> io::Result<PathBuf> {
    let names = std::iter::once(name.to_owned()).chain((2..).map(|n| format!("{name}-{n}")));
    for name in names.take(RUNS_KEPT + 2) {
        match fs::create_dir(keep.join(&name)) {
            Ok(()) => return Ok(keep.join(name)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(
        io::ErrorKind::AlreadyExists,
        format!("{} is full: remove what you do not need", keep.display()),
    ))
}

/// The end of a file shows the failure.
fn copy_end(from: &Path, to: &Path) -> io::Result<()> {
    let mut file = File::open(from)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES_KEPT)))?;
    let mut copy = File::create(to)?;
    io::copy(&mut file.take(LOG_BYTES_KEPT), &mut copy)?;
    Ok(())
}

fn forget_oldest(keep: &Path) -> io::Result<()> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(keep)? {
        let entry = entry?;
        // Only folders that a run left: the directory may also have others.
        if entry.path().join("outcome.json").exists() {
            folders.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    folders.sort();
    let surplus = folders.len().saturating_sub(RUNS_KEPT);
    for (_, folder) in folders.into_iter().take(surplus) {
        fs::remove_dir_all(folder)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::outcome::State;
    use super::*;
    use std::time::Duration;

    fn outcome() -> Outcome {
        Outcome {
            scenario: "loss".into(),
            description: String::new(),
            seed: 7,
            state: State::Failed,
            expected_failure: None,
            verdicts: Vec::new(),
            loads: Vec::new(),
            events: Vec::new(),
            links: Vec::new(),
            duration: Duration::ZERO,
            took: Duration::ZERO,
            cpu_busy: 0.0,
            cpu_others: 0.0,
            cpu_stolen: 0.0,
            lateness_p99: Duration::ZERO,
        }
    }

    #[test]
    fn logs_are_kept_and_secrets_are_not() {
        let run = tempfile::tempdir().unwrap();
        let kept = tempfile::tempdir().unwrap();
        for directory in ["shop.qlog", "shop.state"] {
            fs::create_dir(run.path().join(directory)).unwrap();
        }
        for name in [
            "shop.stderr",
            "shop.token",
            "shop.yaml",
            "errand-1.stdout",
            "wan.pcapng",
            "shop.qlog/dialling-1.sqlog",
            "shop.state/key.pem",
        ] {
            fs::write(run.path().join(name), "x").unwrap();
        }
        let folder = keep(&outcome(), run.path(), kept.path()).unwrap();
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let kept = [
            "outcome.json",
            "shop-dialling-1.sqlog",
            "shop.stderr",
            "shop.yaml",
            "wan.pcapng",
        ];
        assert_eq!(names, kept);
    }

    #[test]
    fn no_more_runs_are_kept_than_the_bound() {
        let run = tempfile::tempdir().unwrap();
        let kept = tempfile::tempdir().unwrap();
        for _ in 0..RUNS_KEPT + 3 {
            keep(&outcome(), run.path(), kept.path()).unwrap();
        }
        assert_eq!(fs::read_dir(kept.path()).unwrap().count(), RUNS_KEPT);
    }
}
