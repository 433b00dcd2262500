//! What makes calls one edge of the mesh: who calls what, and by which rule. Pure.

use std::sync::Arc;

use super::counts::EdgeCounts;
use crate::proto;

/// Where a call was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// By the caller's sidecar, with all that the caller waited for.
    Caller,
    /// By the sidecar of the service.
    Service,
}

/// An edge of the mesh. What is not known is empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EdgeKey {
    /// Where it was counted.
    pub side: Side,
    /// The caller's service, as `frontend.shop`; empty if its identity serves none, or several.
    pub from: Arc<str>,
    /// The caller's SPIFFE ID; empty for a caller that proved none.
    pub from_identity: Arc<str>,
    /// The service and port, as `orders.shop:80`; empty if the caller named none that exists.
    pub to: Arc<str>,
    /// The SPIFFE ID of the endpoint; empty if no endpoint was asked, and outside of the mesh.
    pub to_identity: Arc<str>,
    /// The rule that led there, as `HTTPRoute shop/orders 2`; empty where none did.
    pub route: Arc<str>,
}

impl EdgeKey {
    /// What came on it, as it is told.
    pub(crate) fn to_message(&self, counts: &EdgeCounts) -> proto::EdgeSignals {
        proto::EdgeSignals {
            by_service: self.side == Side::Service,
            from: self.from.to_string(),
            from_identity: self.from_identity.to_string(),
            to: self.to.to_string(),
            to_identity: self.to_identity.to_string(),
            route: self.route.to_string(),
            counts: Some(counts.into()),
        }
    }
}
