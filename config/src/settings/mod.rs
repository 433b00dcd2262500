//! Settings of the three long-running processes: defaults < file < `WEFT_` environment < flags.
//!
//! `raw.rs` has the keys that may be written, `values.rs` their values, `layers.rs` reads and merges;
//! `proxy.rs`, `ca.rs`, `service.rs`, `admin.rs` and `traces.rs` turn the result into types in which nothing
//! is invalid, with the numbers of `limits.rs`. The mesh's resources (which operators apply) are not here.

mod admin;
mod ca;
mod error;
mod health;
mod layers;
pub mod limits;
mod proxy;
pub mod raw;
mod service;
mod standard_environment;
mod traces;
mod values;

pub use admin::{Observe, ProxyAdmin, ProxyPlace, locate_proxy};
pub use ca::{CaSettings, load_ca};
pub use error::{Position, SettingsError};
pub use health::{HealthCheck, Question};
pub use layers::{Loaded, Sources, yaml_message};
pub use proxy::{
    Concurrency, Drain, Inbound, InboundService, OutboundListener, OutboundTarget, ProxySettings,
    Timeouts, load_proxy,
};
pub use raw::{AccessLog, AdminChanges};
pub use service::{ConfigSettings, load_config};
pub use standard_environment::Standard;
pub use traces::{OtlpProtocol, RawTraces, Traces};
pub use values::{
    AdminSocket, ApplicationAddress, DurationText, HostPort, ListenAddress, LocalAddress,
    ServiceReference, ValueError,
};
