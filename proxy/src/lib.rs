//! The sidecar's data path
