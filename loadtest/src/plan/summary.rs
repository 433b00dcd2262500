//! A plan in the form in which its result shows it. Pure.

use super::target::Protocol;
use super::{End, Load, Plan, Reuse};
use crate::result::{Mode, PlanSummary, Stage, Target};
use crate::schedule::Arrivals;

impl Plan {
    /// What was asked for, as a part of the result.
    pub fn summary(&self) -> PlanSummary {
        let targets = self.targets.list().iter().map(|target| Target {
            url: target.url.to_string(),
            weight: target.weight().into(),
        });
        let general = PlanSummary {
            protocol: self.targets.protocol.token().to_owned(),
            targets: targets.collect(),
            method: self.targets.protocol.is_http().then(|| {
                let method = &self.message.method;
                method.to_string()
            }),
            duration_s: self
                .length()
                .map(|length| (length + self.warm_up).as_secs_f64()),
            warm_up_s: self.warm_up.as_secs_f64(),
            deadline_ms: Some(self.deadline.as_secs_f64() * 1e3),
            keep_alive: self.reuse == Reuse::KeepAlive,
            threads: self.threads as u64,
            seed: self.seed,
            ..PlanSummary::default()
        };
        match &self.load {
            Load::Open {
                course,
                arrivals,
                requests,
                in_flight_max,
                connections,
                ..
            } => PlanSummary {
                mode: Mode::Open,
                arrivals: Some(match arrivals {
                    Arrivals::Constant => "constant".to_owned(),
                    Arrivals::Poisson => "poisson".to_owned(),
                }),
                stages: course
                    .stages()
                    .iter()
                    .map(|stage| Stage {
                        from: stage.from,
                        to: stage.to,
                        seconds: stage.length.as_secs_f64(),
                    })
                    .collect(),
                // The course is then only long enough for them.
                duration_s: general.duration_s.filter(|_| requests.is_none()),
                requests: *requests,
                connections: connections.map(|connections| connections as u64),
                max_in_flight: Some(*in_flight_max as u64),
                ..general
            },
            Load::Replay {
                arrivals,
                in_flight_max,
                connections,
                ..
            } => PlanSummary {
                mode: Mode::Open,
                method: None,
                arrivals: Some("replay".to_owned()),
                requests: Some(arrivals.len() as u64),
                connections: connections.map(|connections| connections as u64),
                max_in_flight: Some(*in_flight_max as u64),
                ..general
            },
            Load::Closed {
                connections, end, ..
            } => PlanSummary {
                mode: Mode::Closed,
                connections: Some(*connections as u64),
                requests: match end {
                    End::Requests(requests) => Some(*requests),
                    End::After(_) => None,
                },
                ..general
            },
        }
    }
}

impl Protocol {
    /// Its name in results.
    pub(crate) fn token(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Http3 => "http3",
            Self::Grpc => "grpc",
            Self::Tcp(_) => "tcp",
            Self::Udp => "udp",
        }
    }
}
