//! State directories that run out of space: a small tmpfs each, and a file that takes the rest. The mounts
//! belong to the lab's own mount namespace.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::RunError;
use super::limits::STATE_BYTES;

const FILLER: &str = "filler";

/// The state directory of a process.
pub(super) fn state(directory: &Path, process: &str) -> PathBuf {
    match process {
        "ca" | "config" => directory.join(process),
        sidecar => directory.join(format!("{sidecar}.state")),
    }
}

/// State directories that are file systems of their own. Dropping it unmounts them, so that the run's
/// directory can be removed.
#[derive(Debug, Default)]
pub(super) struct Disks(Vec<PathBuf>);

impl Disks {
    /// Makes the state directory of a process one that can be filled.
    pub(super) fn add(&mut self, directory: &Path, process: &str) -> Result<(), RunError> {
        let state = state(directory, process);
        let system = |what: &str| {
            let what = format!("{what} {}", state.display());
            move |source: io::Error| RunError::System { what, source }
        };
        std::fs::create_dir_all(&state).map_err(system("make"))?;
        mount(
            Some("tmpfs"),
            &state,
            Some("tmpfs"),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
            Some(format!("size={STATE_BYTES},mode=700").as_str()),
        )
        .map_err(|errno| system("mount a tmpfs on")(errno.into()))?;
        self.0.push(state);
        Ok(())
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        for path in &self.0 {
            // The mount namespace would remove it in the end.
            let _ = umount2(path, MntFlags::MNT_DETACH);
        }
    }
}

/// Takes all free space.
pub(super) fn fill(directory: &Path, process: &str) -> Result<(), RunError> {
    let path = state(directory, process).join(FILLER);
    let system = |source| RunError::System {
        what: format!("fill {}", path.display()),
        source,
    };
    let mut file = File::create(&path).map_err(system)?;
    let block = [0; 4096];
    for _ in 0..=STATE_BYTES / 4096 {
        match file.write_all(&block) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::StorageFull => return Ok(()),
            Err(error) => return Err(system(error)),
        }
    }
    Err(system(io::Error::other("there is more room than it has")))
}

/// Gives the room back.
pub(super) fn free(directory: &Path, process: &str) -> Result<(), RunError> {
    let path = state(directory, process).join(FILLER);
    std::fs::remove_file(&path).map_err(|source| RunError::System {
        what: format!("remove {}", path.display()),
        source,
    })
}
