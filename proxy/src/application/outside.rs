//! One address of a service outside of the mesh, with the connections of this worker to it: what a head says
//! that goes there, and what a failure there tells.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use http::Uri;
use http::header::{HOST, VIA};
use http::request::Parts;
use http::uri::{Authority, Scheme};
use weft_config::settings::Timeouts;
use weft_config::table::ExternalTls;
use weft_transport::tasks::Tasks;

use super::head::shape;
use super::{Application, Reached};
use crate::failure::{Failure, Reason};
use crate::http::fields;
use crate::http::upload::ReplayMemory;
use crate::outside::{OutsideService, Way};
use crate::resilience::destination::Counts;
use crate::resilience::limit::Caller;
use crate::resilience::verdict::Ending;

/// One address of a service outside of the mesh, and the connections of this worker to it.
pub(crate) struct Outside {
    way: Arc<Way>,
    /// All of its requests are this sidecar's own.
    caller: Caller,
    client: OnceLock<Arc<Application>>,
}

impl Outside {
    /// No connection yet.
    pub(crate) fn new(
        service: Arc<OutsideService>,
        address: SocketAddr,
        tls: Option<ExternalTls>,
    ) -> Self {
        Self::by(Way::new(service, address, tls))
    }

    fn by(way: Way) -> Self {
        Self {
            way: Arc::new(way),
            caller: Caller::default(),
            client: OnceLock::new(),
        }
    }

    /// One that is resolved at each dial, without TLS.
    pub(crate) fn by_name(service: Arc<OutsideService>, port: u16) -> Self {
        Self::by(Way::by_name(service, port))
    }

    /// How it is reached.
    pub(crate) fn way(&self) -> &Arc<Way> {
        &self.way
    }

    /// Whether its connections may be used for the same address as another table says it.
    pub(crate) fn is(
        &self,
        service: &OutsideService,
        address: SocketAddr,
        tls: Option<&ExternalTls>,
    ) -> bool {
        self.way.is(service, address, tls)
    }

    /// As whom requests are sent.
    pub(crate) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The connections; made at the first request. `counts` is of the service.
    pub(crate) fn client(
        &self,
        timeouts: &Timeouts,
        counts: &Arc<Counts>,
        room: &Arc<ReplayMemory>,
        tasks: &Tasks,
    ) -> &Arc<Application> {
        self.client.get_or_init(|| {
            Arc::new(Application::new(
                Reached::Outside(Arc::clone(&self.way)),
                timeouts,
                Arc::clone(counts),
                Arc::clone(room),
                tasks.clone(),
            ))
        })
    }

    /// Drops connections that were idle for too long. Called about once a second.
    pub(crate) fn sweep(&self, now: std::time::Instant) {
        if let Some(client) = self.client.get() {
            client.sweep(now);
        }
    }

    /// The head as it leaves the mesh: nothing of the mesh's own is on it. [`super::head`] says the rest of
    /// it.
    pub(crate) fn head(&self, head: &Parts, multiplexed: bool) -> Result<Parts, Failure> {
        let mut head = head.clone();
        fields::strip_request(&mut head.headers)?;
        head.headers.remove(VIA);
        head.headers.remove(HOST);
        let way = self.way();
        let hosts = &way.service().external.hosts;
        let says_host = head.uri.authority().is_some_and(|written| {
            let host = written.host().to_ascii_lowercase();
            hosts.iter().any(|one| *one == host.trim_end_matches('.'))
        });
        if !says_host {
            let standard = if way.is_encrypted() { 443 } else { 80 };
            let (host, port) = (way.service().host(), way.address().port());
            let text = match port == standard {
                true => host.to_owned(),
                false => format!("{host}:{port}"),
            };
            let bad = |_| Failure::new(Reason::Internal, "a host is no authority");
            let mut parts = std::mem::take(&mut head.uri).into_parts();
            parts.authority = Some(Authority::try_from(text).map_err(bad)?);
            head.uri = Uri::from_parts(parts)
                .map_err(|_| Failure::new(Reason::Internal, "a host is no authority"))?;
        }
        let scheme = match way.is_encrypted() {
            true => Scheme::HTTPS,
            false => Scheme::HTTP,
        };
        shape(&mut head, scheme, multiplexed);
        Ok(head)
    }
}

