//! Sessions of a rule (Gateway API, GEP-1619): which endpoint the token of a request names, and the token
//! that its answer gets. Pure: the snapshot, the request, time and random bytes are arguments.
//!
//! The order: a rule takes the request, then its session names the endpoint, whatever the weight of that
//! backend, and only without one do weights and balancing decide. A session ends with its endpoint: one that
//! is gone, out of rotation or failed the request is followed by another, and by a new token. The token
//! passes to the application like every cookie and header, as no byte of these is the mesh's to change.

use std::sync::Arc;
use std::time::Instant;

use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue};
use rand::{Rng, RngExt as _};
use weft_config::table::{Backend, Carrier, Persistence, SessionToken, TokenFault};

use crate::cluster::pick::takes;
use crate::cluster::{Cluster, Flight, name_of};
use crate::directory::{Led, Rule, Sessions};
use crate::limits;
use crate::resilience::destination::{Counts, Event};
use crate::resilience::standing::Standing;

/// The endpoint that a session names.
pub(crate) struct Seat {
    /// The backend of the rule.
    pub(crate) backend: usize,
    /// Its cluster, or the one that took over for it.
    pub(crate) cluster: Arc<Cluster>,
    /// The place of the endpoint there.
    pub(crate) endpoint: usize,
}

/// What [`seek`] found.
#[derive(Default)]
pub(crate) struct Sought {
    /// The endpoint that the request has to go to.
    pub(crate) seat: Option<Seat>,
    /// Why the request's token leads to none, if it has one.
    pub(crate) setback: Option<Setback>,
}

/// Why the token of a request leads to no endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setback {
    /// It counts as none.
    Ignored(TokenFault),
    /// Its endpoint is not there.
    Gone,
    /// Its endpoint is out of rotation.
    Out,
}

impl Setback {
    /// As what it is counted.
    pub(super) fn event(self) -> Event {
        match self {
            Self::Ignored(TokenFault::Malformed) => Event::TokenMalformed,
            Self::Ignored(TokenFault::Unauthentic) => Event::TokenUnauthentic,
            Self::Ignored(TokenFault::Expired) => Event::TokenExpired,
            Self::Gone => Event::SessionMovedGone,
            Self::Out => Event::SessionMovedOut,
        }
    }
}

/// The session of one request.
#[derive(Clone)]
pub(crate) struct Session {
    sessions: Arc<Sessions>,
    /// The endpoint that it has, if it has one: its place, and what tells it from others.
    held: Option<(usize, Arc<Standing>)>,
    /// Why the token of the request led to none.
    setback: Option<Setback>,
    /// Whether another endpoint of the same backend may get a session.
    may_start: bool,
    /// When the request came, in seconds since 1970.
    now: u64,
    /// Of the service that was addressed.
    counts: Arc<Counts>,
}

impl Session {
    /// Of a request by a rule, with what [`seek`] found.
    pub(crate) fn new(
        rule: &Rule,
        sessions: &Arc<Sessions>,
        sought: &Sought,
        now: u64,
        counts: &Arc<Counts>,
    ) -> Self {
        let seat = sought.seat.as_ref();
        let held = seat.and_then(|seat| {
            let endpoint = seat.cluster.endpoints.get(seat.endpoint)?;
            Some((seat.endpoint, Arc::clone(&endpoint.standing)))
        });
        let backend = seat.and_then(|seat| rule.rule.backends.get(seat.backend));
        Self {
            sessions: Arc::clone(sessions),
            held,
            setback: sought.setback,
            may_start: backend.is_none_or(|backend| backend.weight > 0),
            now,
            counts: Arc::clone(counts),
        }
    }

    /// The endpoint to which the request has to go.
    pub(crate) fn preferred(&self) -> Option<usize> {
        self.held.as_ref().map(|(place, _)| *place)
    }

    /// Why the token of the request led to no endpoint, if it has one.
    pub(super) fn setback(&self) -> Option<Setback> {
        self.setback
    }

