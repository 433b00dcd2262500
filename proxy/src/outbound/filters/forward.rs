//! Writes the head for the next hop: removes fields meant for this hop, adds fields that the peer's sidecar
//! needs. Pure.

use http::Version;
use http::header::{HOST, HeaderValue, VIA};
use http::request::Parts;
use weft_config::table::Priority;

use super::super::exchange::Exchange;
use super::super::route::Route;
use crate::failure::Failure;
use crate::http::fields::{self, HIGH, LOW, WEFT_PRIORITY, WEFT_ROUTE_PARENT, WEFT_SERVICE};
use crate::worker::Worker;

pub(super) fn apply(exchange: &mut Exchange) -> Result<(), Failure> {
    apply_to(&exchange.worker, &mut exchange.head, &exchange.route)
}

/// The same for a head that goes elsewhere.
pub(super) fn apply_to(worker: &Worker, head: &mut Parts, route: &Route) -> Result<(), Failure> {
    let via = match head.version {
        Version::HTTP_2 => &worker.via_http2,
        _ => &worker.via_http1,
    };
    write(head, route, via)
}

fn write(head: &mut Parts, route: &Route, via: &HeaderValue) -> Result<(), Failure> {
    let headers = &mut head.headers;
    fields::strip_request(headers)?;
    headers.remove(HOST);
    headers.append(VIA, via.clone());
    headers.insert(WEFT_SERVICE, route.cluster.wire.clone());
    if let Some(parent) = &route.parent {
        headers.insert(WEFT_ROUTE_PARENT, parent.wire.clone());
    }
    match route.traffic.priority {
        Priority::Normal => {}
        Priority::High => drop(headers.insert(WEFT_PRIORITY, HIGH)),
        Priority::Low => drop(headers.insert(WEFT_PRIORITY, LOW)),
    }
    head.version = Version::HTTP_3;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::super::prepare::{aim, authority_to_send};
    use super::*;
    use crate::directory::tests::directory;
    use crate::http::authority::canonical;

    #[test]
    fn the_head_says_the_service_and_keeps_the_authority() {
        let directory = directory();
        let cluster =
            |name| Arc::clone(&directory.service(name).unwrap().port(80).unwrap().cluster);
        let route = Route {
            cluster: cluster("orders-v1.shop"),
            parent: Some(cluster("orders.shop")),
            name: None,
            traffic: Arc::default(),
            session: None,
            chain: None,
        };
        let mut request = http::Request::builder().uri("/v1?q=1");
        for (name, value) in [
            ("host", "Orders.shop:5001"),
            ("weft-client-id", "me"),
            ("via", "1.1 x"),
        ] {
            request = request.header(name, value);
        }
        let mut head = request.body(()).unwrap().into_parts().0;
        let authority = canonical(&head).unwrap();
        let authority = authority_to_send(authority.as_ref(), &route).unwrap();
        let via = HeaderValue::from_static("1.1 weft-1");
        aim(&mut head, authority).unwrap();
        write(&mut head, &route, &via).unwrap();
        assert_eq!(head.uri, "https://Orders.shop:5001/v1?q=1");
        assert_eq!(head.headers[WEFT_SERVICE], "orders-v1.shop:80");
        assert_eq!(head.headers[WEFT_ROUTE_PARENT], "orders.shop:80");
        assert_eq!(head.headers.get_all(VIA).iter().count(), 2);
        assert!(!head.headers.contains_key(HOST) && !head.headers.contains_key("weft-client-id"));
    }
}
