//! The adaptive limit in front of simulated applications and callers, for hours of simulated time: what it
//! must never refuse, and what it must keep answered under overload.

mod simulated;

use weft_config::table::Mode;

use super::Change;
use simulated::{App, Flow, Order, Simulated, Simulation, exponential, of, simulate};

/// Times of service between 10 and 30 ms: an application of five workers does 250 a second.
fn service_time(_: f64, random: f64) -> f64 {
    0.02 * (0.5 + random)
}

const CAPACITY: f64 = 250.0;

fn oldest() -> App {
    App::pool(5)
}

const HOUR: u64 = 3600;

fn seconds_of(simulated: &Simulated, from: usize, to: usize) -> f64 {
    f64::from(simulated.sum(from, to).good) / (to - from) as f64
}

#[test]
fn at_twice_five_and_ten_times_the_capacity_the_application_answers_what_it_can() {
    let rates: [fn(f64) -> f64; 3] = [
        |now| {
            if now < 10.0 {
                0.8 * CAPACITY
            } else {
                2.0 * CAPACITY
            }
        },
        |now| {
            if now < 10.0 {
                0.8 * CAPACITY
            } else {
                5.0 * CAPACITY
            }
        },
        |now| {
            if now < 10.0 {
                0.8 * CAPACITY
            } else {
                10.0 * CAPACITY
            }
        },
    ];
    let apps = [
        oldest(),
        App {
            notices: true,
            ..oldest()
        },
        App {
            order: Order::Newest,
            ..oldest()
        },
        App {
            order: Order::Random,
            notices: true,
            ..oldest()
        },
    ];
    for app in apps {
        for rate in rates {
            for patience in [0.3, 1.0, 15.0] {
                let mut flow = Flow::new(rate, service_time);
                flow.patience = patience;
                let simulated = simulate(app, &[flow], 7, 60);
                let goodput = seconds_of(&simulated, 20, 55);
                assert!(goodput >= 0.95 * CAPACITY, "{app:?} {patience} {goodput}");
            }
        }
    }
}

/// A request whose caller gave up may still be served, at a random time: such an application works through
/// its backlog. How long that takes depends on the backlog.
#[test]
fn an_application_that_serves_at_random_what_is_given_up_on_recovers() {
    let app = App {
        order: Order::Random,
        ..oldest()
    };
    for rate in [
        (|now| if now < 10.0 { 100.0 } else { 2.0 * CAPACITY }) as fn(f64) -> f64,
        |now| if now < 10.0 { 100.0 } else { 10.0 * CAPACITY },
    ] {
        let simulated = simulate(app, &[Flow::new(rate, service_time)], 7, 90);
        let goodput = seconds_of(&simulated, 50, 85);
        assert!(goodput >= 0.95 * CAPACITY, "{goodput}");
    }
}

#[test]
fn without_deadlines_the_queue_stays_short_as_well() {
    let rate = |now| if now < 10.0 { 100.0 } else { 2.0 * CAPACITY };
    let mut flow = Flow::new(rate, service_time);
    // A request that waits for longer than this is lost.
    flow.patience = 0.15;
    let mut patient = Flow::new(|_| 1.0, service_time);
    patient.patience = 1e6;
    let simulated = simulate(oldest(), &[flow, patient], 3, 60);
    assert!(seconds_of(&simulated, 20, 55) >= 0.9 * CAPACITY);
    assert_eq!(of(&simulated.flows[1], 20, 55).lost, 0);
}

#[test]
fn after_the_overload_nothing_is_refused() {
    let rate = |now| match now {
        10.0..30.0 => 5.0 * CAPACITY,
        _ => 0.8 * CAPACITY,
    };
    let simulated = simulate(oldest(), &[Flow::new(rate, service_time)], 5, 600);
    assert!(simulated.sum(10, 30).refused > 0);
    assert_eq!(simulated.sum(45, 600).refused, 0);
    assert!(matches!(
        simulated.changes[..],
        [(_, Change::Acts(_)), (_, Change::Over)]
    ));
}