    /// Tells the client of a session that began. An answer of the mesh (`is_of_mesh`) begins none, as no
    /// application knows of the request. Returns what became of the session, if that was not known before.
    pub(super) fn conclude(
        &self,
        flight: &Flight,
        is_of_mesh: bool,
        answer: &mut HeaderMap,
        random: &mut impl Rng,
    ) -> Option<Event> {
        let (cluster, endpoint) = flight.place()?;
        let mut became = None;
        if let Some((_, held)) = &self.held {
            if Arc::ptr_eq(held, &endpoint.standing) {
                self.counts.add(Event::SessionKept);
                return Some(Event::SessionKept);
            }
            self.counts.add(Event::SessionMovedFailed);
            became = Some(Event::SessionMovedFailed);
        }
        if is_of_mesh || !self.may_start {
            return became;
        }
        let token = SessionToken {
            started: self.now,
            endpoint: name_of(&cluster.label, endpoint),
        };
        let sealed = self.sessions.tokens.seal(&token, random.random());
        if let Some(text) = sealed
            && write(&self.sessions.persistence, &text, answer)
        {
            self.counts.add(Event::SessionStarted);
            return became.or(Some(Event::SessionStarted));
        }
        became
    }
}

/// The endpoint that the request's token names, if it is there and in rotation. What counts as no token is
/// counted by its reason.
pub(crate) fn seek(
    rule: &Rule,
    sessions: &Sessions,
    headers: &HeaderMap,
    (wall, now): (u64, Instant),
    counts: &Counts,
) -> Sought {
    let setback = |why: Setback| {
        counts.add(why.event());
        Sought {
            seat: None,
            setback: Some(why),
        }
    };
    let mut fault = None;
    let texts = texts(&sessions.persistence.carrier, headers);
    let timeout = sessions.persistence.timeout;
    let mut opened = texts
        .take(limits::SESSION_TOKENS_READ_MAX)
        .filter_map(|text| {
            let opened = sessions.tokens.open(text, timeout, wall);
            opened.map_err(|why| fault = Some(why)).ok()
        });
    let Some(token) = opened.next() else {
        drop(opened);
        let fault = fault.map(Setback::Ignored);
        return fault.map_or_else(Sought::default, setback);
    };
    let backends = rule.rule.backends.iter().zip(&rule.backends).enumerate();
    let mut seats = backends.filter_map(|(place, both)| seat(place, both, &token));
    let Some(seat) = seats.next() else {
        return setback(Setback::Gone);
    };
    if !takes(&seat.cluster, seat.endpoint, now) {
        return setback(Setback::Out);
    }
    Sought {
        seat: Some(seat),
        setback: None,
    }
}

/// The endpoint of a token at a backend, or at the service that takes over for it.
fn seat(place: usize, (backend, led): (&Backend, &Led), token: &SessionToken) -> Option<Seat> {
    let own = led.cluster.as_ref().filter(|_| backend.broken.is_none())?;
    let seat = |cluster: &Arc<Cluster>| {
        let (label, endpoints) = (&cluster.label, &cluster.endpoints);
        let endpoint = cluster.named.find(label, endpoints, token.endpoint)?;
        Some(Seat {
            backend: place,
            cluster: Arc::clone(cluster),
            endpoint,
        })
    };
    seat(own).or_else(|| seat(&own.stand_in()?))
}

/// What may be a token, in the order in which the client sent it.
fn texts<'h>(carrier: &'h Carrier, headers: &'h HeaderMap) -> impl Iterator<Item = &'h [u8]> {
    let (field, cookie) = match carrier {
        Carrier::Cookie { name, .. } => (&COOKIE, Some(name.as_bytes())),
        Carrier::Header(name) => (&name.0, None),
    };
    let lines = headers.get_all(field).into_iter();
    lines.flat_map(move |line| {
        let line = line.as_bytes();
        // RFC 6265 section 4.2.1: pairs with semicolons between. A header has its token alone.
        let parts = line.split(move |byte| cookie.is_some() && *byte == b';');
        parts.filter_map(move |part| {
            let part = part.trim_ascii();
            match cookie {
                None => Some(part),
                Some(name) => part.strip_prefix(name)?.strip_prefix(b"="),
            }
        })
    })
}

