//! Names of hosts, and the rule that takes a connection by the name that its client asks for. Pure.

use std::collections::HashMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{RouteRule, check_subdomain};

/// A host, or with `*.` in front all hosts below one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPattern(String);

/// Why a text is no [`HostPattern`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostPatternError {
    /// It has other characters, or is too long.
    #[error("it is neither a DNS name in lower case nor one with *. in front")]
    Name,
    /// Clients send no addresses as names (RFC 6066 section 3).
    #[error("it is an IP address, and clients ask for names only")]
    Address,
}

impl HostPattern {
    /// What stands behind `*.`, if that is in front.
    fn below(&self) -> Option<&str> {
        self.0.strip_prefix("*.")
    }
}

impl FromStr for HostPattern {
    type Err = HostPatternError;

    fn from_str(text: &str) -> Result<Self, HostPatternError> {
        let name = text.strip_prefix("*.").unwrap_or(text);
        if name.parse::<Ipv4Addr>().is_ok() {
            return Err(HostPatternError::Address);
        }
        check_subdomain(name).map_err(|_| HostPatternError::Name)?;
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for HostPattern {
    type Error = HostPatternError;

    fn try_from(text: String) -> Result<Self, HostPatternError> {
        text.parse()
    }
}

impl From<HostPattern> for String {
    fn from(pattern: HostPattern) -> Self {
        pattern.0
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The rules of a port by the hosts that they name.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    /// Places of rules, by a whole name.
    exact: HashMap<Box<str>, usize>,
    /// By what stands behind `*.`.
    below: HashMap<Box<str>, usize>,
}

impl Hosts {
    /// Of two rules with the same host, the one that comes first takes it.
    pub(super) fn new(rules: &[Arc<RouteRule>]) -> Self {
        let mut hosts = Self::default();
        for (place, rule) in rules.iter().enumerate() {
            for host in &rule.hosts {
                let (files, name) = match host.below() {
                    Some(name) => (&mut hosts.below, name),
                    None => (&mut hosts.exact, host.0.as_str()),
                };
                files.entry(name.into()).or_insert(place);
            }
        }
        hosts
    }

    pub(super) fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.below.is_empty()
    }

    /// The rule for a host: a whole name before `*.`, and a longer one before a shorter. Case has no meaning.
    pub(super) fn find(&self, host: &str) -> Option<usize> {
        let host = host.to_ascii_lowercase();
        if let Some(place) = self.exact.get(host.as_str()) {
            return Some(*place);
        }
        let mut rest = host.as_str();
        while let Some((_, below)) = rest.split_once('.') {
            if let Some(place) = self.below.get(below) {
                return Some(*place);
            }
            rest = below;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(rules: &[&[&str]]) -> Hosts {
        let rules = rules.iter().map(|hosts| {
            Arc::new(RouteRule {
                hosts: hosts.iter().map(|host| host.parse().unwrap()).collect(),
                ..RouteRule::default()
            })
        });
        Hosts::new(&rules.collect::<Vec<_>>())
    }

    #[test]
    fn a_whole_name_is_before_a_wildcard_and_a_longer_one_before_a_shorter() {
        let hosts = hosts(&[
            &["*.com", "other.org"],
            &["*.example.com"],
            &["abc.example.com"],
        ]);
        for (host, rule) in [
            ("abc.example.com", Some(2)),
            ("ABC.Example.com", Some(2)),
            ("other.example.com", Some(1)),
            ("a.b.example.com", Some(1)),
            ("x.abc.example.com", Some(1)),
            ("example.com", Some(0)),
            ("other.org", Some(0)),
            ("com", None),
            ("a.other.org", None),
            ("matching.net", None),
            ("", None),
        ] {
            assert_eq!(hosts.find(host), rule, "{host}");
        }
    }

    #[test]
    fn of_rules_with_one_name_the_first_takes_it() {
        let hosts = hosts(&[&["a.test", "*.a.test"], &["a.test", "*.a.test"]]);
        assert_eq!(hosts.find("a.test"), Some(0));
        assert_eq!(hosts.find("b.a.test"), Some(0));
        assert!(!hosts.is_empty() && Hosts::default().is_empty());
    }

    #[test]
    fn a_host_is_a_name_and_may_begin_with_a_wildcard() {
        for good in ["a", "shop.example.com", "*.com", "*.a.b-c.d0"] {
            assert_eq!(good.parse::<HostPattern>().unwrap().to_string(), good);
        }
        for bad in [
            "", "*", "*.", "a.*", "*a.test", "*.*.a", "A.test", "a..b", "a.", "ä.test", "[::1]",
        ] {
            assert_eq!(
                bad.parse::<HostPattern>(),
                Err(HostPatternError::Name),
                "{bad}"
            );
        }
        for address in ["127.0.0.1", "*.127.0.0.1"] {
            assert_eq!(
                address.parse::<HostPattern>(),
                Err(HostPatternError::Address)
            );
        }
    }
}
