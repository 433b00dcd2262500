//! The parts of a table that not every sidecar supports. A sidecar announces the features that it knows when
//! it subscribes; a sidecar that announces none is of a build before there were features. [`crate::compile`]
//! reduces the table to them (`compile/fit.rs`).
//!
//! A field that is added to a table is a feature: without features an older sidecar would refuse the whole
//! table. For each feature, this file defines what holds in a sidecar without it, and that must never permit
//! a call that the resources refuse (`docs/adr/0021-features.md`).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::forbidden::Written;

/// One part of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Feature {
    /// Why a service may not be called, and the protocol of its ports ([`super::Forbidden`]).
    Bans,
    /// Why a port has no endpoints ([`super::Absence`]).
    Absence,
    /// Only routes may lead to a service ([`super::Authorization::parents`]).
    RouteOnly,
    /// An application that ignores the case of paths ([`super::PathCase`]).
    PathCase,
    /// Conditions of routes beyond an exact path, a prefix, a method and exact headers: regular expressions,
    /// parameters of the query, and a `host` that is `:authority` as well ([`super::HttpMatch`]).
    RouteConditions,
    /// What routes do to requests and responses ([`super::Filters`]).
    RouteFilters,
    /// Why no request can go to a backend ([`super::Broken`]).
    BrokenBackends,
    /// Routes of a port of tcp.
    TcpRoutes,
    /// Routes of a port of tcp by the host that clients of TLS ask for ([`super::RouteRule::hosts`]).
    TlsRoutes,
    /// The least wait before a retry ([`super::Backoff::at_least`]).
    LeastBackoff,
    /// Retries that a rule asks for itself ([`super::Retry::of_rule`]).
    RuleRetry,
    /// An application of HTTP that takes every request over HTTP/2 ([`super::Port::h2c`]).
    H2c,
    /// The weights and labels of endpoints ([`super::Details`]).
    EndpointDetails,
    /// Sessions of rules ([`super::Persistence`]).
    Sessions,
    /// Services outside of the mesh ([`super::External`]), and what becomes of requests for names that are
    /// none ([`super::Egress`]).
    ExternalServices,
    /// Services outside of the mesh whose traffic is sent through a service of the mesh ([`super::Via`]).
    ExternalVia,
    /// Callers that prove no identity ([`super::Authorization::plaintext`]).
    Plaintext,
}

/// The description of a [`Feature`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AboutFeature {
    /// Its name in messages, metrics and listings. Never changes.
    pub name: &'static str,
    /// The first version of weft whose sidecars announce it.
    pub since: &'static str,
    /// What a sidecar without it gets instead.
    pub without: &'static str,
    /// The loss in a sidecar without it.
    pub loss: Loss,
}

/// The loss in a sidecar without a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Words of answers and listings, or which of several endpoints that may take a request does; every
    /// request gets the same treatment. It is left out and not mentioned.
    Words,
    /// A restriction of callers. The service is closed in that sidecar, which refuses all calls to it,
    /// because it could otherwise let a call through that the restriction refuses. Operators see it by name.
    Calls,
    /// Where requests go, or what becomes of them. The rule is told without what it cannot say, and without
    /// backends: what it would take gets an error, as it must never go where the resources send nothing.
    /// Operators see it by name.
    Requests,
}

impl Feature {
    /// Every feature that this build knows.
    pub const ALL: [Self; 17] = [
        Self::Bans,
        Self::Absence,
        Self::RouteOnly,
        Self::PathCase,
        Self::RouteConditions,
        Self::RouteFilters,
        Self::BrokenBackends,
        Self::TcpRoutes,
        Self::TlsRoutes,
        Self::LeastBackoff,
        Self::RuleRetry,
        Self::H2c,
        Self::EndpointDetails,
        Self::Sessions,
        Self::ExternalServices,
        Self::ExternalVia,
        Self::Plaintext,
    ];

