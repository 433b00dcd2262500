//! Every limit of the load generator, with its unit and its reason.

/// Requests per second that can be asked for. Far beyond what one process can send, so that a typing
/// error is refused while every ceiling can still be searched for from above.
pub const RATE_MAX: f64 = 10_000_000.0;

/// The lowest rate: one request in a thousand seconds.
pub const RATE_MIN: f64 = 0.001;

/// Stages of one run. A file with more was not written by a person.
pub const STAGES_MAX: usize = 1000;
