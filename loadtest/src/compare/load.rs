//! The load that each measurement uses. Pure. All loads are HTTP/1.1 requests for one small body, or one
//! large one, so that the server's part is the same for every variant and both paths; the TCP side of a
//! variant carries the same bytes without parsing them.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use weft_transport::external::{ExternalTls, Sessions, Trust};

use super::{Direction, Measurement};
use crate::limits;
use crate::plan::expect::Expectations;
use crate::plan::target::{Message, Targets, TcpPattern, Version};
use crate::plan::{End, Load, Plan, Reuse};
use crate::schedule::{Arrivals, Course};

/// The values that are the same for all variants.
#[derive(Clone, Debug)]
pub struct Loads {
    /// Connections of the closed loops.
    pub connections: usize,
    /// How long a load counts.
    pub duration: Duration,
    /// The length of the warm-up.
    pub warm_up: Duration,
    /// Threads of the generator.
    pub threads: usize,
    /// The bytes that a bulk transfer sends up; as many come down.
    pub bulk: Bytes,
}

impl Loads {
    /// The load of a measurement, sent to `address`. `None`: the measurement has no load.
    ///
    /// # Errors
    /// When the settings make no valid load; the text says which.
    pub fn plan(
        &self,
        measurement: Measurement,
        address: SocketAddr,
    ) -> Result<Option<Plan>, String> {
        let closed = |connections, end| Load::Closed {
            connections,
            streams: 1,
            end,
        };
        let for_a_time = End::After(self.duration);
        let load = match measurement {
            Measurement::Closed(_) => closed(self.connections, for_a_time),
            Measurement::Serial(_) => closed(1, for_a_time),
            Measurement::Connect(_) => closed(limits::COMPARE_CONNECTING, for_a_time),
            Measurement::Bulk(..) => closed(1, End::Requests(1)),
            Measurement::Rate(_, rate) => Load::Open {
                course: Course::steady(f64::from(rate), self.duration)
                    .map_err(|error| error.to_string())?,
                arrivals: Arrivals::Poisson,
                requests: None,
                in_flight_max: limits::COMPARE_IN_FLIGHT,
                connections: None,
                streams: 1,
            },
            Measurement::Idle(_) => return Ok(None),
        };
        let is_bulk = matches!(measurement, Measurement::Bulk(..));
        let (method, body) = match measurement {
            Measurement::Bulk(_, Direction::Up) => (Method::POST, self.bulk.clone()),
            Measurement::Bulk(_, Direction::Down)
            | Measurement::Closed(_)
            | Measurement::Serial(_)
            | Measurement::Rate(..)
            | Measurement::Connect(_)
            | Measurement::Idle(_) => (Method::GET, Bytes::new()),
        };
        let url = format!("http://{address}/");
        let plan = Plan {
            targets: Targets::parse(&[url], Version::Scheme, TcpPattern::Echo)?,
            message: Message {
                method,
                headers: HeaderMap::new(),
                body,
            },
            load,
            warm_up: if is_bulk {
                Duration::ZERO
            } else {
                self.warm_up
            },
            deadline: if is_bulk {
                limits::COMPARE_BULK_DEADLINE
            } else {
                limits::DEADLINE
            },
            grace: limits::GRACE,
            seed: 1,
            threads: self.threads,
            reuse: match measurement {
                Measurement::Connect(_) => Reuse::NewConnections,
                Measurement::Closed(_)
                | Measurement::Serial(_)
                | Measurement::Rate(..)
                | Measurement::Bulk(..)
                | Measurement::Idle(_) => Reuse::KeepAlive,
            },
            expectations: Expectations::default(),
            tls: ExternalTls::new(Trust::AnyPeer, None, Sessions::Full),
            migrate_every: None,
        };
        plan.check()?;
        Ok(Some(plan))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{Group, Path};

    #[test]
    fn every_measurement_but_idle_is_a_load_that_can_run() {
        let loads = Loads {
            connections: 64,
            duration: Duration::from_secs(1),
            warm_up: Duration::from_millis(200),
            threads: 1,
            bulk: Bytes::from_static(b"many bytes"),
        };
        let address = "127.0.0.1:80".parse().unwrap();
        for measurement in Measurement::list(&Group::ALL, &[100]) {
            let plan = loads.plan(measurement, address).unwrap();
            let is_idle = matches!(measurement, Measurement::Idle(_));
            assert_eq!(plan.is_none(), is_idle, "{measurement}");
        }
        let up = Measurement::Bulk(Path::Tcp, Direction::Up);
        let plan = loads.plan(up, address).unwrap().unwrap();
        assert_eq!(plan.message.body, loads.bulk);
        assert_eq!(plan.warm_up, Duration::ZERO);
        let connect = loads.plan(Measurement::Connect(Path::Http), address);
        assert_eq!(connect.unwrap().unwrap().reuse, Reuse::NewConnections);
    }

    #[test]
    fn a_rate_that_cannot_be_sent_is_refused() {
        let loads = Loads {
            connections: 1,
            duration: Duration::from_secs(1),
            warm_up: Duration::ZERO,
            threads: 1,
            bulk: Bytes::new(),
        };
        let address = "127.0.0.1:80".parse().unwrap();
        assert!(
            loads
                .plan(Measurement::Rate(Path::Http, 0), address)
                .is_err()
        );
    }
}
