//! Which sidecars an apply waits for.

use std::time::{Duration, UNIX_EPOCH};

use super::*;

fn workload(account: &str, instance: &str) -> Workload {
    let identity = format!("spiffe://demo.test/ns/shop/sa/{account}");
    Workload {
        identity: identity.parse().unwrap(),
        instance: instance.into(),
    }
}

fn about(host: u8, certificate: u64) -> About {
    About {
        source: Some([10, 0, 0, host].into()),
        not_after: UNIX_EPOCH + Duration::from_secs(certificate),
        version: "0.1.0".into(),
        listens_for: Arc::default(),
        features: Default::default(),
        place: Place {
            address: None,
            locality: None,
        },
    }
}

fn naming(names: usize) -> About {
    let name = |n| format!("s{n}.shop").parse().unwrap();
    About {
        listens_for: Arc::new((0..names).map(name).collect()),
        features: Default::default(),
        ..about(1, 1)
    }
}

fn revision(number: u64) -> Revision {
    Revision {
        store: "s".into(),
        number,
    }
}

/// Present instances, and whether they are lost.
fn there(sidecars: &Sidecars) -> Vec<(String, bool)> {
    let states = sidecars.states(&revision(1)).into_iter();
    states.map(|state| (state.instance, state.lost)).collect()
}

#[test]
fn a_second_stream_of_a_sidecar_ends_the_first_whose_later_reports_are_ignored() {
    let mut sidecars = Sidecars::default();
    let orders = workload("orders", "a");
    let first = sidecars.connect(&orders, about(1, 1)).unwrap();
    let second = sidecars.connect(&orders, about(1, 1)).unwrap();
    assert!(first.superseded.is_cancelled() && !second.superseded.is_cancelled());
    assert!(sidecars.stream(&orders, first.number).is_none());
    sidecars.disconnect(&orders, first.number, Instant::now());
    assert_eq!(there(&sidecars), [("a".to_owned(), false)]);
}

#[test]
fn a_sidecar_whose_stream_broke_is_expected_for_a_lease() {
    let (mut sidecars, now) = (Sidecars::default(), Instant::now());
    let orders = workload("orders", "a");
    let stream = sidecars.connect(&orders, about(1, 1)).unwrap();
    sidecars
        .stream(&orders, stream.number)
        .unwrap()
        .acknowledged = Some(revision(1));
    sidecars.disconnect(&orders, stream.number, now);
    let state = &sidecars.states(&revision(2))[0];
    assert!(state.lost && !state.acknowledged);
    assert!(sidecars.states(&revision(1))[0].acknowledged);
    let end = now + limits::LEASE;
    assert!(!sidecars.expire(end - Duration::from_millis(1)));
    assert!(sidecars.expire(end) && there(&sidecars).is_empty());
    assert_eq!(sidecars.iter().count(), 1, "it is still shown");
}

#[test]
fn one_that_said_that_it_leaves_is_not_expected() {
    let mut sidecars = Sidecars::default();
    let orders = workload("orders", "a");
    let stream = sidecars.connect(&orders, about(1, 1)).unwrap();
    sidecars.leave(&orders, stream.number);
    assert!(there(&sidecars).is_empty());
    sidecars.disconnect(&orders, stream.number, Instant::now());
    assert!(there(&sidecars).is_empty());
}

#[test]
fn a_process_that_starts_again_replaces_the_one_that_was_lost_and_another_replica_does_not() {
    let (mut sidecars, now) = (Sidecars::default(), Instant::now());
    let killed = workload("orders", "a");
    let stream = sidecars.connect(&killed, about(1, 1)).unwrap();
    // Beside it, while it runs: another replica on the same host.
    sidecars
        .connect(&workload("orders", "b"), about(1, 1))
        .unwrap();
    sidecars.disconnect(&killed, stream.number, now);
    let lost = [("a".to_owned(), true), ("b".to_owned(), false)];
    assert_eq!(there(&sidecars), lost);
    for other in [about(2, 1), about(1, 2)] {
        let replica = sidecars.connect(&workload("orders", "c"), other).unwrap();
        assert_eq!(there(&sidecars)[..2], lost);
        sidecars.leave(&workload("orders", "c"), replica.number);
    }
    sidecars
        .connect(&workload("carts", "a"), about(1, 1))
        .unwrap();
    assert!(there(&sidecars).contains(&lost[0]));
    sidecars
        .connect(&workload("orders", "d"), about(1, 1))
        .unwrap();
    assert!(!there(&sidecars).contains(&lost[0]));
}

#[test]
fn what_is_noted_is_recalled_as_lost_until_it_comes_back() {
    let (mut sidecars, now) = (Sidecars::default(), Instant::now());
    let orders = workload("orders", "a");
    let stream = sidecars.connect(&orders, about(1, 1)).unwrap();
    let gone = sidecars
        .connect(&workload("carts", "g"), about(2, 2))
        .unwrap();
    sidecars.leave(&workload("carts", "g"), gone.number);
    let (last, known) = sidecars.known();
    assert!(last >= stream.number && known.len() == 1);
    let mut next = Sidecars::recall(known, now + limits::LEASE);
    assert_eq!(there(&next), [("a".to_owned(), true)]);
    next.connect(&orders, about(1, 1)).unwrap();
    assert_eq!(there(&next), [("a".to_owned(), false)]);
}

#[test]
fn the_sidecars_of_an_identity_share_a_bounded_number_of_names() {
    let mut sidecars = Sidecars::default();
    let half = limits::NAMES_PER_IDENTITY_MAX / 2;
    let first = workload("orders", "a");
    let stream = sidecars.connect(&first, naming(half)).unwrap();
    sidecars
        .connect(&workload("orders", "b"), naming(half))
        .unwrap();
    let more = sidecars.connect(&workload("orders", "c"), naming(1));
    assert_eq!(more.unwrap_err(), TooManyNames);
    sidecars
        .connect(&workload("carts", "c"), naming(1))
        .unwrap();
    let inbound = Arc::new(Inbound::from([(
        ("x.shop".parse().unwrap(), 80),
        true.into(),
    )]));
    let reported = sidecars.report(&first, stream.number, &inbound);
    assert!(matches!(reported, Err(TooManyNames)));
    // A second stream of the same sidecar counts once, and a lost one not at all.
    sidecars.connect(&first, naming(half)).unwrap();
    let again = sidecars.connect(&first, naming(half)).unwrap();
    sidecars.disconnect(&first, again.number, Instant::now());
    sidecars
        .connect(&workload("orders", "c"), naming(1))
        .unwrap();
}

#[test]
fn a_sidecar_that_comes_and_goes_is_forgotten_before_all_others() {
    let (mut sidecars, now) = (Sidecars::default(), Instant::now());
    let lost = workload("orders", "a");
    let stream = sidecars.connect(&lost, about(1, 1)).unwrap();
    sidecars.disconnect(&lost, stream.number, now);
    let quiet = workload("quiet", "a");
    let stream = sidecars.connect(&quiet, about(1, 1)).unwrap();
    sidecars.leave(&quiet, stream.number);
    for n in 0..limits::SIDECARS_MAX + 5 {
        let flood = workload("flood", &n.to_string());
        let stream = sidecars.connect(&flood, about(2, 2)).unwrap();
        sidecars.leave(&flood, stream.number);
    }
    assert_eq!(sidecars.iter().count(), limits::SIDECARS_MAX);
    assert!(sidecars.get(&lost).is_some() && sidecars.get(&quiet).is_some());
}
