//! The key of stateless reset tokens, in a file of the state directory.

use std::io;
use std::path::Path;

use rand::RngExt;
use weft_transport::endpoint::ResetKey;

use super::random;

/// The key of stateless reset tokens: kept, so that after a crash peers learn at once that their
/// connections are gone.
pub(super) fn reset_key(state_dir: &Path) -> io::Result<ResetKey> {
    let path = state_dir.join("reset.key");
    if let Ok(bytes) = std::fs::read(&path)
        && let Ok(key) = <[u8; ResetKey::LENGTH]>::try_from(bytes)
    {
        return Ok(ResetKey::new(key));
    }
    let key: [u8; ResetKey::LENGTH] = random(|random| random.random());
    write_private(&path, &key)?;
    Ok(ResetKey::new(key))
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let temporary = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}
