//! A CA's directory: what `init` makes and `serve` loads.
//!
//! ```text
//! root.key  root.crt  issuing.key  issuing.crt  ca.redb
//! (issuing.key.next during a renewal, admin.sock while it runs)
//! ```
//! A CA whose key may have been copied must not be trusted, so key files that others than the owner may read
//! are refused.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rand::CryptoRng;
use weft_transport::credentials::{BundleError, Fingerprint, TrustBundle};
use weft_transport::files::{self, FileError};
use weft_transport::identity::TrustDomain;

use crate::attest::unix_seconds;
use crate::issuer::{self, IssueError, Issuer, LoadError};
use crate::limits::ADDRESSES_MAX;
use crate::store::{About, STORE_FILE, Store, StoreError};
use crate::token::{AddressError, check_address};

pub(crate) const ROOT_KEY: &str = "root.key";
pub(crate) const ROOT: &str = "root.crt";
pub(crate) const ISSUING_KEY: &str = "issuing.key";
/// The key of a renewed issuing certificate, until that is in its place.
pub(crate) const ISSUING_KEY_NEXT: &str = "issuing.key.next";
pub(crate) const ISSUING: &str = "issuing.crt";
/// Name of the local socket in a CA's directory.
pub const ADMIN_SOCKET: &str = "admin.sock";

/// Files that `init` makes, keys first.
pub(crate) const FILES: [&str; 4] = [ROOT_KEY, ROOT, ISSUING_KEY, ISSUING];

/// Why a CA was not made.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// There is one already, or a part of one.
    #[error(
        "{0} exists: this directory holds a CA already, or a part of one; choose another, or move it away"
    )]
    Exists(PathBuf),
    /// An address that workloads cannot use.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// More than [`ADDRESSES_MAX`] addresses.
    #[error("a CA has at most {ADDRESSES_MAX} addresses")]
    TooManyAddresses,
    /// The directory cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The certificates could not be made.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// The store could not be made.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The root that was just made is unusable; not expected.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

/// The result of `init`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// SHA-256 of the root certificate.
    pub fingerprint: Fingerprint,
}

/// Makes a new CA in `directory`. `addresses` are what join tokens carry; without any, tokens carry the
/// address that `serve` listens on. The store comes last: a directory without it holds no CA.
///
/// # Errors
/// See [`InitError`]; an existing CA is never touched.
pub fn init(
    directory: &Path,
    trust_domain: &TrustDomain,
    addresses: &[String],
    now: SystemTime,
    rng: &mut impl CryptoRng,
) -> Result<Created, InitError> {
    if addresses.len() > ADDRESSES_MAX {
        return Err(InitError::TooManyAddresses);
    }
    addresses
        .iter()
        .try_for_each(|address| check_address(address))?;
    for name in FILES.into_iter().chain([STORE_FILE]) {
        let path = directory.join(name);
        if path.symlink_metadata().is_ok() {
            return Err(InitError::Exists(path));
        }
    }
    files::make_directory(directory)?;
    let new = issuer::create(trust_domain, now, rng)?;
    let contents: [&[u8]; 4] = [
        new.root_key.as_bytes(),
        new.root.as_bytes(),
        new.issuing_key.as_bytes(),
        new.issuing.as_bytes(),
    ];
    for (name, content) in FILES.into_iter().zip(contents) {
        files::write(&directory.join(name), content)?;
    }
    let bundle = TrustBundle::from_pem(trust_domain.clone(), new.root.as_bytes())?;
    let about = About {
        trust_domain: trust_domain.clone(),
        addresses: addresses.to_vec(),
        listen: None,
        created: unix_seconds(now),
    };
    Store::create(&directory.join(STORE_FILE), &about)?;
    Ok(Created {
        trust_domain: trust_domain.clone(),
        fingerprint: anchor(&bundle),
    })
}

/// Why a CA's directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No such directory.
    #[error("{0} does not exist: run `weft ca init` first")]
    Missing(PathBuf),
    /// A file is missing, unreadable or exposed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The root's key is needed, and kept elsewhere.
    #[error("{0} is not there: say by --root-key where the root's key is")]
    NoRootKey(PathBuf),
    /// A key or certificate is unusable.
    #[error("{directory}: {source}", directory = .directory.display())]
    Load {
        /// The CA's directory.
        directory: PathBuf,
        /// The fault.
        source: LoadError,
    },
    /// The store is not usable.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The root is not usable.
    #[error("root.crt: {0}")]
    Bundle(#[from] BundleError),
}

/// Opens the store of a CA.
pub(crate) fn open_store(directory: &Path) -> Result<Store, OpenError> {
    check_there(directory)?;
    Ok(Store::open(&directory.join(STORE_FILE))?)
}

