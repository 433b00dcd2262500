//! Tests of `proxy/src/inbound/served.rs`.

use weft_config::table::Priority;

use super::*;
use crate::directory::tests::{name, table};
use crate::resilience::overload::classes::Class;

fn served() -> Served {
    let services = [("orders", 80), ("db", 5432)];
    Served::new(
        services
            .map(|(one, port)| Arc::new(ServedService::for_tests(name(one), port)))
            .into(),
        "shop",
    )
}

fn identify(method: &str, uri: &str, named: &[&str]) -> Result<String, Reason> {
    identify_routed(method, uri, named, None)
}

fn identify_routed(
    method: &str,
    uri: &str,
    named: &[&str],
    parent: Option<&str>,
) -> Result<String, Reason> {
    let mut builder = http::Request::builder()
        .method(method)
        .uri(uri)
        .version(http::Version::HTTP_3);
    for one in named {
        builder = builder.header(WEFT_SERVICE, *one);
    }
    if let Some(parent) = parent {
        builder = builder.header(WEFT_ROUTE_PARENT, parent);
    }
    let head = builder.body(()).unwrap().into_parts().0;
    let outcome = served()
        .identify(&head, Some(&table()))
        .map(|service| service.label.to_string());
    outcome.map_err(|failure| failure.reason)
}

#[test]
fn weft_service_decides_alone() {
    assert_eq!(
        identify("GET", "https://x/", &["orders.shop:80"]).as_deref(),
        Ok("orders.shop:80")
    );
    assert_eq!(
        identify("GET", "https://orders.shop/", &["other.shop:80"]),
        Err(Reason::Misdirected)
    );
    assert_eq!(
        identify("GET", "https://x/", &["orders.shop:80", "orders.shop:80"]),
        Err(Reason::BadRequest)
    );
}

#[test]
fn an_authority_that_names_another_service_here_is_misdirected_unless_its_route_led_here() {
    let db = ["db.shop:5432"];
    for host in [
        "orders",
        "orders.shop",
        "ORDERS.shop.",
        "orders:80",
        "orders.shop:9",
    ] {
        let uri = format!("https://{host}/");
        assert_eq!(
            identify("GET", &uri, &db),
            Err(Reason::Misdirected),
            "{host}"
        );
        for (parent, found) in [
            ("orders.shop:80", Ok("db.shop:5432")),
            ("other.shop:80", Err(Reason::Misdirected)),
        ] {
            let outcome = identify_routed("GET", &uri, &db, Some(parent));
            assert_eq!(
                outcome.as_deref(),
                found.as_ref().copied(),
                "{host} {parent}"
            );
        }
    }
    for host in [
        "db",
        "db.shop:1",
        "other.shop",
        "127.0.0.1:5001",
        "example.com",
    ] {
        let uri = format!("https://{host}/");
        assert_eq!(
            identify("GET", &uri, &db).as_deref(),
            Ok("db.shop:5432"),
            "{host}"
        );
    }
}

#[test]
fn the_authority_of_a_peer_is_judged_as_that_of_an_application() {
    for host in ["a,b", "*", "a*", "(a)", "a!b"] {
        let uri = format!("https://{host}/");
        let outcome = identify("GET", &uri, &["orders.shop:80"]);
        assert_eq!(outcome, Err(Reason::BadRequest), "{host}");
    }
}

#[test]
fn a_foreign_client_is_understood_by_authority_or_because_there_is_only_one() {
    assert_eq!(
        identify("GET", "https://orders.shop/", &[]).as_deref(),
        Ok("orders.shop:80")
    );
    assert_eq!(
        identify("GET", "https://orders:80/", &[]).as_deref(),
        Ok("orders.shop:80")
    );
    assert_eq!(
        identify("GET", "https://10.0.0.1:6143/", &[]).as_deref(),
        Ok("orders.shop:80")
    );
}

#[test]
fn a_tunnel_reaches_only_what_is_served() {
    assert_eq!(
        identify("CONNECT", "db.shop:5432", &[]).as_deref(),
        Ok("db.shop:5432")
    );
    for target in [
        "127.0.0.1:22",
        "db.shop:22",
        "other.shop:5432",
        "169.254.169.254:80",
    ] {
        assert_eq!(
            identify("CONNECT", target, &[]),
            Err(Reason::Misdirected),
            "{target}"
        );
    }
}

#[test]
fn a_call_counts_until_it_is_dropped_and_one_too_many_is_refused_and_counted() {
    let service = Arc::new(ServedService::for_tests(name("orders"), 80));
    let limits = Limits::of(&weft_config::table::Concurrency::default(), 1, true);
    let caller = Caller::default();
    let ask = Ask {
        caller: &caller,
        priority: Priority::Normal,
        class: Some(Class::of("GET", "/", false)),
        now: Instant::now(),
    };
    let first = service.start(&limits, &ask);
    let refused = service.start(&limits, &ask);
    let refused = refused.err().unwrap();
    assert_eq!(refused.reason, Reason::Overloaded);
    assert_eq!(service.destination.counts.get(Event::RefusedFixed), 1);
    drop(first);
    assert!(service.start(&limits, &ask).is_ok());
}
