//! What a sidecar may say of its calls: of its own alone. What it says of others is left out, text is
//! bounded, and who it is comes from its handshake. Pure.

use std::sync::Arc;

use weft_transport::identity::SpiffeId;

use super::past::SidecarKey;
use crate::limits;
use crate::proto;
use crate::signals::{EdgeCounts, EdgeKey, Side};
use crate::table::ServiceName;

/// A message of a sidecar, as far as it is believed.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) edges: Vec<(EdgeKey, EdgeCounts)>,
    /// The sums of the sidecar itself, by side.
    pub(super) sides: Vec<(SidecarKey, EdgeCounts)>,
    /// Edges that were left out.
    pub(super) refused: u64,
}

impl Told {
    /// What the sidecar of this identity tells.
    pub(super) fn by(identity: &SpiffeId, message: proto::Signals) -> Self {
        let mut told = Self::default();
        let instance: Arc<str> = text(&message.instance).into();
        let mut sums = [EdgeCounts::default(), EdgeCounts::default()];
        let all = message.edges.into_iter().enumerate();
        for (number, edge) in all {
            let counts = EdgeCounts::from(edge.counts.clone().unwrap_or_default());
            match (number < limits::SIGNAL_EDGES_EACH).then(|| checked(identity, &edge)) {
                Some(Some(edge)) => {
                    sums[edge.side as usize].merge(&counts);
                    told.edges.push((edge, counts));
                }
                Some(None) | None => told.refused += 1,
            }
        }
        if let Some(others) = message.others {
            let counts = EdgeCounts::from(others);
            let edge = EdgeKey {
                side: Side::Caller,
                from: Arc::from(""),
                from_identity: identity.as_str().into(),
                to: Arc::from(super::past::OTHER),
                to_identity: Arc::from(""),
                route: Arc::from(""),
            };
            told.edges.push((edge, counts));
        }
        let sides = [Side::Caller, Side::Service].into_iter().zip(sums);
        let sides = sides.filter(|(_, counts)| !counts.is_empty());
        told.sides = sides
            .map(|(side, counts)| {
                let sidecar = SidecarKey {
                    identity: identity.clone(),
                    instance: Arc::clone(&instance),
                    side,
                };
                (sidecar, counts)
            })
            .collect();
        told
    }
}

/// The edge, unless the sidecar cannot have seen it.
fn checked(identity: &SpiffeId, edge: &proto::EdgeSignals) -> Option<EdgeKey> {
    let own: Arc<str> = identity.as_str().into();
    let namespace = identity.workload()?.namespace;
    let side = match edge.by_service {
        true => Side::Service,
        false => Side::Caller,
    };
    let from = service(&edge.from)?;
    let to = service_and_port(&edge.to)?;
    let (from_identity, to_identity) = match side {
        Side::Caller => (own, peer(&edge.to_identity)?),
        Side::Service => (peer(&edge.from_identity)?, own),
    };
    // Names of services are those of the namespace that it is of, on its own side of the call.
    let here = match side {
        Side::Caller => &from,
        Side::Service => &to,
    };
    let name = here.rsplit_once(':').map_or(&**here, |(name, _)| name);
    if !name.is_empty() && name.split_once('.').map(|(_, namespace)| namespace) != Some(namespace) {
        return None;
    }
    Some(EdgeKey {
        side,
        from,
        from_identity,
        to,
        to_identity,
        route: text(&edge.route).into(),
    })
}

/// The name of a service, or nothing.
fn service(name: &str) -> Option<Arc<str>> {
    let is_name = name.is_empty() || name.parse::<ServiceName>().is_ok();
    is_name.then(|| name.into())
}

/// `orders.shop:80`, `orders.shop`, or nothing.
fn service_and_port(name: &str) -> Option<Arc<str>> {
    let service_name = match name.rsplit_once(':') {
        Some((service, port)) => {
            port.parse::<u16>().ok()?;
            service
        }
        None => name,
    };
    service(service_name).map(|_| name.into())
}

/// A SPIFFE ID, or nothing.
fn peer(identity: &str) -> Option<Arc<str>> {
    let is_identity = identity.is_empty() || identity.parse::<SpiffeId>().is_ok();
    let fits = identity.len() <= limits::SIGNAL_NAME_LENGTH_MAX;
    (is_identity && fits).then(|| identity.into())
}

/// Text of bounded length, without control characters.
fn text(text: &str) -> String {
    let visible = text.chars().filter(|one| !one.is_control());
    visible.take(limits::SIGNAL_NAME_LENGTH_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> SpiffeId {
        "spiffe://demo.test/ns/shop/sa/frontend".parse().unwrap()
    }

    fn edge() -> proto::EdgeSignals {
        proto::EdgeSignals {
            from: "frontend.shop".to_owned(),
            from_identity: "spiffe://demo.test/ns/bank/sa/vault".to_owned(),
            to: "orders.depot:80".to_owned(),
            to_identity: "spiffe://demo.test/ns/depot/sa/orders".to_owned(),
            route: "HTTPRoute depot/orders 0\u{1b}[2J".to_owned(),
            counts: Some(proto::EdgeCounts {
                requests: 2,
                ..proto::EdgeCounts::default()
            }),
            ..proto::EdgeSignals::default()
        }
    }

    fn told(edges: Vec<proto::EdgeSignals>) -> Told {
        let message = proto::Signals {
            instance: "1".to_owned(),
            edges,
            others: None,
        };
        Told::by(&identity(), message)
    }

    #[test]
    fn a_sidecar_tells_of_its_own_calls_whatever_it_says_that_it_is() {
        let told = told(vec![edge()]);
        let (seen, counts) = &told.edges[0];
        assert_eq!(&*seen.from_identity, identity().as_str());
        assert_eq!((&*seen.to, counts.requests), ("orders.depot:80", 2));
        assert_eq!(&*seen.route, "HTTPRoute depot/orders 0[2J");
        assert_eq!(told.sides.len(), 1);
    }

    #[test]
    fn edges_that_it_cannot_have_seen_are_left_out_and_counted() {
        let of_others = [
            proto::EdgeSignals {
                from: "vault.bank".to_owned(),
                ..edge()
            },
            // What is served in another namespace is served by other sidecars.
            proto::EdgeSignals {
                by_service: true,
                ..edge()
            },
            proto::EdgeSignals {
                to: "orders.depot:http".to_owned(),
                ..edge()
            },
            proto::EdgeSignals {
                to: "<script>".to_owned(),
                ..edge()
            },
            proto::EdgeSignals {
                to_identity: "nobody".to_owned(),
                ..edge()
            },
        ];
        let told = told(of_others.to_vec());
        assert_eq!(
            (told.edges.len(), told.sides.len(), told.refused),
            (0, 0, 5)
        );
    }

    #[test]
    fn a_message_has_no_more_edges_than_one_may_have() {
        let told = told(vec![edge(); limits::SIGNAL_EDGES_EACH + 7]);
        assert_eq!(
            (told.edges.len(), told.refused),
            (limits::SIGNAL_EDGES_EACH, 7)
        );
    }
}