/// Loads the issuing key and certificates of a CA.
pub(crate) fn load_issuer(
    directory: &Path,
    trust_domain: TrustDomain,
) -> Result<Issuer, OpenError> {
    for key in [ISSUING_KEY, ROOT_KEY] {
        match files::check_private(&directory.join(key)) {
            // The root key may be kept elsewhere: signing SVIDs does not need it.
            Err(error) if key == ROOT_KEY && error.is_not_found() => {}
            other => other?,
        }
    }
    let root = files::read(&directory.join(ROOT))?;
    let issuing = files::read(&directory.join(ISSUING))?;
    let load = |name| {
        let key = zeroize::Zeroizing::new(files::read(&directory.join(name))?);
        let loaded = Issuer::load(trust_domain.clone(), &root, &issuing, &key);
        loaded.map_err(|source| OpenError::Load {
            directory: directory.to_owned(),
            source,
        })
    };
    match load(ISSUING_KEY) {
        // A renewal that is running, or was interrupted.
        Err(error) if is_mismatch(&error) => load(ISSUING_KEY_NEXT).map_err(|_| error),
        loaded => loaded,
    }
}

fn is_mismatch(error: &OpenError) -> bool {
    let OpenError::Load { source, .. } = error else {
        return false;
    };
    matches!(source, LoadError::Mismatch(ISSUING_KEY, _))
}

/// Finishes a renewal that was interrupted after its certificate was written: `issuing.key.next` is its key.
pub(crate) fn finish_renewal(directory: &Path, trust_domain: TrustDomain) -> Result<(), OpenError> {
    let [key, next] = [ISSUING_KEY, ISSUING_KEY_NEXT].map(|name| directory.join(name));
    let (root, issuing) = (
        files::read(&directory.join(ROOT))?,
        files::read(&directory.join(ISSUING))?,
    );
    let fits = |key: &Path| {
        let pem = files::read_if_there(key)?.map(zeroize::Zeroizing::new);
        let loaded =
            pem.map(|pem| Issuer::load(trust_domain.clone(), &root, &issuing, &pem).is_ok());
        Ok::<_, FileError>(loaded.unwrap_or(false))
    };
    if !fits(&key)? && fits(&next)? {
        files::rename(&next, &key)?;
    }
    Ok(())
}

/// The result of [`renew`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// SHA-256 of the new issuing certificate.
    pub fingerprint: Fingerprint,
    /// End of its life.
    pub not_after: SystemTime,
}

/// Makes the next issuing certificate of a CA, with a new key, even if the present one has expired. A running
/// CA starts to use it by itself. `root_key` is where the root's key is, if not in the directory.
///
/// # Errors
/// See [`OpenError`].
pub fn renew(
    directory: &Path,
    root_key: Option<&Path>,
    now: SystemTime,
    rng: &mut impl CryptoRng,
) -> Result<Renewed, OpenError> {
    check_there(directory)?;
    let failed = |source| OpenError::Load {
        directory: directory.to_owned(),
        source,
    };
    let in_directory = directory.join(ROOT_KEY);
    let root_key = root_key.unwrap_or(&in_directory);
    files::check_private(root_key).map_err(|error| match error.is_not_found() {
        true => OpenError::NoRootKey(root_key.to_owned()),
        false => error.into(),
    })?;
    let key = zeroize::Zeroizing::new(files::read(root_key)?);
    let root = files::read(&directory.join(ROOT))?;
    let new = issuer::renew(&root, &key, now, rng).map_err(failed)?;
    let trust_domain = issuer::root_trust_domain(&root).map_err(failed)?;
    finish_renewal(directory, trust_domain)?;
    // The key is written first and moved into its place last, so that a matching pair is there after a crash
    // at any moment.
    let next = directory.join(ISSUING_KEY_NEXT);
    files::write(&next, new.key.as_bytes())?;
    files::write(&directory.join(ISSUING), new.certificate.as_bytes())?;
    files::rename(&next, &directory.join(ISSUING_KEY))?;
    let (fingerprint, ..) =
        issuer::validity(ISSUING, new.certificate.as_bytes()).map_err(failed)?;
    Ok(Renewed {
        fingerprint,
        not_after: new.not_after,
    })
}

/// The trust anchors of a CA, as PEM: what `weft ca bundle` prints. Works beside a running server.
///
/// # Errors
/// See [`OpenError`].
pub fn bundle(directory: &Path) -> Result<String, OpenError> {
    check_there(directory)?;
    Ok(String::from_utf8_lossy(&files::read(&directory.join(ROOT))?).into_owned())
}

/// A directory that this user may not see may well be there: what is read in it says that it may not.
fn check_there(directory: &Path) -> Result<(), OpenError> {
    match directory.try_exists() {
        Ok(false) => Err(OpenError::Missing(directory.to_owned())),
        Ok(true) | Err(_) => Ok(()),
    }
}

/// The trust anchors of a CA.
pub(crate) fn trust_bundle(
    directory: &Path,
    trust_domain: TrustDomain,
) -> Result<TrustBundle, OpenError> {
    Ok(TrustBundle::from_pem(
        trust_domain,
        &files::read(&directory.join(ROOT))?,
    )?)
}

/// The fingerprint that join tokens carry.
pub(crate) fn anchor(bundle: &TrustBundle) -> Fingerprint {
    bundle
        .fingerprints()
        .into_iter()
        .next()
        .expect("a bundle has at least one root")
}
