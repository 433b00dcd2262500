//! Well-known networks, by name. Pure. The figures are typical ones of published measurements, rounded; a
//! scenario that depends on one should state its own.

use weft_config::nearest::unknown_word;

use crate::link::Impairment;

/// A named network: its description, and the impairment of packets from each of its ends, in the form of
/// `weft lab set`. The first end is the user's: packets from it are the uplink.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    /// Its name.
    pub name: &'static str,
    /// Its description.
    pub about: &'static str,
    up: &'static [(&'static str, &'static str)],
    down: &'static [(&'static str, &'static str)],
}

/// All profiles.
pub const PROFILES: [Profile; 4] = [
    Profile {
        name: "wifi",
        about: "a home's wireless network with neighbours: 50 Mbit/s, 2 ms with a long tail, short bursts of loss",
        up: &[
            ("rate", "50mbit"),
            ("delay", "2ms"),
            ("jitter", "2ms pareto"),
            ("loss", "0.2% bursts 3"),
        ],
        down: &[
            ("rate", "50mbit"),
            ("delay", "2ms"),
            ("jitter", "2ms pareto"),
            ("loss", "0.2% bursts 3"),
        ],
    },
    Profile {
        name: "lte",
        about: "a mobile network: 30 Mbit/s down and 10 up, 25 ms each way, deep queues",
        up: &[
            ("rate", "10mbit"),
            ("queue", "375kB"),
            ("delay", "25ms"),
            ("jitter", "8ms normal 50%"),
            ("loss", "0.1%"),
        ],
        down: &[
            ("rate", "30mbit"),
            ("queue", "1100kB"),
            ("delay", "25ms"),
            ("jitter", "5ms normal 50%"),
            ("loss", "0.1%"),
        ],
    },
    Profile {
        name: "satellite",
        about: "a geostationary satellite: 300 ms each way, 20 Mbit/s down and 3 up, loss in bursts",
        up: &[
            ("rate", "3mbit"),
            ("queue", "225kB"),
            ("delay", "300ms"),
            ("jitter", "5ms normal"),
            ("loss", "0.5% bursts 5"),
        ],
        down: &[
            ("rate", "20mbit"),
            ("queue", "1500kB"),
            ("delay", "300ms"),
            ("jitter", "5ms normal"),
            ("loss", "0.5% bursts 5"),
        ],
    },
    Profile {
        name: "transatlantic",
        about: "between data centres on two sides of an ocean: 1 Gbit/s, 40 ms each way, hardly any loss",
        up: &[
            ("rate", "1gbit"),
            ("delay", "40ms"),
            ("jitter", "200us normal"),
            ("loss", "0.01%"),
        ],
        down: &[
            ("rate", "1gbit"),
            ("delay", "40ms"),
            ("jitter", "200us normal"),
            ("loss", "0.01%"),
        ],
    },
];

/// The impairments of a named network for packets from each end.
///
/// # Errors
/// The message that there is no such name, with the names that exist.
pub(super) fn find(name: &str) -> Result<[Impairment; 2], String> {
    let Some(profile) = PROFILES.iter().find(|profile| profile.name == name) else {
        let known: Vec<&str> = PROFILES.iter().map(|profile| profile.name).collect();
        return Err(unknown_word(name, &known));
    };
    Ok([read(profile.up)?, read(profile.down)?])
}

fn read(settings: &[(&str, &str)]) -> Result<Impairment, String> {
    let mut impairment = Impairment::default();
    for (key, value) in settings {
        impairment
            .set(key, value)
            .map_err(|error| error.to_string())?;
    }
    Ok(impairment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_named_network_is_written_in_settings_that_links_know() {
        for profile in PROFILES {
            let both = find(profile.name);
            assert!(both.is_ok(), "{}: {both:?}", profile.name);
        }
        assert!(find("wfi").unwrap_err().contains("write one of wifi, lte"));
    }
}
