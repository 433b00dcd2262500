//! The router against the plain meaning of rules, and the cases of Gateway API's suite that are about
//! matching.

use http::{HeaderMap, HeaderName, HeaderValue};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng};

use super::super::Pattern;
use super::*;

/// A request that owns what it says.
#[derive(Debug)]
struct Request {
    method: &'static str,
    path: String,
    query: Option<String>,
    authority: Option<&'static str>,
    headers: HeaderMap,
}

impl Request {
    fn asked(&self) -> Asked<'_> {
        Asked {
            method: self.method,
            path: &self.path,
            query: self.query.as_deref(),
            authority: self.authority,
            headers: &self.headers,
        }
    }
}

fn pattern(text: &str) -> Pattern {
    text.parse().unwrap()
}

/// What any rule finds by asking each.
fn first(rules: &[RouteRule], request: &Request) -> Option<usize> {
    let asked = request.asked();
    rules.iter().position(|rule| rule.matches(&asked))
}

#[test]
fn it_finds_the_rule_that_asking_each_in_turn_finds() {
    for seed in 0..400 {
        let mut random = StdRng::seed_from_u64(seed);
        let number = random.random_range(0..40);
        let rules: Vec<RouteRule> = (0..number).map(|_| rule(&mut random)).collect();
        let router = Router::new(&rules);
        for _ in 0..100 {
            let request = request(&mut random);
            let found = router.find(&request.asked());
            let expected = first(&rules, &request);
            assert_eq!(found, expected, "seed {seed}: {request:?} of {rules:#?}");
        }
    }
}

const SEGMENTS: [&str; 6] = ["a", "b", "ab", "", "*", "a%20b"];
const NAMES: [&str; 4] = ["x-a", "x-b", "host", "cookie"];
const VALUES: [&str; 6] = ["1", "2", "1,2", "a b", "shop:80", ""];
const PATTERNS: [&str; 6] = ["[0-9]+", "1|2", ".*", "/a(/.*)?", "1,2", "a.b"];
const PARAMETERS: [&str; 4] = ["p", "q", "P", "a b"];
const METHODS: [&str; 3] = ["GET", "POST", "OPTIONS"];

fn any<'a>(from: &[&'a str], random: &mut StdRng) -> &'a str {
    from.choose(random).unwrap()
}

fn path(random: &mut StdRng) -> String {
    let segments = (0..random.random_range(0..4)).map(|_| any(&SEGMENTS, random));
    let path: String = segments.map(|segment| format!("/{segment}")).collect();
    match random.random_range(0..8) {
        0 => format!("{path}/"),
        1 => "*".into(),
        _ => path,
    }
}

fn rule(random: &mut StdRng) -> RouteRule {
    let matches = match random.random_range(0..10) {
        0 => 0,
        1 => 2,
        _ => 1,
    };
    RouteRule {
        matches: (0..matches).map(|_| one_match(random)).collect(),
        ..RouteRule::default()
    }
}

fn one_match(random: &mut StdRng) -> HttpMatch {
    let path = match random.random_range(0..5) {
        0 => None,
        1 => Some(PathMatch::Exact(path(random))),
        2 => Some(PathMatch::Pattern(pattern(any(&PATTERNS, random)))),
        _ => Some(PathMatch::Prefix(path(random))),
    };
    let few = |random: &mut StdRng| 0..random.random_range(0_usize..3).saturating_sub(1);
    let values = |names: &[&str], random: &mut StdRng| {
        few(random)
            .map(|_| (any(names, random).into(), any(&VALUES, random).into()))
            .collect()
    };
    let patterns = |names: &[&str], random: &mut StdRng| {
        few(random)
            .map(|_| (any(names, random).into(), pattern(any(&PATTERNS, random))))
            .collect()
    };
    let names = ["x-a", "x-b", "host", "cookie", "no name"];
    HttpMatch {
        path,
        method: random
            .random_bool(0.2)
            .then(|| any(&METHODS, random).into()),
        headers: values(&names, random),
        header_patterns: patterns(&NAMES, random),
        queries: values(&PARAMETERS, random),
        query_patterns: patterns(&PARAMETERS, random),
    }
}