    /// Its description.
    pub const fn about(self) -> AboutFeature {
        match self {
            Self::Bans => AboutFeature {
                name: "bans",
                since: "0.1.0",
                without: "the names of the services that it may not call",
                loss: Loss::Words,
            },
            Self::Absence => AboutFeature {
                name: "absence",
                since: "0.1.0",
                without: "that a port has no endpoints",
                loss: Loss::Words,
            },
            Self::RouteOnly => AboutFeature {
                name: "route-only",
                since: "0.1.0",
                without: "a rule that denies all calls to the service",
                loss: Loss::Calls,
            },
            Self::PathCase => AboutFeature {
                name: "path-case",
                since: "0.1.0",
                without: "a rule that denies all calls to the service, if a rule judges paths",
                loss: Loss::Calls,
            },
            Self::RouteConditions => AboutFeature {
                name: "route-conditions",
                since: "0.1.0",
                without: "the other conditions of the rule, and no backend",
                loss: Loss::Requests,
            },
            Self::RouteFilters => AboutFeature {
                name: "route-filters",
                since: "0.1.0",
                without: "the conditions of the rule, and no backend",
                loss: Loss::Requests,
            },
            Self::BrokenBackends => AboutFeature {
                name: "broken-backends",
                since: "0.1.0",
                without: "a backend that does not exist; it answers 503 in place of 500",
                loss: Loss::Words,
            },
            Self::TcpRoutes => AboutFeature {
                name: "tcp-routes",
                since: "0.1.0",
                without: "a port without endpoints",
                loss: Loss::Requests,
            },
            Self::TlsRoutes => AboutFeature {
                name: "tls-routes",
                since: "0.1.0",
                without: "a port without endpoints",
                loss: Loss::Requests,
            },
            Self::LeastBackoff => AboutFeature {
                name: "least-backoff",
                since: "0.1.0",
                without: "the bounds of the waits between attempts, and no least one",
                loss: Loss::Words,
            },
            Self::RuleRetry => AboutFeature {
                name: "rule-retry",
                since: "0.1.0",
                without: "502 where the connections of all attempts failed",
                loss: Loss::Words,
            },
            Self::H2c => AboutFeature {
                name: "h2c",
                since: "0.1.0",
                without: "a port whose application gets HTTP/1.1, except for calls of gRPC",
                loss: Loss::Requests,
            },
            Self::EndpointDetails => AboutFeature {
                name: "endpoint-details",
                since: "0.1.0",
                without: "endpoints of equal weight, without labels",
                loss: Loss::Words,
            },
            Self::Sessions => AboutFeature {
                name: "sessions",
                since: "0.1.0",
                without: "the conditions of the rule, and no backend",
                loss: Loss::Requests,
            },
            Self::ExternalServices => AboutFeature {
                name: "external-services",
                since: "0.1.0",
                without: "no ExternalService, and no name outside of the mesh",
                loss: Loss::Requests,
            },
            Self::ExternalVia => AboutFeature {
                name: "external-via",
                since: "0.1.0",
                without: "no ExternalService that has spec.via",
                loss: Loss::Requests,
            },
            Self::Plaintext => AboutFeature {
                name: "plaintext",
                since: "0.1.0",
                without: "a service that takes no callers without mutual TLS",
                loss: Loss::Requests,
            },
        }
    }

    /// Its name; see [`AboutFeature::name`].
    pub const fn name(self) -> &'static str {
        self.about().name
    }

    const fn bit(self) -> u32 {
        1 << self as u32
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The features that a sidecar announces, as far as this build knows them.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Features(u32);

impl Features {
    /// Those of a sidecar of this build.
    pub fn all() -> Self {
        Feature::ALL.into_iter().collect()
    }

    /// Those of a sidecar that announces nothing.
    pub const fn none() -> Self {
        Self(0)
    }

    /// Those of the given names. A name that this build does not know is of a later sidecar, and this build
    /// does not need it.
    pub fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let known = |name| Feature::ALL.into_iter().find(|one| one.name() == name);
        names.into_iter().filter_map(known).collect()
    }

    /// Whether a sidecar with these understands it.
    pub const fn has(self, feature: Feature) -> bool {
        self.0 & feature.bit() != 0
    }

    /// Their names, in the order of [`Feature::ALL`].
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let announced = move |feature: &Feature| self.has(*feature);
        Feature::ALL
            .into_iter()
            .filter(announced)
            .map(Feature::name)
    }
}

impl FromIterator<Feature> for Features {
    fn from_iter<I: IntoIterator<Item = Feature>>(features: I) -> Self {
        let bits = features.into_iter().map(Feature::bit);
        Self(bits.fold(0, |all, bit| all | bit))
    }
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// A part of a resource that a sidecar was not sent, because it does not announce the feature.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Withheld {
    /// `KIND/NAMESPACE/NAME` of the resource.
    pub resource: String,
    /// The feature's name. Text, because the reader may not know it.
    pub feature: String,
    /// What holds in that sidecar instead.
    pub instead: String,
}

impl super::Table {
    /// The table as bytes for a sidecar with these features, to which it was reduced.
    ///
    /// # Errors
    /// This cannot fail: the keys are text and no value is refused. The library reports that at run time
    /// only.
    pub fn write_for(&self, features: Features) -> Result<Vec<u8>, serde_json::Error> {
        let written = match features.has(Feature::Bans) {
            true => Written::whole(self),
            false => Written::names_only(self),
        };
        serde_json::to_vec(&written)
    }

    /// Writes the table with all that it holds, secrets included: for a sidecar's own disk.
    ///
    /// # Errors
    /// When `to` does not take it.
    pub fn write_whole(&self, to: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        serde_json::to_writer(to, &Written::whole(self))
    }
}

impl fmt::Display for Withheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            resource,
            feature,
            instead,
        } = self;
        write!(
            f,
            "{resource} needs {feature}, which this sidecar does not know: {instead}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_survive_the_way_to_the_service_and_unknown_ones_mean_nothing() {
        let all = Features::all();
        let names: Vec<&str> = all.names().collect();
        let distinct: std::collections::BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!(distinct.len(), Feature::ALL.len());
        assert_eq!(Features::named(names), all);
        let mixed = Features::named(["of-the-future", "path-case", "", "PATH-CASE"]);
        assert_eq!(mixed, Features::from_iter([Feature::PathCase]));
        assert!(mixed.has(Feature::PathCase) && !mixed.has(Feature::RouteOnly));
        assert_eq!(Features::named([]), Features::none());
    }
}
