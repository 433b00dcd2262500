//! Converts values of a TrafficPolicy that a table writes in another form. Pure.

use std::fmt;

use super::{AlgorithmName, BalanceSpec, FailoverSpec, FaultAbortSpec, TargetKind, TrafficTarget};
use crate::resources::Kind;
use crate::table::{Algorithm, FaultStatus, ServiceName};

impl TargetKind {
    /// The name in documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HttpRoute => "HTTPRoute",
            Self::GrpcRoute => "GRPCRoute",
            Self::Service => "Service",
            Self::ExternalService => "ExternalService",
            Self::Namespace => "Namespace",
        }
    }
}

impl TargetKind {
    /// The kind of routes that it is.
    pub(crate) fn of_route(self) -> Option<Kind> {
        match self {
            Self::HttpRoute => Some(Kind::HttpRoute),
            Self::GrpcRoute => Some(Kind::GrpcRoute),
            Self::Service | Self::ExternalService | Self::Namespace => None,
        }
    }
}

impl FailoverSpec {
    /// The service that takes over for one of `namespace`.
    pub(crate) fn service(&self, namespace: &str) -> ServiceName {
        ServiceName {
            namespace: self.namespace.as_deref().unwrap_or(namespace).to_owned(),
            name: self.name.clone(),
        }
    }
}

impl fmt::Display for TrafficTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.name)
    }
}

impl BalanceSpec {
    /// The rule with its key; `None` if this policy does not choose one.
    pub(crate) fn chosen(&self) -> Option<Algorithm> {
        Some(match self.algorithm? {
            AlgorithmName::PeakEwma => Algorithm::PeakEwma,
            AlgorithmName::LeastRequest => Algorithm::LeastRequest,
            AlgorithmName::RoundRobin => Algorithm::RoundRobin,
            AlgorithmName::RingHash => Algorithm::RingHash(self.key.clone()?),
            AlgorithmName::Maglev => Algorithm::Maglev(self.key.clone()?),
        })
    }
}

impl FaultAbortSpec {
    /// The injected answer; reading a document made sure that there is exactly one.
    pub(crate) fn with(&self) -> Option<FaultStatus> {
        let grpc = self.grpc_status.map(FaultStatus::Grpc);
        grpc.or(self.status.map(FaultStatus::Http))
    }
}