/// How an attempt ended that got no answer, by the failure that the client of applications reports.
pub(crate) fn ending(failure: &Failure) -> Ending {
    use Reason as R;
    let reason = failure.reason;
    if matches!(
        reason,
        R::ConnectionRefused | R::ConnectionTimeout | R::Identity
    ) {
        Ending::Unreached
    } else if reason == R::Overloaded {
        Ending::NoRoom
    } else if matches!(reason, R::ConnectionTerminated | R::StreamReset { .. }) {
        Ending::Lost
    } else if matches!(reason, R::ResponseMalformed | R::ResponseHeadTooLarge) {
        Ending::Malformed
    } else if reason == R::ResponseTimeout {
        Ending::Stalled
    } else {
        Ending::Own
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::Request;
    use weft_config::table::{External, ExternalTls};

    use super::*;

    fn outside(tls: bool, port: u16) -> Outside {
        let service = OutsideService {
            name: "pay.shop".parse().ok(),
            external: Arc::new(External {
                hosts: vec!["pay.example".into(), "pay.test".into()],
                ..External::default()
            }),
        };
        let tls = tls.then(|| ExternalTls {
            server_name: "pay.example".into(),
            roots: None,
            certificate: None,
        });
        Outside::new(Arc::new(service), ([192, 0, 2, 1], port).into(), tls)
    }

    fn head(authority: &str) -> Parts {
        Request::builder()
            .method("POST")
            .uri(format!("https://{authority}/a?b"))
            .header("weft-service", "pay.shop:443")
            .header("weft-route-parent", "orders.shop:80")
            .header("weft-timeout", "1s")
            .header("via", "1.1 weft-0")
            .header("expect", "100-continue")
            .header("accept", "text/plain")
            .body(())
            .unwrap()
            .into_parts()
            .0
    }

    #[test]
    fn nothing_of_the_mesh_is_on_a_head_that_leaves_it() {
        for multiplexed in [false, true] {
            let outside = outside(true, 443);
            let left = outside.head(&head("orders"), multiplexed).unwrap();
            let mut names: Vec<&str> = left.headers.keys().map(|name| name.as_str()).collect();
            names.sort_unstable();
            let wanted: &[&str] = match multiplexed {
                false => &["accept", "expect", "host"],
                true => &["accept", "expect"],
            };
            assert_eq!(names, wanted);
            let target = match multiplexed {
                false => "/a?b",
                true => "https://pay.example/a?b",
            };
            assert_eq!(left.uri, target);
        }
    }

    #[test]
    fn a_request_says_the_name_that_it_was_sent_to_or_the_first_of_the_service() {
        let host = |tls, port, authority: &str| {
            let left = outside(tls, port).head(&head(authority), false).unwrap();
            left.headers[HOST].to_str().unwrap().to_owned()
        };
        assert_eq!(host(true, 443, "pay.shop"), "pay.example");
        assert_eq!(host(false, 80, "pay.shop"), "pay.example");
        assert_eq!(host(true, 8443, "127.0.0.1:5001"), "pay.example:8443");
        assert_eq!(host(false, 443, "pay.shop"), "pay.example:443");
        assert_eq!(host(true, 443, "PAY.test"), "PAY.test");
        assert_eq!(host(true, 443, "pay.test.:443"), "pay.test.:443");
    }

    #[test]
    fn an_attempt_that_reached_no_server_may_be_made_elsewhere_and_a_refusal_is_final() {
        let ends = |reason| ending(&Failure::new(reason, ""));
        assert_eq!(ends(Reason::ConnectionRefused), Ending::Unreached);
        assert_eq!(ends(Reason::ConnectionTimeout), Ending::Unreached);
        assert_eq!(ends(Reason::Identity), Ending::Unreached);
        assert_eq!(ends(Reason::ConnectionTerminated), Ending::Lost);
        assert_eq!(ends(Reason::Denied), Ending::Own);
        assert_eq!(ends(Reason::CallerGone), Ending::Own);
    }
}
