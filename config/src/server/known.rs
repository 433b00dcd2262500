//! The file in which the service notes the present sidecars, so that after a restart it knows for which ones
//! an apply has to wait. Only the service reads it; without it the service waits for a lease instead.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use weft_transport::files;
use weft_transport::identity::SpiffeId;

use super::registry::Workload;
use super::sidecars::{About, Place};
use crate::limits;

/// One sidecar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Known {
    identity: SpiffeId,
    instance: String,
    version: String,
    source: Option<IpAddr>,
    address: Option<SocketAddr>,
    /// End of its certificate, in seconds since the epoch.
    not_after: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    schema: u32,
    sidecars: Vec<Known>,
}

const SCHEMA: u32 = 1;

impl Known {
    pub(super) fn new(workload: &Workload, about: &About) -> Self {
        let not_after = about.not_after.duration_since(UNIX_EPOCH);
        Self {
            identity: workload.identity.clone(),
            instance: workload.instance.clone(),
            version: about.version.clone(),
            source: about.source,
            address: about.place.address,
            not_after: not_after.unwrap_or_default().as_secs(),
        }
    }

    pub(super) fn into_parts(self) -> (Workload, About) {
        let end = UNIX_EPOCH.checked_add(Duration::from_secs(self.not_after));
        let about = About {
            source: self.source,
            not_after: end.unwrap_or(SystemTime::UNIX_EPOCH),
            version: self.version,
            listens_for: Default::default(),
            features: Default::default(),
            place: Place {
                address: self.address,
                locality: None,
            },
        };
        let workload = Workload {
            identity: self.identity,
            instance: self.instance,
        };
        (workload, about)
    }
}

/// The contents of the file; `None` if there is none, or it is unusable.
pub(super) fn read(path: &Path) -> Option<Vec<Known>> {
    let text = match fs::metadata(path) {
        Ok(about) if about.len() <= limits::KNOWN_BYTES_MAX => fs::read(path),
        Ok(_) => Err(io::ErrorKind::FileTooLarge.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => Err(error),
    };
    let read = text
        .map_err(|error| error.to_string())
        .and_then(|text| serde_json::from_slice::<File>(&text).map_err(|error| error.to_string()));
    match read {
        Ok(file) if file.schema == SCHEMA && file.sidecars.len() <= limits::SIDECARS_MAX => {
            Some(file.sidecars)
        }
        Ok(_) => None,
        Err(error) => {
            tracing::warn!(path = %path.display(), error, "which sidecars there were cannot be read");
            None
        }
    }
}

/// Replaces the file. If that fails, the file is removed, because a missing file is better than a wrong one.
pub(super) fn write(path: &Path, sidecars: Vec<Known>) -> io::Result<()> {
    let text = serde_json::to_vec(&File {
        schema: SCHEMA,
        sidecars,
    })?;
    let replaced = files::write(path, &text);
    if replaced.is_err() {
        // The first error is reported.
        let _ = fs::remove_file(path);
    }
    replaced.map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_anything_else_is_as_good_as_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sidecars.json");
        assert_eq!(read(&path), None);
        let known = Known {
            identity: "spiffe://demo.test/ns/shop/sa/orders".parse().unwrap(),
            instance: "a".into(),
            version: "0.1.0".into(),
            source: Some("10.0.0.1".parse().unwrap()),
            address: Some("10.0.0.1:6143".parse().unwrap()),
            not_after: 1_700_000_000,
        };
        write(&path, vec![known.clone()]).unwrap();
        let read_back = read(&path).unwrap();
        assert_eq!(read_back, [known]);
        let (workload, about) = read_back[0].clone().into_parts();
        assert_eq!(Known::new(&workload, &about), read_back[0]);
        write(&path, Vec::new()).unwrap();
        assert_eq!(read(&path), Some(Vec::new()));
        for bad in ["", "{}", "{\"schema\":2,\"sidecars\":[]}"] {
            fs::write(&path, bad).unwrap();
            assert_eq!(read(&path), None, "{bad}");
        }
    }
}
