//! What a route is attached to: ports, several parents, producers and consumers.

use super::fixture::{Fixture, From, route_for};
use super::report::judging;

const SET: &str = "filters: [ { type: ResponseHeaderModifier, responseHeaderModifier: { set: [ { name: X-Set, value: VALUE } ] } } ]";

fn setting(value: &str, backend: &str) -> String {
    let set = SET.replace("VALUE", value);
    format!("- {{ {set}, backendRefs: [ {{ name: {backend}, namespace: shop, port: 80 }} ] }}\n")
}

fn parent(name: &str, more: &str) -> String {
    format!("{{ group: \"\", kind: Service, name: {name}, namespace: shop{more} }}")
}

#[track_caller]
fn expect(
    fixture: &Fixture,
    case: &str,
    from: From,
    called: &str,
    request: &str,
    wanted: (&str, Option<&str>),
) {
    let answer = fixture.ask_of(from, called, request);
    let found = (answer.outcome(), answer.header("X-Set"));
    let found = (found.0.as_str(), found.1.as_deref());
    assert_eq!(found, wanted, "{case}: {called} {request}: {answer:?}");
}

#[test]
fn m18_m19_m20_g8_g19_g20_g21_x36_x37_x38_x39_a_route_acts_on_the_service_and_ports_that_it_names()
{
    let _judging = judging();
    let fixture = Fixture::start();
    let at = |case: &str, called: &str, request: &str, wanted| {
        expect(&fixture, case, From::Shop, called, request, wanted);
    };
    // M18, M19: a listener is of its Service, whatever the Host says.
    fixture.apply(&route_for(
        "m18",
        "shop",
        &parent("v2", ""),
        &setting("set", "v2"),
    ));
    at("M18", "v2:80", "GET /", ("v2", Some("set")));
    at("M19", "v2:80", "GET / {Host: v1}", ("v2", Some("set")));
    at("M19", "v1:80", "GET / {Host: v2}", ("v1", None));
    // M20, X36.
    let routes = route_for(
        "a",
        "shop",
        &parent("v1", ", port: 80"),
        &setting("v1", "v1"),
    ) + &route_for("b", "shop", &parent("v2", ""), &setting("v2", "v2"));
    fixture.apply(&routes);
    at("M20", "v1:80", "GET /", ("v1", Some("v1")));
    at("M20", "v1:8080", "GET /", ("v1", None));
    at("M20", "v2:80", "GET /", ("v2", Some("v2")));
    at("M20", "v2:8080", "GET /", ("v2", Some("v2")));
    // G8: by port, by name, and by both.
    let routes = route_for(
        "a",
        "shop",
        &parent("echo", ", port: 80"),
        &setting("a", "v1"),
    ) + &route_for(
        "b",
        "shop",
        &parent("echo", ", sectionName: http-alt"),
        &setting("b", "v2"),
    ) + &route_for(
        "c",
        "shop",
        &parent("echo", ", sectionName: other, port: 8090"),
        &setting("c", "v3"),
    );
    fixture.apply(&routes);
    at("G8", "echo:80", "GET /", ("v1", Some("a")));
    at("G8", "echo:8080", "GET /", ("v2", Some("b")));
    at("G8", "echo:8090", "GET /", ("v3", Some("c")));
    // G19 to G21, X39: no port fits. Other parents are unharmed.
    for no_port in [
        ", port: 80, sectionName: http1",
        ", port: 81",
        ", port: 81, sectionName: http",
    ] {
        let parents = format!("{}, {}", parent("v1", no_port), parent("v2", ""));
        fixture.apply(&route_for("r", "shop", &parents, &setting("set", "v3")));
        let found = fixture.conditions("httproute", "r", "shop");
        assert_eq!(
            found["Accepted"], "False NoMatchingParent",
            "{no_port}: {found:?}"
        );
        assert_eq!(
            found["ResolvedRefs"], "True ResolvedRefs",
            "{no_port}: {found:?}"
        );
        at("G20", "v1:80", "GET /", ("v1", None));
        at("X39", "v2:80", "GET /", ("v3", Some("set")));
    }
    // X37, X38: the routes of a backend are not applied.
    let routes = route_for("p", "shop", &parent("v1", ""), &setting("p", "v2"))
        + &route_for("q", "shop", &parent("v2", ""), &setting("q", "v3"));
    fixture.apply(&routes);
    at("X38", "v1:80", "GET /", ("v2", Some("p")));
    at("X38", "v2:80", "GET /", ("v3", Some("q")));
}

#[test]
fn m21_g18_x42_x43_a_consumer_route_holds_for_the_clients_of_its_namespace_alone() {
    let _judging = judging();
    let fixture = Fixture::start();
    // M21, without a ReferenceGrant anywhere.
    fixture.apply(&route_for(
        "m21",
        "cons",
        &parent("v1", ""),
        &setting("set", "v1"),
    ));
    expect(
        &fixture,
        "M21",
        From::Cons,
        "v1:80",
        "GET / {Host: v1.shop}",
        ("v1", Some("set")),
    );
    expect(
        &fixture,
        "M21",
        From::Shop,
        "v1:80",
        "GET / {Host: v1.shop}",
        ("v1", None),
    );
    // X42: producer and consumer routes are never merged.
    let of_consumer = setting("cons", "v2").replace(
        "- {",
        "- { matches: [ { path: { type: PathPrefix, value: /x } } ],",
    );
    let routes = route_for(
        "producer",
        "shop",
        &parent("echo", ""),
        &setting("shop", "v1"),
    ) + &route_for("consumer", "cons", &parent("echo", ""), &of_consumer);
    fixture.apply(&routes);
    expect(
        &fixture,
        "X42",
        From::Cons,
        "echo:80",
        "GET /x",
        ("v2", Some("cons")),
    );
    expect(
        &fixture,
        "X42",
        From::Cons,
        "echo:80",
        "GET /y",
        ("404", None),
    );
    expect(
        &fixture,
        "X42",
        From::Shop,
        "echo:80",
        "GET /x",
        ("v1", Some("shop")),
    );
    // X43: those of one namespace are.
    let other = setting("more", "v3").replace(
        "- {",
        "- { matches: [ { path: { type: PathPrefix, value: /y } } ],",
    );
    fixture.apply(&(routes + &route_for("more", "cons", &parent("echo", ""), &other)));
    expect(
        &fixture,
        "X43",
        From::Cons,
        "echo:80",
        "GET /x",
        ("v2", Some("cons")),
    );
    expect(
        &fixture,
        "X43",
        From::Cons,
        "echo:80",
        "GET /y",
        ("v3", Some("more")),
    );
}
