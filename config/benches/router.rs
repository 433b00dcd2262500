//! What it costs to find the rule of a request, by the number of rules: `cargo bench -p weft-config --bench
//! router`. The figures are in docs/benchmarks.md.

#![expect(clippy::print_stdout, reason = "that is what it is for")]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a tool, whose input is its own"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue};
use weft_config::table::{Asked, HttpMatch, PathMatch, RouteRule, Router};

/// Each measurement has so many rounds of so long. The best is told, as other programs only add to it; rounds
/// are short, so that some pass undisturbed.
const ROUND: Duration = Duration::from_millis(1);
const ROUNDS: usize = 400;

fn main() {
    println!("rules  request                   ns  asked in turn, ns  made in");
    for number in [1, 10, 100, 1000] {
        let mut rules: Vec<RouteRule> = (0..number).map(rule).collect();
        // By precedence, as the compiler writes them.
        rules.sort_by_key(|rule| match &rule.matches[0].path {
            Some(PathMatch::Exact(_)) => (0, 0),
            Some(PathMatch::Pattern(_)) => (1, 0),
            Some(PathMatch::Prefix(prefix)) => (2, usize::MAX - prefix.len()),
            None => (3, 0),
        });
        let began = Instant::now();
        let router = Router::new(&rules);
        let made = began.elapsed();
        for (name, request) in requests(number) {
            let asked = request.asked();
            let in_turn = || {
                rules
                    .iter()
                    .position(|rule| rule.matches(black_box(&asked)))
            };
            assert_eq!(router.find(&asked), in_turn(), "{name}");
            let found = measure(|| router.find(black_box(&asked)));
            let in_turn = measure(in_turn);
            println!("{number:5}  {name:20} {found:8.0} {in_turn:18.0}  {made:.1?}");
        }
    }
}

/// Of ten rules five have a prefix, and one each an exact path, a regular expression on the path, a header
/// beside a regular expression on another, a parameter, and a header alone, which are not found by their
/// path.
fn rule(number: usize) -> RouteRule {
    let prefix = |text: String| Some(PathMatch::Prefix(text));
    let mut one = HttpMatch::default();
    match number % 10 {
        0 => one.path = Some(PathMatch::Exact(format!("/shop/exact/{number}"))),
        1 => {
            let pattern = format!("/shop/v{number}/items/[0-9]+(/.*)?").parse();
            one.path = Some(PathMatch::Pattern(pattern.unwrap()));
        }
        2 => {
            one.path = prefix("/shop".into());
            one.headers = vec![("x-tenant".into(), format!("tenant-{number}"))];
            one.header_patterns = vec![("user-agent".into(), "curl/[0-9.]+".parse().unwrap())];
        }
        3 => {
            one.path = prefix("/shop".into());
            one.queries = vec![("version".into(), format!("{number}"))];
        }
        4 => one.headers = vec![("x-canary".into(), format!("{number}"))],
        _ => {
            one.path = prefix(format!("/shop/area-{number}"));
            one.method = number.is_multiple_of(2).then(|| "GET".into());
        }
    }
    RouteRule {
        route: format!("HTTPRoute/shop/r{number}"),
        matches: vec![one],
        ..RouteRule::default()
    }
}

struct Request {
    path: String,
    query: Option<String>,
    headers: HeaderMap,
}

impl Request {
    fn asked(&self) -> Asked<'_> {
        Asked {
            method: "GET",
            path: &self.path,
            query: self.query.as_deref(),
            authority: Some("orders.shop"),
            headers: &self.headers,
        }
    }
}

/// Requests for the last rule of each kind, and for none.
fn requests(number: usize) -> Vec<(&'static str, Request)> {
    let of_kind = |kind: usize| (0..number).rev().find(|one| one % 10 == kind);
    let target = |path: String| Some((path, None, None));
    let all = [
        (
            "exact path",
            of_kind(0).and_then(|n| target(format!("/shop/exact/{n}"))),
        ),
        (
            "prefix",
            of_kind(9).and_then(|n| target(format!("/shop/area-{n}/a/b"))),
        ),
        (
            "pattern",
            of_kind(1).and_then(|n| target(format!("/shop/v{n}/items/42/x"))),
        ),
        (
            "header and pattern",
            of_kind(2).map(|n| {
                (
                    "/shop/x".into(),
                    None,
                    Some(("x-tenant", format!("tenant-{n}"))),
                )
            }),
        ),
        (
            "parameter",
            of_kind(3).map(|n| {
                (
                    "/shop/x".into(),
                    Some(format!("a=b&version={n}&c=%20")),
                    None,
                )
            }),
        ),
        (
            "header",
            of_kind(4).map(|n| ("/other".into(), None, Some(("x-canary", n.to_string())))),
        ),
        ("none", target("/shop/none/of/them".into())),
    ];
    let requests = all.into_iter().filter_map(|(name, request)| {
        let (path, query, field) = request?;
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("user-agent", "curl/8.5.0"),
            ("accept", "*/*"),
            ("accept-encoding", "gzip"),
            ("x-request-id", "0e5f3a4e-91a7-4a52-a1ba-3a2f8f0f6d3b"),
            (
                "traceparent",
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            ),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        if let Some((name, value)) = field {
            headers.insert(HeaderName::from_static(name), value.parse().unwrap());
        }
        Some((
            name,
            Request {
                path,
                query,
                headers,
            },
        ))
    });
    requests.collect()
}

/// Nanoseconds for one.
fn measure<T>(one: impl Fn() -> T) -> f64 {
    let rounds = (0..ROUNDS).map(|_| {
        let (began, mut done) = (Instant::now(), 0_u32);
        while began.elapsed() < ROUND {
            for _ in 0..16 {
                black_box(one());
            }
            done += 16;
        }
        began.elapsed().as_secs_f64() * 1e9 / f64::from(done)
    });
    rounds.fold(f64::MAX, f64::min)
}
