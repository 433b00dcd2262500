//! A small disk of its own for one directory, which can be full or read-only: a tmpfs, which refuses root as
//! well.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::process::{program, run};

/// Bytes of such a disk: state directories need some KiB, and a store of 600 services about a MiB.
const SIZE: &str = "size=1536k";

/// Unmounted when dropped; to be dropped before the folder that it lies in.
pub(crate) struct Disk {
    path: PathBuf,
}

impl Disk {
    /// Mounts one at `path`, with what is there.
    pub(crate) fn mount(path: &Path) -> Self {
        std::fs::create_dir_all(path).unwrap();
        let kept = tempfile::tempdir().unwrap();
        let copy = |from: &Path, to: &Path| {
            run(program("cp").arg("-a").arg(from.join(".")).arg(to)).ok();
        };
        copy(path, kept.path());
        run(program("mount")
            .args(["-t", "tmpfs", "-o", SIZE, "tmpfs"])
            .arg(path))
        .ok();
        let disk = Self {
            path: path.to_owned(),
        };
        copy(kept.path(), path);
        disk
    }

    /// Leaves no byte free.
    pub(crate) fn fill(&self) {
        let mut file = File::create(self.filler()).unwrap();
        while file.write_all(&[0; 512]).is_ok() {}
    }

    /// Makes room again.
    pub(crate) fn clear(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }

    pub(crate) fn set_read_only(&self, read_only: bool) {
        let mode = if read_only {
            "remount,ro"
        } else {
            "remount,rw"
        };
        run(program("mount").args(["-o", mode]).arg(&self.path)).ok();
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a process of the test may still have a file open.
        run(program("umount").arg("-l").arg(&self.path));
    }
}
