//! Both ends of the whole subscription, in random orders against a naive model: revisions, endpoints,
//! refusals, breaks of the stream, restarts of either side. In any order of events, the sidecar runs the
//! newest revision that it does not refuse, with the present endpoints.

mod checks;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tokio::time::Instant;
use weft_transport::identity::TrustDomain;

use super::super::registry::Inbound;
use super::super::tables::Tables;
use super::*;
use crate::client::state::State;
use crate::compile::{Endpoints, Plan};
use crate::resources::{Set, SourceFile, parse};
use crate::table::{Details, Endpoint, Features, Revision, ServiceName, Table};

const SERVICES: [&str; 2] = ["orders", "extra"];
const WORKLOADS: usize = 3;
/// Messages that are in flight at once.
const IN_FLIGHT: usize = 2;

#[test]
fn in_any_order_the_newest_accepted_revision_runs_with_the_endpoints_that_there_are() {
    for seed in 1..=400 {
        let mut world = World::new(seed);
        for step in 0..240 {
            let event = world.step();
            world.check(&format!("seed {seed}, step {step}: {event}"));
            if step % 40 == 39 {
                world.come_to_rest();
                world.check_at_rest(&format!("seed {seed}, at rest after step {step}"));
            }
        }
    }
}

/// The sidecar's answer to a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Runs,
    /// Its workers cannot run it.
    Refused,
    /// The sidecar cannot read the table.
    Garbled,
}

/// The revision that should run, by the simplest possible rules.
#[derive(Debug, Default)]
struct Naive {
    accepted: Option<Revision>,
    offered: Option<Revision>,
}

impl Naive {
    fn runs(&self) -> Option<&Revision> {
        self.offered.as_ref().or(self.accepted.as_ref())
    }
}

struct World {
    random: u64,
    // The service.
    sets: Vec<Set>,
    plan: Arc<Plan>,
    fates: BTreeMap<(String, u64), Fate>,
    stores: u64,
    alive: BTreeSet<(usize, usize)>,
    view: View,
    sent: Sent,
    // Between both.
    wire: VecDeque<ServiceMessage>,
    answers: Vec<(Revision, Result<(), String>)>,
    asked: BTreeSet<(String, u64)>,
    // The sidecar.
    sidecar: Arc<Sidecar>,
    state: State,
    /// The table that its workers were given and have not answered.
    applying: Option<Arc<Table>>,
    shown: Option<Arc<Table>>,
    disk: Option<Arc<Table>>,
    naive: Naive,
    now: Instant,
}

