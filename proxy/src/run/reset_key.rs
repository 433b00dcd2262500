//! The key of stateless reset tokens, in a file of the state directory.

use std::path::Path;

use rand::RngExt;
use weft_transport::endpoint::ResetKey;
use weft_transport::files;

use super::random;

/// The key of stateless reset tokens: kept, so that after a crash peers learn at once that their
/// connections are gone.
///
/// If the directory cannot be written, the key lasts as long as the process: peers then notice a crash later.
pub(super) fn reset_key(state_dir: &Path) -> ResetKey {
    let path = state_dir.join("reset.key");
    if let Ok(bytes) = std::fs::read(&path)
        && let Ok(key) = <[u8; ResetKey::LENGTH]>::try_from(bytes)
    {
        return ResetKey::new(key);
    }
    let key: [u8; ResetKey::LENGTH] = random(|random| random.random());
    if let Err(error) = files::write(&path, &key) {
        tracing::warn!(path = %path.display(), %error, "the key of stateless resets is not kept: after a crash, peers find out by silence");
    }
    ResetKey::new(key)
}