#[test]
fn a_light_caller_is_hardly_refused_for_the_load_of_a_heavy_one() {
    let rate = |now| if now < 10.0 { 100.0 } else { 10.0 * CAPACITY };
    let heavy = Flow::new(rate, service_time);
    let mut light = Flow::new(|_| 20.0, service_time);
    light.caller = 1;
    let simulated = simulate(oldest(), &[heavy, light], 5, 120);
    let light = of(&simulated.flows[1], 20, 115);
    assert!((light.refused + light.lost) * 50 <= light.good, "{light:?}");
}

/// Loads that the application can carry, for an hour each.
fn is_never_refused(scenarios: Vec<(&str, App, Vec<Flow>)>) {
    for (name, app, flows) in scenarios {
        let simulated = simulate(app, &flows, 11, HOUR);
        let honest = of(&simulated.flows[0], 0, HOUR as usize);
        assert_eq!(
            honest.refused, 0,
            "{name}: {honest:?} {:?}",
            simulated.changes
        );
        assert!(honest.good > 0, "{name}");
    }
}

fn at(path: &'static str, patience: f64, flow: Flow) -> Flow {
    Flow {
        path,
        patience,
        ..flow
    }
}

#[test]
fn at_80_percent_of_the_capacity_nothing_is_refused() {
    let times = |_: f64, random: f64| exponential(0.02, random);
    let steady = |_: f64| 0.8 * CAPACITY;
    let waves = |now: f64| {
        if now % 60.0 < 30.0 {
            20.0
        } else {
            0.8 * CAPACITY
        }
    };
    let ordered = |order| App { order, ..oldest() };
    is_never_refused(vec![
        ("even", oldest(), vec![Flow::new(steady, service_time)]),
        ("uneven", oldest(), vec![Flow::new(steady, times)]),
        (
            "newest",
            ordered(Order::Newest),
            vec![Flow::new(steady, times)],
        ),
        (
            "random",
            ordered(Order::Random),
            vec![Flow::new(steady, times)],
        ),
        ("one", App::pool(1), vec![Flow::new(|_| 40.0, service_time)]),
        ("waves", oldest(), vec![Flow::new(waves, times)]),
    ]);
}

#[test]
fn requests_of_1_and_500_ms_are_no_overload() {
    let half = |_: f64, random: f64| if random < 0.5 { 0.001 } else { 0.5 };
    let quick = |_: f64, _: f64| 0.001;
    let slow = |_: f64, _: f64| 0.5;
    is_never_refused(vec![
        // 64 workers do 255 a second.
        ("one path", App::pool(64), vec![Flow::new(|_| 205.0, half)]),
        (
            "two paths",
            App::pool(64),
            vec![
                at("/quick", 1.0, Flow::new(|_| 300.0, quick)),
                at("/slow", 2.0, Flow::new(|_| 102.0, slow)),
            ],
        ),
    ]);
}

#[test]
fn a_cold_cache_is_no_overload() {
    // For half a minute answers take up to thirty times as long, in an application that waits for other
    // services.
    let cold = |now: f64, random: f64| {
        let since = now % 600.0;
        service_time(now, random) * if since < 30.0 { 30.0 - since } else { 1.0 }
    };
    let surge = |now: f64| if now % 600.0 < 10.0 { 1000.0 } else { 50.0 };
    is_never_refused(vec![
        ("steady", App::UNBOUNDED, vec![Flow::new(|_| 500.0, cold)]),
        ("with a surge", App::UNBOUNDED, vec![Flow::new(surge, cold)]),
    ]);
}