fn request(random: &mut StdRng) -> Request {
    let mut headers = HeaderMap::new();
    for _ in 0..random.random_range(0..4) {
        let name = HeaderName::try_from(any(&NAMES, random)).unwrap();
        let value = match random.random_range(0..20) {
            0 => HeaderValue::from_bytes(b"\xff").unwrap(),
            _ => HeaderValue::from_str(any(&VALUES, random)).unwrap(),
        };
        headers.append(name, value);
    }
    let pairs: Vec<String> = (0..random.random_range(0..4))
        .map(|_| {
            let (name, value) = (any(&PARAMETERS, random), any(&VALUES, random));
            format!("{name}={value}").replace(' ', any(&["+", "%20"], random))
        })
        .collect();
    Request {
        method: METHODS.choose(random).unwrap(),
        path: path(random),
        query: random.random_bool(0.7).then(|| pairs.join("&")),
        authority: random.random_bool(0.7).then_some("shop:80"),
        headers,
    }
}

/// `E=/a`, `P=/a`, `R=/a.*`, `M:GET`, `H:name=value`, `Q:name=value`, joined by ` & `; several matches by ` |
/// `.
fn rule_of(text: &str) -> RouteRule {
    let matches = text.split(" | ").map(|text| {
        let mut one = HttpMatch::default();
        for condition in text.split(" & ") {
            let (kind, rest) = condition.split_at(2);
            let pair = || rest.split_once('=').unwrap();
            let named = || (pair().0.to_owned(), pair().1.to_owned());
            match kind {
                "E=" => one.path = Some(PathMatch::Exact(rest.into())),
                "P=" => one.path = Some(PathMatch::Prefix(rest.into())),
                "R=" => one.path = Some(PathMatch::Pattern(pattern(rest))),
                "M:" => one.method = Some(rest.into()),
                "H:" => one.headers.push(named()),
                "Q:" => one.queries.push(named()),
                _ => panic!("{condition}"),
            }
        }
        one
    });
    RouteRule {
        matches: matches.collect(),
        ..RouteRule::default()
    }
}

