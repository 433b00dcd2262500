//! What must hold of the data path under all tables that are understood. Their inputs are those of the same
//! target in `config/fuzz/corpus/tables`.

use std::time::Duration;

use http::request::Parts;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use weft_config::table::{Action, HedgeAfter, RequestTraffic};
use weft_fuzz::Target;

use super::*;
use crate::outbound::route;
use crate::resilience::deadline::Deadline;
use crate::resilience::fault;
use crate::resilience::rate::Rates;
use crate::resilience::retry;
use crate::resilience::standing::Outcome;

/// Requests of which some match what tables say.
fn heads() -> [Parts; 3] {
    [("GET", "/v2/a"), ("POST", "/orders/1"), ("OPTIONS", "*")].map(|(method, uri)| {
        let head = http::Request::builder()
            .method(method)
            .uri(uri)
            .header("x", "1");
        head.body(()).unwrap().into_parts().0
    })
}

/// What the policy of a request asks of the clock and of chance.
fn treat(traffic: &RequestTraffic, now: Instant, random: &mut StdRng) {
    let own = traffic.timeouts.request.map(|timeout| now + timeout);
    let deadline = Deadline::of_request(own, own);
    let clock = deadline.attempt(now, traffic.timeouts.backend_request);
    assert!(clock.end().is_none_or(|end| end >= now));
    for made in [1, 2, 40, u32::MAX] {
        let backoff = &traffic.retry.backoff;
        let pause = retry::pause(backoff, made, random);
        let most = backoff.max.max(backoff.base);
        assert!(pause >= backoff.at_least && pause <= backoff.at_least.saturating_add(most));
    }
    if let Some(delay) = fault::draw(&traffic.fault, random).delay {
        assert!(now + delay >= now);
    }
    if let Some(hedge) = &traffic.hedge
        && let HedgeAfter::Delay(delay) = hedge.after
    {
        assert!(now + delay >= now);
    }
    let rates = Rates::default();
    assert!(
        !rates.take(&traffic.rate_limits).refused,
        "the first of all is refused"
    );
}

/// Requests to an endpoint, of which all fail until it is out and back again.
fn wear_out(cluster: &Arc<Cluster>, now: Instant) {
    let budget = &cluster.destination.budget;
    budget.request(now);
    let _ = budget.spend(now, &cluster.traffic.retry_budget);
    let mut at = now;
    for index in 0..cluster.endpoints.len().min(2) {
        let outcomes = [
            &[Outcome::Well][..],
            &[Outcome::Badly; 6],
            &[Outcome::Well; 2],
        ];
        for outcome in outcomes.concat() {
            let Some(mut flight) = cluster.start(index, at) else {
                continue;
            };
            at += Duration::from_millis(10);
            flight.answered(Some(outcome), at);
            let standing = &cluster.endpoints[index].standing;
            let status = standing.status(at, cluster.traffic.balance.slow_start);
            assert!(!format!("{status:?}").is_empty());
        }
    }
}

/// An input is a table as it comes over the wire.
#[test]
fn a_table_that_is_understood_is_one_that_requests_can_be_sent_by() {
    let heads = heads();
    let property = |input: &[u8]| {
        let Ok(table) = serde_json::from_slice::<Table>(input) else {
            return "not understood".to_owned();
        };
        let table = Arc::new(table);
        let now = Instant::now();
        let destinations = Destinations::default();
        let mut random = StdRng::seed_from_u64(input.len() as u64);
        let none = Directory::default();
        let answers = Answers::default();
        let first = Directory::new(
            Arc::clone(&table),
            &none,
            &destinations,
            None,
            &answers,
            now,
        );
        // The same again: what was learned stays.
        let directory = Directory::new(
            Arc::clone(&table),
            &first,
            &destinations,
            None,
            &answers,
            now,
        );
        let mut led = 0;
        for (name, service) in &table.services {
            for (number, port) in &service.ports {
                let known = directory.service(&name.to_string()).unwrap();
                let known = known.port(*number).unwrap();
                for head in &heads {
                    let rule = route::rule(known, head, None);
                    let led_to =
                        rule.and_then(|rule| route::lead(known, rule, None, now, &mut random));
                    if let Ok(route) = led_to {
                        led += 1;
                        treat(&route.traffic, now, &mut random);
                    }
                }
                let _ = route::rule_of_tunnels(known, None)
                    .and_then(|rule| route::lead(known, rule, None, now, &mut random));
                wear_out(&known.cluster, now);
                treat(&port.traffic.request, now, &mut random);
                for limits in [&port.traffic.rate_limits, &port.traffic.caller_rate_limits] {
                    assert!(!Rates::default().take(limits).refused);
                }
            }
            let caller = "spiffe://demo.test/ns/shop/sa/frontend".parse().unwrap();
            let rules = service.authorization.iter().flat_map(|one| &one.rules);
            let denied = rules.filter(|rule| {
                rule.action == Action::Deny
                    && rule.matches(Some(&caller), Some(("GET", "/orders/1")))
            });
            assert!(denied.count() <= 4096);
        }
        format!("led {}", led.min(2))
    };
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../config");
    let words = &[
        "\"0s\"",
        "\"1h\"",
        "\"24h\"",
        "\"1000000000000h\"",
        "4294967295",
        "0",
        "1",
        "100",
        "\"per\":",
        "\"burst\":",
        "\"interval\":",
        "\"Enforce\"",
        "\"tcp\"",
        "\"grpc\"",
        "[]",
        "{}",
    ];
    let seen = Target::new(folder, "tables")
        .words(words)
        .longest(8000)
        .rounds(3000)
        .run(property);
    seen.expect("led 2").expect("not understood");
}