impl World {
    fn new(seed: u64) -> Self {
        let sets: Vec<Set> = (0..3).map(set).collect();
        let revision = Revision {
            store: "s0".into(),
            number: 1,
        };
        let plan = Arc::new(Plan::new(revision, domain(), &sets[0]));
        let tables = Tables::new(Arc::clone(&plan), Arc::default(), None);
        let sidecar = Sidecar {
            identity: "spiffe://demo.test/ns/shop/sa/front".parse().unwrap(),
            listens_for: BTreeSet::new(),
            serves: BTreeSet::new(),
            features: Features::all(),
        };
        let mut state = State::new(None, BTreeMap::new());
        state.begin_stream();
        Self {
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15),
            sets,
            plan,
            fates: BTreeMap::new(),
            stores: 0,
            alive: BTreeSet::new(),
            view: View {
                tables: Arc::new(tables),
                settling: None,
            },
            sent: Sent::nothing(None),
            wire: VecDeque::new(),
            answers: Vec::new(),
            asked: BTreeSet::new(),
            sidecar: Arc::new(sidecar),
            state,
            applying: None,
            shown: None,
            disk: None,
            naive: Naive::default(),
            now: Instant::now(),
        }
    }

    /// A number below `bound`.
    fn draw(&mut self, bound: usize) -> usize {
        // xorshift64 (Marsaglia): any sequence will do that can be repeated.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random >> 33).unwrap() % bound
    }

    fn step(&mut self) -> &'static str {
        match self.draw(100) {
            0..5 => self.apply(),
            5..15 => self.register(),
            15..25 => self.withdraw(),
            25..28 => self.expire(),
            28..30 => self.restart_service(),
            30..33 => self.end_settling(),
            33..34 => self.restore_store(),
            34..37 => self.break_stream("the stream breaks"),
            37..39 => self.restart_sidecar(),
            39..44 => self.save(),
            44..62 => self.send(),
            62..80 => self.deliver(),
            80..90 => self.give_to_workers(),
            _ => self.workers_answer(),
        }
    }

    fn apply(&mut self) -> &'static str {
        let revision = Revision {
            store: self.plan.revision.store.clone(),
            number: self.plan.revision.number + 1,
        };
        self.advance(revision);
        "a revision is applied"
    }

    fn advance(&mut self, revision: Revision) {
        let fate = match self.draw(6) {
            0 | 1 => Fate::Refused,
            2 => Fate::Garbled,
            _ => Fate::Runs,
        };
        self.fates
            .insert((revision.store.clone(), revision.number), fate);
        let set = self.draw(self.sets.len());
        self.plan = Arc::new(Plan::new(revision, domain(), &self.sets[set]));
        self.publish();
    }

    fn register(&mut self) -> &'static str {
        let one = (self.draw(SERVICES.len()), self.draw(WORKLOADS));
        self.alive.insert(one);
        self.note(one, true);
        self.publish();
        "a workload registers"
    }

    fn withdraw(&mut self) -> &'static str {
        let one = (self.draw(SERVICES.len()), self.draw(WORKLOADS));
        self.alive.remove(&one);
        self.note(one, false);
        self.publish();
        "a workload withdraws"
    }

    fn expire(&mut self) -> &'static str {
        let one = (self.draw(SERVICES.len()), self.draw(WORKLOADS));
        if self.view.settling.is_none() {
            self.alive.remove(&one);
            self.publish();
        }
        "a lease ends"
    }

    /// A workload's own reports while the service settles.
    fn note(&mut self, (service, workload): (usize, usize), healthy: bool) {
        if let Some(settling) = &self.view.settling {
            let mut withdrawn = Withdrawn::clone(settling);
            let (identity, address) = (identity(workload), address(workload));
            let inbound = Inbound::from([((name(service), 80), healthy.into())]);
            if withdrawn.note(&identity, address, &inbound) {
                self.view.settling = Some(Arc::new(withdrawn));
            }
        }
    }

    fn restart_service(&mut self) -> &'static str {
        self.alive.clear();
        let tables = Tables::new(Arc::clone(&self.plan), Arc::default(), None);
        self.view = View {
            tables: Arc::new(tables),
            settling: Some(Arc::default()),
        };
        self.break_stream("the service restarts")
    }

    fn end_settling(&mut self) -> &'static str {
        self.view.settling = None;
        "the service has settled"
    }

    fn restore_store(&mut self) -> &'static str {
        self.stores += 1;
        let store = format!("s{}", self.stores);
        self.advance(Revision { store, number: 1 });
        self.restart_service()
    }

    fn break_stream(&mut self, what: &'static str) -> &'static str {
        self.wire.clear();
        self.answers.clear();
        self.asked.clear();
        self.sent = Sent::nothing(None);
        self.state.begin_stream();
        what
    }

    fn restart_sidecar(&mut self) -> &'static str {
        self.state = State::new(self.disk.clone(), BTreeMap::new());
        let saved = self.disk.as_ref().map(|table| table.revision.clone());
        self.naive = Naive {
            accepted: saved,
            offered: None,
        };
        (self.applying, self.shown) = (None, None);
        self.break_stream("the sidecar restarts")
    }

    fn save(&mut self) -> &'static str {
        self.now += limits::CACHE_RETRY;
        if let Some(table) = self.state.due(self.now) {
            if self.draw(4) == 0 {
                self.state.written(Err("full".into()), self.now);
            } else {
                self.state.written(Ok(()), self.now);
                self.disk = Some(table);
            }
        }
        "the disk is written"
    }

    /// The service sends as much as the sidecar has room for.
    fn send(&mut self) -> &'static str {
        if self.wire.len() < IN_FLIGHT {
            self.send_next();
        }
        "the service sends"
    }

    fn send_next(&mut self) -> bool {
        let registrations = proto::Registrations::default();
        let next = self.sent.next(&self.view, &self.sidecar, &registrations);
        match next.unwrap() {
            Next::Nothing => false,
            Next::Send(mut message, after) => {
                self.sent.went(after);
                if let Some(Kind::Table(table)) = &mut message.kind {
                    let revision: Revision = table.revision.clone().unwrap().into();
                    if self.fate(&revision) == Fate::Garbled {
                        table.json = br#"{"from":"the future"}"#.as_slice().into();
                    }
                }
                self.wire.push_back(message);
                true
            }
            Next::CannotRead(reason) => panic!("{reason}"),
        }
    }

    fn deliver(&mut self) -> &'static str {
        let Some(message) = self.wire.pop_front() else {
            return "nothing is on its way";
        };
        if let Some(Kind::Table(table)) = &message.kind {
            let revision: Revision = table.revision.clone().unwrap().into();
            self.asked.insert(key(&revision));
            if self.fate(&revision) != Fate::Garbled {
                self.naive.offered =
                    (self.naive.accepted.as_ref() != Some(&revision)).then_some(revision);
            }
        }
        self.state.take(message, &domain()).unwrap();
        self.after_change();
        "a message arrives"
    }

    fn give_to_workers(&mut self) -> &'static str {
        if self.applying.is_none() {
            self.applying = self.shown.clone();
        }
        "the workers get a table"
    }

    fn workers_answer(&mut self) -> &'static str {
        let Some(table) = self.applying.take() else {
            return "the workers have nothing to say";
        };
        let revision = table.revision.clone();
        let outcome = match self.fate(&revision) {
            Fate::Runs => Ok(()),
            Fate::Refused => Err("no".to_owned()),
            Fate::Garbled => panic!("{revision} was never understood"),
        };
        let offered = self.naive.offered.take_if(|offered| *offered == revision);
        if let (Some(offered), true) = (offered, outcome.is_ok()) {
            self.naive.accepted = Some(offered);
        }
        self.state.settle(&revision, &outcome);
        self.after_change();
        "the workers answer"
    }

    /// As the shell does after each change.
    fn after_change(&mut self) {
        let newest = self.state.newest().cloned();
        let same = |one: &Arc<Table>, other: &Arc<Table>| Arc::ptr_eq(one, other);
        if let Some(newest) = newest
            && !self
                .shown
                .as_ref()
                .is_some_and(|shown| same(shown, &newest))
        {
            self.shown = Some(newest);
        }
        if let Some((revision, outcome)) = self.state.take_answer() {
            assert!(self.asked.contains(&key(&revision)), "{revision} unasked");
            let runs = self.fate(&revision) == Fate::Runs;
            assert_eq!(outcome.is_ok(), runs, "{revision}: {outcome:?}");
            self.answers.push((revision, outcome));
        }
    }

    fn fate(&self, revision: &Revision) -> Fate {
        let fate = self.fates.get(&key(revision)).copied();
        fate.unwrap_or(Fate::Runs)
    }

    fn publish(&mut self) {
        let mut endpoints = Endpoints::new();
        for (service, workload) in &self.alive {
            let served = endpoints.entry((name(*service), 80)).or_default();
            served.endpoints.push(Endpoint {
                workload: format!("w{workload}"),
                address: address(*workload),
                identity: identity(*workload),
                locality: None,
                details: Details::default(),
            });
        }
        let plan = Arc::clone(&self.plan);
        let tables = Tables::new(plan, Arc::new(endpoints), Some(&self.view.tables));
        self.view.tables = Arc::new(tables);
    }
}