#[test]
fn long_polls_are_no_overload_whether_answered_or_given_up() {
    let poll = |_: f64, random: f64| exponential(4.0, random);
    let chat = |now: f64, random: f64| {
        if now % 900.0 < 300.0 {
            0.03
        } else {
            exponential(4.0, random)
        }
    };
    let beside = |patience| {
        vec![
            Flow::new(|_| 200.0, service_time),
            at("/poll", patience, Flow::new(|_| 100.0, poll)),
        ]
    };
    is_never_refused(vec![
        ("given up after 10 s", App::UNBOUNDED, beside(10.0)),
        ("given up after 5 s", App::UNBOUNDED, beside(5.0)),
        ("given up after 1.5 s", App::UNBOUNDED, beside(1.5)),
        ("stuck", App::UNBOUNDED, beside(3600.0)),
        (
            "quick for a while",
            App::UNBOUNDED,
            vec![at("/poll", 10.0, Flow::new(|_| 100.0, chat))],
        ),
    ]);
}

#[test]
fn a_hostile_caller_gets_no_other_caller_refused() {
    let by = |patience, flow| Flow {
        caller: 1,
        patience,
        ..flow
    };
    let stuck = |_: f64, random: f64| if random < 0.9 { 20.0 } else { 0.0 };
    is_never_refused(vec![
        (
            "cheap requests make the others look slow",
            oldest(),
            vec![
                Flow::new(|_| 200.0, service_time),
                by(0.001, Flow::new(|_| 600.0, |_, _| 0.0)),
            ],
        ),
        (
            "requests that are given up at once",
            oldest(),
            vec![
                Flow::new(|_| 150.0, service_time),
                by(0.005, Flow::new(|_| 25.0, service_time)),
            ],
        ),
        (
            "requests that get stuck and are given up",
            App::UNBOUNDED,
            vec![
                Flow::new(|_| 1000.0, service_time),
                by(0.5, Flow::new(|_| 300.0, stuck)),
            ],
        ),
    ]);
}

#[test]
fn a_limit_that_only_observes_says_when_it_would_act_and_refuses_nothing() {
    let rate = |now| match now {
        10.0..30.0 => 5.0 * CAPACITY,
        _ => 100.0,
    };
    let flows = [Flow::new(rate, service_time)];
    let mut simulation = Simulation::new(oldest(), &flows, 5);
    simulation.limits.adaptive = Some(Mode::Observe);
    let simulated = simulation.run(400);
    assert_eq!(simulated.sum(0, 400).refused, 0);
    assert!(matches!(
        simulated.changes.first(),
        Some((_, Change::Acts(_)))
    ));
    assert!(
        matches!(simulated.changes.last(), Some((_, Change::Over))),
        "{:?}",
        simulated.changes
    );
}

#[test]
fn a_limit_that_does_not_help_is_given_up() {
    // The application hangs: it answers nothing that comes after ten seconds, for a minute.
    let work = |now: f64, random: f64| {
        if (10.0..70.0).contains(&now) {
            60.0
        } else {
            service_time(now, random)
        }
    };
    let simulated = simulate(App::UNBOUNDED, &[Flow::new(|_| 200.0, work)], 5, 120);
    assert!(
        simulated
            .changes
            .iter()
            .any(|(_, change)| *change == Change::Useless)
    );
    let after = simulated.sum(80, 115);
    assert_eq!((after.refused, after.lost), (0, 0));
}

/// Long polls that were quick before, and whose callers then give up, look like overload. The limit finds
/// that it does not help, and pauses for longer each time.
#[test]
fn polls_that_are_given_up_on_after_quick_ones_are_refused_for_a_while_and_not_for_ever() {
    let work = |now: f64, random: f64| {
        if now < 300.0 {
            0.03
        } else {
            exponential(4.0, random)
        }
    };
    let poll = at("/poll", 5.0, Flow::new(|_| 100.0, work));
    let simulated = simulate(App::UNBOUNDED, &[poll], 11, HOUR);
    let useless = |(_, change): &(u64, Change)| *change == Change::Useless;
    assert!(
        simulated.changes.iter().any(useless),
        "{:?}",
        simulated.changes
    );
    let late = simulated.sum(300, 3500);
    assert!(
        late.refused * 10 <= late.good,
        "{late:?} {:?}",
        simulated.changes
    );
}
