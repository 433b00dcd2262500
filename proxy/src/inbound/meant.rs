//! What a call of a peer is for: a service that the application behind this sidecar serves, or one outside of
//! the mesh that is sent through such a service (`spec.via` of an ExternalService). Pure.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use weft_config::table::{Protocol, ServiceName, Table};

use super::served::{Served, ServedService};
use crate::directory::{Directory, Leaving};
use crate::failure::Failure;
use crate::http::authority::canonical;
use crate::http::fields::WEFT_SERVICE;

/// See the module's documentation.
#[derive(Clone)]
pub(crate) struct Meant<'s> {
    /// The service of this sidecar, whose limits hold for the call.
    pub(crate) service: &'s Arc<ServedService>,
    /// What is outside, if it is for that.
    pub(crate) leaving: Option<Arc<Leaving>>,
}

impl<'s> Meant<'s> {
    /// What the head of a request or tunnel says. What is outside has to be named by `weft-service`, and this
    /// sidecar has to serve what it is sent through: any other call outside is refused as misdirected.
    pub(super) fn find(
        served: &'s Served,
        head: &Parts,
        directory: &Directory,
    ) -> Result<Self, Failure> {
        if let Some(leaving) = leaving(head, directory)
            && let Some(service) = served.find_port(&leaving.via.0, leaving.via.1)
        {
            // What is outside may be told the authority.
            canonical(head)?;
            let leaving = Some(Arc::clone(leaving));
            return Ok(Self { service, leaving });
        }
        let service = served.identify(head, directory.table.as_deref())?;
        Ok(Self::own(service))
    }

    /// The service itself.
    pub(crate) fn own(service: &'s Arc<ServedService>) -> Self {
        Self {
            service,
            leaving: None,
        }
    }

    /// The service whose policies decide.
    pub(crate) fn name(&self) -> &ServiceName {
        match &self.leaving {
            None => &self.service.name,
            Some(leaving) => &leaving.name,
        }
    }

    /// As `orders.shop:80`.
    pub(crate) fn label(&self) -> &Arc<str> {
        match &self.leaving {
            None => &self.service.label,
            Some(leaving) => &leaving.cluster.label,
        }
    }

    /// The protocol of the port, as far as the table tells.
    pub(super) fn protocol(&self, table: Option<&Table>) -> Option<Protocol> {
        match &self.leaving {
            None => self.service.protocol(table),
            Some(leaving) => Some(leaving.cluster.protocol),
        }
    }

    /// Whether every request is delivered over HTTP/2.
    pub(super) fn is_multiplexed(&self, table: Option<&Table>) -> bool {
        match &self.leaving {
            None => self.service.is_multiplexed(table),
            Some(leaving) => leaving.cluster.protocol == Protocol::Grpc,
        }
    }

    /// The time without progress after which its streams are reset, if the policy sets one.
    pub(super) fn stream_idle(&self, table: Option<&Table>) -> Option<Duration> {
        match &self.leaving {
            None => self.service.stream_idle(table),
            Some(leaving) => leaving.cluster.traffic.request.timeouts.stream_idle,
        }
    }

    /// Whether a table sends it through the service. Each new one is asked, so that a call under way ends
    /// with the way that it takes.
    pub(super) fn is_sent_by(&self, table: &Table) -> bool {
        let Some(leaving) = &self.leaving else {
            return true;
        };
        let (name, port) = (&self.service.name, self.service.port);
        let external = table.services.get(&leaving.name);
        let external = external.and_then(|service| service.external.as_ref());
        let via = external.and_then(|external| external.via.as_ref());
        via.is_some_and(|via| {
            let through = via.ports.get(&leaving.number);
            via.here && via.service == *name && through == Some(&port)
        })
    }
}

/// What is outside and named by the head. Most sidecars send nothing outside, and look for no name.
fn leaving<'d>(head: &Parts, directory: &'d Directory) -> Option<&'d Arc<Leaving>> {
    if !directory.has_leaving() {
        return None;
    }
    let mut named = head.headers.get_all(WEFT_SERVICE).iter();
    match (named.next(), named.next()) {
        (Some(label), None) => directory.leaving(label.as_bytes()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use weft_config::table::{External, Port, Service, Via};

    use super::*;
    use crate::directory::tests::{after, name, table};

    /// `pay.shop:443`, outside of the mesh, which is sent through this port of `orders`.
    fn sent_through(via: Option<Via>) -> Table {
        let mut table = table();
        let service = Service {
            ports: [(
                443,
                Port::clone(&table.services[&name("solo")].ports[&8080]),
            )]
            .into(),
            external: Some(Arc::new(External {
                hosts: vec!["pay.example".into()],
                via,
                ..External::default()
            })),
            authorization: None,
        };
        table.services.insert(name("pay"), Arc::new(service));
        table
    }

    fn via(service: &str, ports: &[(u16, u16)], here: bool) -> Option<Via> {
        Some(Via {
            service: name(service),
            ports: ports.iter().copied().collect(),
            here,
        })
    }

    #[test]
    fn a_call_that_leaves_is_allowed_only_while_its_port_is_sent_through_the_service_here() {
        let through = |via| after(sent_through(via), &Directory::default());
        let orders = Arc::new(ServedService::for_tests(name("orders"), 80));
        let served = Served::new(vec![orders], "shop");
        let head = http::Request::get("https://pay.example/")
            .version(http::Version::HTTP_3)
            .header(WEFT_SERVICE, "pay.shop:443");
        let head = head.body(()).unwrap().into_parts().0;
        let directory = through(via("orders", &[(443, 80)], true));
        let meant = Meant::find(&served, &head, &directory).ok().unwrap();
        assert_eq!(&**meant.label(), "pay.shop:443");
        assert!(meant.is_sent_by(directory.table.as_deref().unwrap()));
        for changed in [
            // A removed port.
            via("orders", &[], true),
            via("orders", &[(444, 80)], true),
            via("orders", &[(443, 81)], true),
            via("db", &[(443, 80)], true),
            via("orders", &[(443, 80)], false),
            None,
        ] {
            let table = sent_through(changed.clone());
            assert!(!meant.is_sent_by(&table), "{changed:?}");
        }
        assert!(!meant.is_sent_by(&table()));
        // Nothing leaves by a sidecar that sends nothing outside.
        assert!(Meant::find(&served, &head, &through(None)).is_err());
    }
}
