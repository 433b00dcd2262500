//! Tests of `netem-tests/src/link/settings.rs`.

use super::*;

fn impairment(settings: &[(&str, &str)]) -> Impairment {
    let mut impairment = Impairment::default();
    for (key, value) in settings {
        impairment.set(key, value).unwrap();
    }
    impairment
}

fn share(percent: f64) -> Probability {
    Probability::new(percent / 100.0).unwrap()
}

#[test]
fn each_setting_is_written_as_its_help_shows() {
    let read = impairment(&[
        ("delay", "20ms"),
        ("jitter", "5ms normal 25% overtake"),
        ("loss", "gilbert 1% 25% 90% 2%"),
        ("reorder", "5% 3ms"),
        ("duplicate", "1%"),
        ("corrupt", "0.1% raw"),
        ("rate", "10mbit"),
        ("queue", "64KiB"),
        ("cross", "8mbit"),
        ("black_hole", "1300"),
        ("blackout", "on"),
        ("only", "udp:4433,length:1200-,first:10"),
    ]);
    let expected = Impairment {
        delay: Duration::from_millis(20),
        jitter: Some(Jitter {
            deviation: Duration::from_millis(5),
            distribution: Distribution::Normal,
            correlation: share(25.0),
            order: Order::Overtake,
        }),
        cross: Some(8_000_000),
        loss: Loss::Bursts(GilbertElliott {
            to_bad: share(1.0),
            to_good: share(25.0),
            loss_bad: share(90.0),
            loss_good: share(2.0),
        }),
        reorder: Some(Reorder {
            probability: share(5.0),
            by: Duration::from_millis(3),
        }),
        duplicate: share(1.0),
        corrupt: Some(Corruption {
            probability: share(0.1),
            fix_checksum: false,
        }),
        rate: Some(Rate::Constant(10_000_000)),
        queue: Some(QueueLimit::Bytes(64 << 10)),
        black_hole: Some(1300),
        blackout: true,
        only: Match {
            udp_port: Some(4433),
            length: 1200..=u16::MAX,
            first: Some(10),
        },
    };
    assert_eq!(read, expected);
}

#[test]
fn what_was_set_can_be_taken_back() {
    let mut read = impairment(&[
        ("delay", "20ms"),
        ("jitter", "5ms"),
        ("loss", "5%"),
        ("reorder", "5% 3ms"),
        ("duplicate", "1%"),
        ("corrupt", "0.1%"),
        ("rate", "trace 1mbit 1s 0 1s"),
        ("queue", "10p"),
        ("black_hole", "1300"),
        ("blackout", "on"),
        ("only", "udp:1"),
    ]);
    for (key, value) in [
        ("delay", "0"),
        ("jitter", "none"),
        ("loss", "none"),
        ("reorder", "none"),
        ("duplicate", "none"),
        ("corrupt", "none"),
        ("rate", "none"),
        ("queue", "default"),
        ("black_hole", "none"),
        ("blackout", "off"),
        ("only", "all"),
    ] {
        read.set(key, value).unwrap();
    }
    assert_eq!(read, Impairment::default());
}

#[test]
fn bursts_are_a_mean_loss_and_a_mean_length() {
    let Loss::Bursts(channel) = impairment(&[("loss", "20% bursts 4")]).loss else {
        panic!("no bursts");
    };
    assert_eq!(channel.to_good, share(25.0));
    // In the long run p / (p + r) of the packets meet the bad state.
    let (to_bad, to_good) = (channel.to_bad.share(), channel.to_good.share());
    assert!((to_bad / (to_bad + to_good) - 0.2).abs() < 1e-12);
}

#[test]
fn a_wrong_value_is_answered_with_a_right_one_and_changes_nothing() {
    let mut read = Impairment::default();
    for (key, value) in [
        ("delay", "20"),
        ("delay", "-1ms"),
        ("delay", "61s"),
        ("loss", "5"),
        ("loss", "101%"),
        ("loss", "100% bursts 5"),
        ("loss", "1% bursts 0.5"),
        ("jitter", ""),
        ("jitter", "5ms gaussian"),
        ("rate", "0mbit"),
        ("rate", "10mbps"),
        ("rate", "trace 1mbit"),
        ("rate", "trace 0 1s"),
        ("queue", "0p"),
        ("queue", "ä"),
        ("queue", "99999999999999999MiB"),
        ("reorder", "5%"),
        ("blackout", "yes"),
        ("only", "length:9-3"),
        ("only", ""),
    ] {
        let error = read.set(key, value).unwrap_err();
        assert!(
            matches!(&error, SettingError::Value { form, .. } if !form.is_empty()),
            "{key}={value}: {error}"
        );
        assert_eq!(read, Impairment::default(), "{key}={value}");
    }
}

#[test]
fn an_unknown_key_is_answered_with_the_nearest_one() {
    let error = Impairment::default().set("dela", "1ms").unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is no setting `dela`: did you mean `delay`?"
    );
}
