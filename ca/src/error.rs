//! What kind of failure an error is, for exit codes and retries.

use weft_transport::files::FileError;

use crate::admin::AdminError;
use crate::agent::AgentError;
use crate::backup::BackupError;
use crate::directory::{InitError, OpenError};
use crate::operations::TokensError;
use crate::server::ServeError;
use crate::store::StoreError;

/// The kinds of failure that a command tells apart by its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The input, a file or a store is invalid.
    BadData,
    /// The CA does not answer.
    Unreachable,
    /// The CA or the operating system refuses.
    NotPermitted,
    /// Anything else.
    Failed,
}

impl From<&FileError> for ErrorKind {
    fn from(error: &FileError) -> Self {
        match error {
            FileError::Exposed { .. } => Self::NotPermitted,
            FileError::Io { .. } if error.is_not_permitted() => Self::NotPermitted,
            FileError::Io { .. } => Self::Failed,
            FileError::TooLarge { .. } => Self::BadData,
        }
    }
}

impl From<&weft_store::StoreError> for ErrorKind {
    fn from(error: &weft_store::StoreError) -> Self {
        if error.is_not_permitted() {
            Self::NotPermitted
        } else if error.is_bad_data() {
            Self::BadData
        } else {
            Self::Failed
        }
    }
}

impl StoreError {
    /// What kind of failure this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.into(),
            Self::TokensFull => ErrorKind::Failed,
        }
    }
}

impl OpenError {
    /// What kind of failure this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Missing(_) | Self::NoRootKey(_) => ErrorKind::Failed,
            Self::File(error) => error.into(),
            Self::Load { .. } | Self::Bundle(_) => ErrorKind::BadData,
            Self::Store(error) => error.kind(),
        }
    }
}

impl InitError {
    /// What kind of failure this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Address(_) | Self::TooManyAddresses => ErrorKind::BadData,
            Self::File(error) => error.into(),
            Self::Store(error) => error.kind(),
            Self::Exists(_) | Self::Issue(_) | Self::Bundle(_) => ErrorKind::Failed,
        }
    }
}

impl TokensError {
    /// What kind of failure this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Subject(_) | Self::Ttl | Self::Count => ErrorKind::BadData,
            Self::NoAddress | Self::Wildcard(_) => ErrorKind::Failed,
            Self::Open(error) => error.kind(),
            Self::Store(error) => error.kind(),
        }
    }
}

impl BackupError {
    /// What kind of failure this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotEmpty(_) | Self::Running(_) => ErrorKind::Failed,
            Self::Damaged { .. } | Self::LogBroken { .. } => ErrorKind::BadData,
            Self::File(error) => error.into(),
            Self::Open(error) => error.kind(),
            Self::Store(error) => error.kind(),
        }
    }
}

impl AdminError {
    /// What kind of failure this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Socket { source, .. }
                if source.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                ErrorKind::NotPermitted
            }
            Self::Socket { .. } => ErrorKind::Unreachable,
            Self::Running { kind, .. } => *kind,
            Self::Open(error) => error.kind(),
            Self::Store(error) => error.kind(),
            Self::Tokens(error) => error.kind(),
            Self::Backup(error) => error.kind(),
        }
    }
}

impl ServeError {
    /// What kind of failure this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Open(error) => error.kind(),
            Self::Store(error) => error.kind(),
            Self::Ttl => ErrorKind::BadData,
            Self::Listen { source, .. } | Self::Socket { source, .. }
                if source.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                ErrorKind::NotPermitted
            }
            Self::File(error) => error.into(),
            Self::Running(_)
            | Self::Listen { .. }
            | Self::Socket { .. }
            | Self::Own(_)
            | Self::Tls(_)
            | Self::Stopped(_) => ErrorKind::Failed,
        }
    }
}

impl AgentError {
    /// What kind of failure this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Refused { .. } | Self::NoToken(_) | Self::Expired { .. } => {
                ErrorKind::NotPermitted
            }
            Self::OtherIdentity { .. } | Self::Damaged { .. } | Self::Answer(_) => {
                ErrorKind::BadData
            }
            Self::Unreachable(_) => ErrorKind::Unreachable,
            Self::File(error) => error.into(),
            Self::Key(_) => ErrorKind::Failed,
        }
    }
}
