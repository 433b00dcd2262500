//! The decisions about one request beyond its destination: which endpoint takes it, whether it is tried
//! again, how long it may take, and when it is refused. Each file is one small state machine that gets time
//! and randomness as arguments. Pure.
//!
//! Not here: the data path that calls them ([`crate::outbound`], [`crate::inbound`]), and the resources that
//! an operator writes (`weft_config::resources`). The values in force come from the table
//! (`weft_config::table`).

pub(crate) mod attempts;
pub(crate) mod balance;
pub(crate) mod breaker;
pub(crate) mod budget;
pub(crate) mod deadline;
pub(crate) mod destination;
pub(crate) mod fault;
pub(crate) mod latency;
pub(crate) mod limit;
pub(crate) mod load;
pub(crate) mod locality;
pub(crate) mod overload;
pub(crate) mod propagation;
pub(crate) mod rate;
pub(crate) mod retry;
pub(crate) mod standing;
pub(crate) mod times;
pub(crate) mod verdict;
pub(crate) mod weights;