fn key(revision: &Revision) -> (String, u64) {
    (revision.store.clone(), revision.number)
}

fn domain() -> TrustDomain {
    "demo.test".parse().unwrap()
}

fn name(service: usize) -> ServiceName {
    ServiceName::parse_in("shop", SERVICES[service]).unwrap()
}

fn identity(workload: usize) -> weft_transport::identity::SpiffeId {
    format!("spiffe://demo.test/ns/shop/sa/w{workload}")
        .parse()
        .unwrap()
}

fn address(workload: usize) -> std::net::SocketAddr {
    format!("10.0.0.{}:6143", workload + 1).parse().unwrap()
}

/// Resources of which the second and third differ from the first in a policy, and in the services that exist.
fn set(which: usize) -> Set {
    let service = |name: &str, case: &str| {
        format!(
            "apiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{pathCase: {case}, ports: [{{port: 80, protocol: http}}]}}\n---\n"
        )
    };
    let text = match which {
        0 => service("orders", "sensitive") + &service("extra", "sensitive"),
        1 => service("orders", "insensitive") + &service("extra", "sensitive"),
        _ => service("orders", "sensitive"),
    };
    let parsed = parse(&[SourceFile {
        name: "mesh.yaml".into(),
        text,
    }]);
    let mut set = Set::default();
    parsed.resources.into_iter().for_each(|one| set.insert(one));
    set
}