/// Tells the client its token. `false` if the rule's words make no header field, which the resources' reader
/// takes none of.
fn write(persistence: &Persistence, token: &str, answer: &mut HeaderMap) -> bool {
    let written = match &persistence.carrier {
        Carrier::Header(_) => token.to_owned(),
        Carrier::Cookie {
            name,
            path,
            permanent,
        } => {
            let age = persistence.timeout.filter(|_| *permanent);
            let age = age.map(|age| format!("; Max-Age={}", age.as_secs()));
            let age = age.unwrap_or_default();
            format!("{name}={token}; Path={path}{age}; Secure; HttpOnly; SameSite=Strict")
        }
    };
    let Ok(value) = HeaderValue::try_from(written) else {
        return false;
    };
    match &persistence.carrier {
        Carrier::Header(name) => drop(answer.insert(name.0.clone(), value)),
        // The application may set cookies, too.
        Carrier::Cookie { .. } => drop(answer.append(SET_COOKIE, value)),
    }
    true
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use http::Request;
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use weft_config::table::{self, FieldName, SessionKey, Table};

    use super::*;
    use crate::cluster::pick::{Criteria, TriedEndpoints, pick};
    use crate::directory::{Directory, Port, tests as fixture};
    use crate::outbound::route::{Route, lead, rule};
    use crate::outside::names::Answers;
    use crate::resilience::destination::Destinations;
    use crate::resilience::standing::Outcome;

    const HOUR: Duration = Duration::from_secs(3600);

    fn cookie() -> Carrier {
        Carrier::Cookie {
            name: "s".into(),
            path: "/".into(),
            permanent: false,
        }
    }

    /// One worker, its table with sessions at `orders.shop:80`, and its clock.
    struct Worker {
        table: Table,
        directory: Directory,
        destinations: Destinations,
        random: StdRng,
        start: Instant,
        wall: u64,
    }

    /// Where a request went, and what the client was told.
    #[derive(Debug, PartialEq)]
    struct Went {
        workload: String,
        told: Option<String>,
        became: Option<Event>,
    }

    impl Worker {
        fn new(carrier: Carrier, timeout: Option<Duration>) -> Self {
            let mut table = fixture::table();
            let orders = table.services.get_mut(&fixture::name("orders")).unwrap();
            let port = Arc::make_mut(orders).ports.get_mut(&80).unwrap();
            let mut other = port.routes[0].clone();
            for (number, rule) in [&mut port.routes[0], &mut other].into_iter().enumerate() {
                let scope = format!("HTTPRoute/shop/split#{number}");
                let key = SessionKey::new([u8::try_from(number).unwrap() + 1; 32]);
                table.session_keys.insert(scope.clone(), vec![key]);
                rule.session = Some(Arc::new(Persistence {
                    scope,
                    carrier: carrier.clone(),
                    timeout,
                }));
            }
            other.matches[0].path = Some(table::PathMatch::Prefix("/other".into()));
            port.routes.push(other);
            let mut worker = Self {
                table,
                directory: Directory::default(),
                destinations: Destinations::default(),
                random: StdRng::seed_from_u64(1),
                start: Instant::now(),
                wall: 1_000_000,
            };
            worker.take();
            worker
        }

        /// Takes the table as it is now.
        fn take(&mut self) {
            self.directory = Directory::new(
                Arc::new(self.table.clone()),
                &self.directory,
                &self.destinations,
                None,
                &Answers::default(),
                self.start,
            );
        }

        /// As another process that begins with this table.
        fn restart(&mut self) {
            self.directory = Directory::default();
            self.destinations = Destinations::default();
            self.take();
        }

        fn endpoints(&mut self, service: &str) -> &mut Vec<table::Endpoint> {
            let service = self
                .table
                .services
                .get_mut(&fixture::name(service))
                .unwrap();
            let port = Arc::make_mut(service).ports.get_mut(&80).unwrap();
            &mut port.endpoints
        }

        fn weights(&mut self, weights: [u32; 2]) {
            let orders = self
                .table
                .services
                .get_mut(&fixture::name("orders"))
                .unwrap();
            let port = Arc::make_mut(orders).ports.get_mut(&80).unwrap();
            for rule in &mut port.routes {
                for (backend, weight) in rule.backends.iter_mut().zip(weights) {
                    backend.weight = weight;
                }
            }
            self.take();
        }

        fn port(&self) -> &Port {
            self.directory
                .service("orders.shop")
                .unwrap()
                .port(80)
                .unwrap()
        }

        fn now(&self) -> Instant {
            self.start + Duration::from_secs(self.wall - 1_000_000)
        }

        fn count(&self, event: Event) -> u64 {
            self.port().cluster.destination.counts.get(event)
        }

        /// Routes a request, picks its endpoint as often as attempts fail, and answers it.
        fn ask(&mut self, path: &str, fields: &[(&str, &str)], failing: usize) -> Went {
            let mut head = Request::get(path);
            for (name, value) in fields {
                head = head.header(*name, *value);
            }
            let head = head.body(()).unwrap().into_parts().0;
            let mut random = StdRng::seed_from_u64(self.random.random());
            let (now, wall) = (self.now(), self.wall);
            let port = self.port();
            let counts = &port.cluster.destination.counts;
            let rule = rule(port, &head, None).unwrap().unwrap();
            let sessions = rule.sessions.as_ref().unwrap();
            let sought = seek(rule, sessions, &head.headers, (wall, now), counts);
            let session = Session::new(rule, sessions, &sought, wall, counts);
            let seat = sought.seat.as_ref();
            let route: Route = lead(port, Some(rule), seat, now, &mut random).unwrap();
            let mut criteria = Criteria {
                tried: TriedEndpoints::default(),
                key: None,
                preferred: session.preferred(),
                repeatable: true,
            };
            let mut answer = HeaderMap::new();
            let mut workload = String::new();
            let mut became = None;
            for attempt in 0..=failing {
                let index = pick(&route.cluster, &criteria, now, &mut random).unwrap();
                criteria.tried.add(index);
                let flight = route.cluster.start(index, now).unwrap();
                if attempt == failing {
                    workload = route.cluster.endpoints[index].workload.to_string();
                    became = session.conclude(&flight, false, &mut answer, &mut random);
                }
            }
            let told = answer.values().next();
            Went {
                workload,
                told: told.map(|value| value.to_str().unwrap().to_owned()),
                became,
            }
        }

        /// The token that a first request gets, and where it went.
        fn begin(&mut self) -> (String, String) {
            let went = self.ask("/v", &[], 0);
            assert_eq!(went.became, Some(Event::SessionStarted));
            let told = went.told.unwrap();
            let pair = told.split(';').next().unwrap().to_owned();
            (pair, went.workload)
        }
    }

    #[test]
    fn requests_of_a_session_go_to_one_endpoint_and_the_others_by_weight() {
        let mut worker = Worker::new(cookie(), None);
        worker.weights([70, 30]);
        let mut first = 0;
        for _ in 0..1000 {
            first += usize::from(worker.ask("/v", &[], 0).workload == "w1");
        }
        assert!((650..750).contains(&first), "{first}");
        for _ in 0..20 {
            let (pair, workload) = worker.begin();
            for _ in 0..20 {
                let went = worker.ask("/v", &[("cookie", &pair)], 0);
                let kept = Went {
                    workload: workload.clone(),
                    told: None,
                    became: Some(Event::SessionKept),
                };
                assert_eq!(went, kept);
            }
        }
        assert_eq!(worker.count(Event::SessionStarted), 1020);
        assert_eq!(worker.count(Event::SessionKept), 400);
    }

    #[test]
    fn a_session_holds_at_weight_0_and_over_restarts_and_moves_of_either_side() {
        let mut worker = Worker::new(cookie(), None);
        worker.weights([0, 1]);
        let (pair, workload) = worker.begin();
        worker.weights([1, 0]);
        let goes = |worker: &mut Worker| worker.ask("/v", &[("cookie", &pair)], 0);
        assert_eq!(goes(&mut worker).workload, workload);
        worker.restart();
        assert_eq!(goes(&mut worker).workload, workload);
        let place = {
            let endpoints = worker.endpoints("orders-v2");
            let place = endpoints.iter().position(|one| one.workload == workload);
            let place = place.unwrap();
            endpoints[place].address = "10.1.1.1:6143".parse().unwrap();
            place
        };
        worker.take();
        assert_eq!(goes(&mut worker).workload, workload, "it moved");
        let (again, _) = (goes(&mut worker), ());
        assert_eq!(again.told, None);
        // What a token of the new address names is the process that runs there.
        worker.endpoints("orders-v2")[place].address =
            ([10, 0, 0, 2 + u8::try_from(place).unwrap()], 6143).into();
        worker.endpoints("orders-v2")[place].workload = "restarted".into();
        worker.take();
        assert_eq!(goes(&mut worker).workload, "restarted");
    }

    #[test]
    fn an_endpoint_that_is_gone_out_or_failing_is_followed_by_another_and_a_new_token() {
        let mut worker = Worker::new(cookie(), None);
        worker.weights([0, 1]);
        let (pair, workload) = worker.begin();
        let other = if workload == "w2" { "w3" } else { "w2" };
        // It fails the request.
        let went = worker.ask("/v", &[("cookie", &pair)], 1);
        assert_eq!(went.workload, other);
        assert!(went.told.is_some());
        assert_eq!(went.became, Some(Event::SessionMovedFailed));
        assert_eq!(worker.count(Event::SessionMovedFailed), 1);
        // It is out of rotation.
        let port = worker.port();
        let cluster = port.rules[0].backends[1].cluster.clone().unwrap();
        let index = cluster
            .endpoints
            .iter()
            .position(|one| *one.workload == workload);
        for _ in 0..5 {
            let mut flight = cluster.start(index.unwrap(), worker.now()).unwrap();
            flight.tell(Outcome::Badly, worker.now());
        }
        let went = worker.ask("/v", &[("cookie", &pair)], 0);
        assert_eq!((went.workload.as_str(), went.told.is_some()), (other, true));
        assert_eq!(worker.count(Event::SessionMovedOut), 1);
        // It is gone.
        worker
            .endpoints("orders-v2")
            .retain(|one| one.workload != workload);
        worker.take();
        let went = worker.ask("/v", &[("cookie", &pair)], 0);
        assert_eq!((went.workload.as_str(), went.told.is_some()), (other, true));
        assert_eq!(worker.count(Event::SessionMovedGone), 1);
    }

    #[test]
    fn at_a_backend_of_weight_0_no_session_begins() {
        let mut worker = Worker::new(cookie(), None);
        worker.weights([0, 1]);
        let (pair, workload) = worker.begin();
        worker.weights([1, 0]);
        let went = worker.ask("/v", &[("cookie", &pair)], 1);
        assert_ne!(went.workload, workload);
        assert_eq!(went.told, None);
    }

    #[test]
    fn what_is_no_token_of_the_rule_counts_as_none_and_is_counted_by_its_reason() {
        let mut worker = Worker::new(cookie(), Some(HOUR));
        worker.weights([1, 0]);
        let (pair, _) = worker.begin();
        let mut forged = pair.clone();
        let last = forged.pop().unwrap();
        forged.push(if last == 'A' { 'E' } else { 'A' });
        let long = format!("s={}", "A".repeat(60_000));
        let rows = [
            ("/v", "s=x".to_owned(), Event::TokenMalformed),
            ("/v", "s=".to_owned(), Event::TokenMalformed),
            ("/v", long, Event::TokenMalformed),
            ("/v", forged, Event::TokenUnauthentic),
            // X53: a rule's token is none of another rule.
            ("/other", pair.clone(), Event::TokenUnauthentic),
        ];
        for (path, pair, event) in rows {
            let before = worker.count(event);
            let went = worker.ask(path, &[("cookie", &pair)], 0);
            assert!(went.told.is_some(), "{path} {event:?}");
            assert_eq!(worker.count(event), before + 1, "{path} {event:?}");
        }
        worker.wall += 3599;
        assert_eq!(worker.ask("/v", &[("cookie", &pair)], 0).told, None);
        worker.wall += 1;
        assert!(worker.ask("/v", &[("cookie", &pair)], 0).told.is_some());
        assert_eq!(worker.count(Event::TokenExpired), 1);
    }

    #[test]
    fn a_cookie_is_found_among_others_byte_for_byte() {
        let mut worker = Worker::new(cookie(), None);
        worker.weights([0, 1]);
        let (pair, workload) = worker.begin();
        let kept = |worker: &mut Worker, lines: &[&str]| {
            let fields: Vec<_> = lines.iter().map(|line| ("cookie", *line)).collect();
            let went = worker.ask("/v", &fields, 0);
            went.told.is_none() && went.workload == workload
        };
        for line in [
            format!("a=1; {pair}; b=2"),
            format!("a=1;{pair}"),
            format!("  {pair}  ;x"),
            // Of several, the one that is a token counts.
            format!("s=stale; {pair}"),
            format!("{pair}; s=other"),
        ] {
            assert!(kept(&mut worker, &[&line]), "{line}");
        }
        assert!(kept(&mut worker, &["a=1", &pair]));
        for line in [
            format!("x{pair}"),
            pair.replacen("s=", "S=", 1),
            pair.replacen("s=", "s =", 1),
            pair.replacen("s=", "s=\"", 1) + "\"",
        ] {
            assert!(!kept(&mut worker, &[&line]), "{line}");
        }
        let many = "s=x; ".repeat(limits::SESSION_TOKENS_READ_MAX);
        assert!(!kept(&mut worker, &[&format!("{many}{pair}")]));
    }

    #[test]
    fn a_header_carries_the_token_where_the_rule_says_so() {
        let name = FieldName::try_from("x-session".to_owned()).unwrap();
        let mut worker = Worker::new(Carrier::Header(name), None);
        worker.weights([0, 1]);
        let went = worker.ask("/v", &[], 0);
        let token = went.told.unwrap();
        assert_eq!(token.len(), table::TOKEN_LENGTH);
        for _ in 0..20 {
            let again = worker.ask("/v", &[("x-session", &token)], 0);
            assert_eq!((again.workload == went.workload, again.told), (true, None));
        }
    }

    #[test]
    fn a_cookie_says_what_the_api_asks_for() {
        let told = |permanent, timeout| {
            let carrier = Carrier::Cookie {
                name: "s".into(),
                path: "/shop".into(),
                permanent,
            };
            let told = Worker::new(carrier, timeout)
                .ask("/v", &[], 0)
                .told
                .unwrap();
            told.split_once("; ").unwrap().1.to_owned()
        };
        let plain = "Path=/shop; Secure; HttpOnly; SameSite=Strict";
        assert_eq!(told(false, None), plain);
        assert_eq!(told(false, Some(HOUR)), plain);
        assert_eq!(
            told(true, Some(HOUR)),
            "Path=/shop; Max-Age=3600; Secure; HttpOnly; SameSite=Strict"
        );
    }

    #[test]
    fn what_the_application_set_stays_and_the_mesh_begins_no_session_by_itself() {
        let mut worker = Worker::new(cookie(), None);
        let mut random = StdRng::seed_from_u64(2);
        let port = worker.port();
        let rule = &port.rules[0];
        let sessions = rule.sessions.as_ref().unwrap();
        let counts = &port.cluster.destination.counts;
        let session = Session::new(rule, sessions, &Sought::default(), 5, counts);
        let cluster = rule.backends[0].cluster.clone().unwrap();
        let flight = cluster.start(0, worker.now()).unwrap();
        let mut answer = HeaderMap::new();
        answer.insert(SET_COOKIE, HeaderValue::from_static("s=of the application"));
        session.conclude(&flight, true, &mut answer, &mut random);
        assert_eq!(answer.get_all(SET_COOKIE).iter().count(), 1);
        session.conclude(&flight, false, &mut answer, &mut random);
        let lines: Vec<_> = answer.get_all(SET_COOKIE).iter().collect();
        assert_eq!(lines[0], "s=of the application");
        assert_eq!(lines.len(), 2);
        worker.take();
    }

    /// Random orders of requests, restarts, and changes of endpoints, weights and time, against a client that
    /// remembers what it may expect.
    #[test]
    fn in_any_order_a_session_is_kept_exactly_as_long_as_its_endpoint_is_there() {
        for seed in 0..40 {
            let mut dice = StdRng::seed_from_u64(seed);
            let mut worker = Worker::new(cookie(), Some(HOUR));
            // By client: its cookie, the workload, and when it began.
            let mut clients: BTreeMap<u32, (String, String, u64)> = BTreeMap::new();
            let mut made = 10_u8;
            for step in 0..200 {
                match dice.random_range(0..10) {
                    0 => worker.restart(),
                    1 => worker.wall += dice.random_range(0..2000),
                    2 => {
                        let weights = [dice.random_range(0..3), dice.random_range(1..3)];
                        worker.weights(weights);
                    }
                    3 => {
                        let endpoints = worker.endpoints("orders-v2");
                        if endpoints.len() > 1 {
                            let at = dice.random_range(0..endpoints.len());
                            endpoints.remove(at);
                        }
                        worker.take();
                    }
                    4 if made < 200 => {
                        made += 1;
                        let endpoints = worker.endpoints("orders-v2");
                        let mut fresh = endpoints[0].clone();
                        fresh.workload = format!("w{made}");
                        fresh.address = ([10, 0, 1, made], 6143).into();
                        endpoints.push(fresh);
                        worker.take();
                    }
                    5 if made < 200 => {
                        made += 1;
                        let endpoints = worker.endpoints("orders-v2");
                        let at = dice.random_range(0..endpoints.len());
                        endpoints[at].address = ([10, 0, 2, made], 6143).into();
                        worker.take();
                    }
                    _ => {
                        let client = dice.random_range(0..5);
                        let known = clients.get(&client).cloned();
                        let pair = known.as_ref().map(|(pair, ..)| pair.clone());
                        let fields: Vec<_> =
                            pair.iter().map(|pair| ("cookie", pair.as_str())).collect();
                        let went = worker.ask("/v", &fields, 0);
                        let is_there = |workload: &String, worker: &mut Worker| {
                            let of_v1 = worker.endpoints("orders-v1").iter();
                            let in_v1 = of_v1.clone().any(|one| one.workload == *workload);
                            in_v1
                                || worker
                                    .endpoints("orders-v2")
                                    .iter()
                                    .any(|one| one.workload == *workload)
                        };
                        let wall = worker.wall;
                        let expected = known.filter(|(_, workload, started)| {
                            wall - started < 3600 && is_there(workload, &mut worker)
                        });
                        match (expected, went.told) {
                            (Some((_, workload, _)), None) => {
                                assert_eq!(went.workload, workload, "seed {seed} step {step}");
                            }
                            (None, Some(told)) => {
                                let pair = told.split(';').next().unwrap().to_owned();
                                clients.insert(client, (pair, went.workload, wall));
                            }
                            (expected, told) => {
                                panic!("seed {seed} step {step}: {expected:?} {told:?}")
                            }
                        }
                    }
                }
            }
        }
    }
}
