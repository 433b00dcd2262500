//! Which of the requests that sidecars keep are asked for. Pure.

use std::time::Duration;

use weft_transport::identity::SpiffeId;

use crate::limits;
use crate::proto;

/// What is empty asks for any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecentFilter {
    /// The request's `x-request-id`.
    pub request_id: String,
    /// The caller, as `frontend.shop`, or all of a namespace, as `*.shop`.
    pub from: String,
    /// The service, in the same way.
    pub to: String,
    /// How long ago it may have ended.
    pub within: Duration,
}

impl RecentFilter {
    /// Whether it asks for this caller: a service, or the SPIFFE ID of one that serves none.
    #[must_use]
    pub fn is_from(&self, caller: &str) -> bool {
        match caller.parse::<SpiffeId>() {
            Ok(id) => is_named(&workload(&id), &self.from),
            Err(_) => is_named(caller, &self.from),
        }
    }

    /// Whether it asks for this service, as `orders.shop:80`.
    #[must_use]
    pub fn is_to(&self, service: &str) -> bool {
        let name = service.rsplit_once(':').map_or(service, |(name, _)| name);
        is_named(name, &self.to)
    }
}

/// `frontend.shop` for the identity of a workload.
#[must_use]
pub fn workload(id: &SpiffeId) -> String {
    match id.workload() {
        Some(one) => format!("{}.{}", one.service_account, one.namespace),
        None => id.to_string(),
    }
}

/// Whether a service is the one that is meant: by its name, or by its namespace as `*.shop`. An empty name
/// means any.
#[must_use]
pub fn is_named(service: &str, wanted: &str) -> bool {
    let namespace = || {
        service
            .split_once('.')
            .map_or("", |(_, namespace)| namespace)
    };
    match wanted.strip_prefix("*.") {
        Some(wanted) => namespace() == wanted,
        None => wanted.is_empty() || service == wanted,
    }
}

impl From<proto::Recent> for RecentFilter {
    fn from(message: proto::Recent) -> Self {
        Self {
            request_id: message.request_id,
            from: message.from,
            to: message.to,
            within: Duration::from_millis(message.within_ms).min(limits::RECENT_WITHIN_MAX),
        }
    }
}

impl From<&RecentFilter> for proto::Recent {
    fn from(filter: &RecentFilter) -> Self {
        Self {
            request_id: filter.request_id.clone(),
            from: filter.from.clone(),
            to: filter.to.clone(),
            within_ms: u64::try_from(filter.within.as_millis()).unwrap_or(u64::MAX),
        }
    }
}
