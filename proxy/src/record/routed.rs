//! What the rule of a route did to one request beside choosing where it goes: the access log shows it, in the
//! words of the metrics that count the same. Most requests have none of it.

use http::Uri;

use super::Record;
use crate::resilience::destination::Event;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Routed {
    /// The filters that acted, in their order.
    pub(crate) filters: Vec<Event>,
    /// The target that was sent, where a filter wrote another one than the client did.
    pub(crate) sent_as: Option<Uri>,
    /// For how many services a copy was drawn.
    pub(crate) copies: usize,
    /// What became of its session.
    pub(crate) session: Option<Event>,
    /// Why its token of a session counted as none.
    pub(crate) token: Option<Event>,
}

impl Record {
    /// Where that is noted.
    pub(crate) fn routed(&mut self) -> &mut Routed {
        self.routed.get_or_insert_default()
    }
}

impl Routed {
    /// Notes what the request's session came to, unless it is known: that an endpoint is gone says more than
    /// that another began.
    pub(crate) fn session(&mut self, event: Event) {
        self.session.get_or_insert(event);
    }
}
