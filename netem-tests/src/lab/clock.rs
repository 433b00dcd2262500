//! A wall clock of its own for a program. Linux has no namespace for it, so libfaketime stands between the
//! program and the system's clock: the dynamic linker loads it first, and a file says how far ahead the clock
//! is. The monotonic clock stays the system's, as on a host whose time is set.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

/// Where distributions put the library, the directory of the architecture aside.
const DIRECTORIES: [&str; 4] = [
    "/usr/lib/faketime",
    "/usr/lib64/faketime",
    "/usr/local/lib/faketime",
    "/usr/local/lib64/faketime",
];

/// The library for programs with threads: the variant without MT reads the file into memory that threads
/// share without a lock.
const LIBRARY: &str = "libfaketimeMT.so.1";

/// libfaketime is not on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stepping clocks needs libfaketime: apt-get install faketime")]
pub struct NoLibrary;

/// The clock of one program, which may be started many times.
#[derive(Debug)]
pub struct Clock {
    library: PathBuf,
    file: PathBuf,
    ahead_ms: i64,
}

impl Clock {
    /// A clock that shows the system's time until it is stepped. `file` is written.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn new(library: PathBuf, file: PathBuf) -> io::Result<Self> {
        let clock = Self {
            library,
            file,
            ahead_ms: 0,
        };
        clock.write()?;
        Ok(clock)
    }

    /// The environment that a program needs to use this clock.
    pub fn environment(&self) -> Vec<(OsString, OsString)> {
        vec![
            ("LD_PRELOAD".into(), self.library.clone().into()),
            ("FAKETIME_TIMESTAMP_FILE".into(), self.file.clone().into()),
            // The next read of the clock shows a step.
            ("FAKETIME_NO_CACHE".into(), "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC".into(), "1".into()),
            // Times of files stay as they were when the files were written.
            ("NO_FAKE_STAT".into(), "1".into()),
        ]
    }

    /// Steps it, forward or back. Running programs see it at once.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn step(&mut self, milliseconds: i64) -> io::Result<()> {
        self.ahead_ms = self.ahead_ms.saturating_add(milliseconds);
        self.write()
    }

    /// Whether the process with this id uses such a clock. A statically linked one does not, and the dynamic
    /// linker does not report that.
    pub fn holds_for(id: u32) -> bool {
        let maps = std::fs::read_to_string(format!("/proc/{id}/maps"));
        maps.is_ok_and(|maps| maps.contains(LIBRARY))
    }

    fn write(&self) -> io::Result<()> {
        let new = self.file.with_extension("new");
        std::fs::write(&new, offset(self.ahead_ms))?;
        // Replaced as a whole, because a program reads it at any moment.
        std::fs::rename(&new, &self.file)
    }
}

/// The library on this machine.
///
/// # Errors
/// When it is in none of the usual places.
pub fn library() -> Result<PathBuf, NoLibrary> {
    let debian = format!("/usr/lib/{}-linux-gnu/faketime", std::env::consts::ARCH);
    let mut directories = DIRECTORIES.into_iter().chain([debian.as_str()]);
    directories.find_map(in_directory).ok_or(NoLibrary)
}

fn in_directory(directory: &str) -> Option<PathBuf> {
    let path = Path::new(directory).join(LIBRARY);
    path.exists().then_some(path)
}

/// Seconds from the system's clock, as libfaketime reads them.
fn offset(milliseconds: i64) -> String {
    let sign = if milliseconds < 0 { '-' } else { '+' };
    let length = milliseconds.unsigned_abs();
    format!("{sign}{}.{:03}\n", length / 1000, length % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_add_up_and_a_step_back_undoes_one_ahead() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("orders.clock");
        let mut clock = Clock::new("lib.so".into(), file.clone()).unwrap();
        let mut shown = vec![std::fs::read_to_string(&file).unwrap()];
        for step in [3_600_000, -3_601_500, 1_500] {
            clock.step(step).unwrap();
            shown.push(std::fs::read_to_string(&file).unwrap());
        }
        assert_eq!(shown, ["+0.000\n", "+3600.000\n", "-1.500\n", "+0.000\n"]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_program_without_the_library_has_no_clock_of_its_own() {
        assert!(!Clock::holds_for(std::process::id()));
    }
}