/// `GET /path?query name:value ...`.
fn request_of(text: &str) -> Request {
    let mut words = text.split(' ');
    let method = match words.next() {
        Some("GET") => "GET",
        Some("POST") => "POST",
        Some("HEAD") => "HEAD",
        other => panic!("{other:?}"),
    };
    let target = words.next().unwrap();
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let mut headers = HeaderMap::new();
    for word in words {
        let (name, value) = word.split_once(':').unwrap();
        let name = HeaderName::try_from(name).unwrap();
        headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    Request {
        method,
        path: path.into(),
        query: query.map(str::to_owned),
        authority: Some("echo"),
        headers,
    }
}

/// Rules are in the order of precedence, as the compiler writes them: this is about what each matches.
#[test]
fn cases_of_gateway_api_find_their_rule() {
    let m3 = ["P=/v2", "H:version=two", "H:version=one", "P=/"];
    let m8 = [
        "P=/path1 & Q:animal=whale",
        "P=/path3 & Q:animal=shark",
        "P=/path4 & H:version=three & Q:animal=kraken",
        "P=/path5",
        "H:version=one & Q:animal=whale",
        "Q:animal=whale",
        "Q:animal=dolphin",
        "Q:animal=hydra",
    ];
    let g2 = [
        "H:version=two & H:color=orange",
        "H:version=one",
        "H:version=two",
        "H:color=blue | H:color=green",
        "H:color=red | H:color=yellow",
    ];
    let g4 = [
        "E=/match/exact/one",
        "E=/match/exact",
        "E=/match",
        "P=/match/prefix/one",
        "P=/match/prefix/",
        "P=/match/",
    ];
    let g5 = ["E=/one", "E=/two"];
    let x47 = ["H:host=echo"];
    let x48 = ["P=/foo/"];
    type Case<'a> = (&'a str, &'a [&'a str], &'a str, Option<usize>);
    let cases: &[Case<'_>] = &[
        ("M3", &m3, "GET /", Some(3)),
        ("M3", &m3, "GET /foo/v2/example", Some(3)),
        ("M3", &m3, "GET / Version:one", Some(2)),
        ("M3", &m3, "GET /v2/", Some(0)),
        ("M3", &m3, "GET / Version:two", Some(1)),
        ("M3", &m3, "GET /v2example", Some(3)),
        ("M8", &m8, "GET /?animal=whale", Some(5)),
        ("M8", &m8, "GET /?animal=whale&other=x", Some(5)),
        ("M8", &m8, "GET /?color=blue", None),
        ("M8", &m8, "GET /?animal=whaledolphin", None),
        ("M8", &m8, "GET /path1?animal=whale", Some(0)),
        ("M8", &m8, "GET /?animal=whale version:one", Some(4)),
        ("M8", &m8, "GET /path3?animal=shark", Some(1)),
        ("M8", &m8, "GET /path4?animal=kraken version:three", Some(2)),
        ("M8", &m8, "GET /?animal=shark", None),
        ("M8", &m8, "GET /path4?animal=kraken", None),
        ("M8", &m8, "GET /path5?animal=hydra", Some(3)),
        ("G1", &["M:POST", "M:GET"], "HEAD /", None),
        ("G1", &["M:POST", "M:GET"], "GET /", Some(1)),
        ("G2", &g2, "GET / Version:two color:orange", Some(0)),
        ("G2", &g2, "GET / color:blue version:two", Some(2)),
        ("G2", &g2, "GET / color:green", Some(3)),
        ("G2", &g2, "GET / color:orange", None),
        ("G2", &g2, "GET / Some-Other:one", None),
        ("G3", &["Q:ANIMAL=Whale"], "GET /?ANIMAL=Whale", Some(0)),
        ("G3", &["Q:ANIMAL=Whale"], "GET /?animal=Whale", None),
        ("G4", &g4, "GET /match/exact/one", Some(0)),
        ("G4", &g4, "GET /match/exact", Some(1)),
        ("G4", &g4, "GET /match", Some(2)),
        ("G4", &g4, "GET /match/prefix/one/any", Some(3)),
        ("G4", &g4, "GET /match/prefix/any", Some(4)),
        ("G4", &g4, "GET /match/any", Some(5)),
        ("G5", &g5, "GET /one/example", None),
        ("G5", &g5, "GET /two/", None),
        ("G5", &g5, "GET /Two", None),
        ("X12", &["Q:a=x"], "GET /?b=a=x", None),
        ("X12", &["Q:a=x"], "GET /?a=X", None),
        ("X47", &x47, "GET /", Some(0)),
        ("X47", &["H:host=ECHO"], "GET /", None),
        ("X48", &x48, "GET /foo", Some(0)),
        ("X48", &x48, "GET /foo/bar", Some(0)),
        ("X48", &x48, "GET /foobar", None),
        ("a pattern", &["R=/v[0-9]+/.*"], "GET /v12/x", Some(0)),
        ("a pattern", &["R=/v[0-9]+/.*"], "GET /x/v12/x", None),
    ];
    for (id, rules, request, expected) in cases {
        let rules: Vec<RouteRule> = rules.iter().map(|text| rule_of(text)).collect();
        let request = request_of(request);
        let found = Router::new(&rules).find(&request.asked());
        assert_eq!(found, *expected, "{id}: {request:?}");
        assert_eq!(first(&rules, &request), *expected, "{id}: {request:?}");
    }
}

#[test]
fn a_router_knows_the_rules_that_it_was_made_of() {
    let rules = [rule_of("E=/a"), rule_of("P=/")];
    let router = Router::new(&rules);
    assert!(router.is_of(&rules) && !router.is_of(&rules[..1]) && !router.is_of(&[]));
    assert_eq!(*router.rules()[1], rules[1]);
}
