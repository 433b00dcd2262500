//! Bounds of a scenario, each with its unit and its reason.

use std::time::Duration;

/// Longest run: a soak of a night.
pub const SCENARIO_DURATION_MAX: Duration = Duration::from_hours(12);

/// Endpoints of one service: each is a sidecar and an application on one machine.
pub const ENDPOINTS_MAX: usize = 64;

/// Requests per second of one load: more than one machine's generator makes.
pub const RATE_MAX: f64 = 100_000.0;

/// Connections of a closed load.
pub const CONNECTIONS_MAX: u32 = 10_000;

/// Time for an answer when a load names none: the usual patience of a mesh's callers.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(10);

/// Bytes of a scenario file.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// Longest step of a clock: a day more than the life of the CA's issuing certificate, the longest in a mesh
/// except the root's.
pub const CLOCK_STEP_MAX: Duration = Duration::from_hours(366 * 24);
