//! How the sidecar's own settings fit the mesh as it is now: where it listens, whether the services that its
//! listeners lead to exist and may be called, and whether the services that it serves are registered. `weft
//! check` and `weft proxy status` show it.

use std::net::SocketAddr;

use serde_json::{Value, json};
use weft_config::settings::LocalAddress;

use crate::directory::Directory;
use crate::failure::Reason;
use crate::inbound::authorise::takes_plaintext;
use crate::outbound::route::{Destination, address};
use crate::worker::Shared;

/// The addresses where the sidecar listens, as bound.
pub(crate) struct Listening {
    /// For peers (UDP).
    pub(crate) mesh: Option<SocketAddr>,
    /// For its application, each with its destination.
    pub(crate) outbound: Vec<(LocalAddress, Destination)>,
}

/// Each listener of the application with the service that it leads to. `state` is `ok`, `by_host`,
/// `forbidden`, `unknown`, `no_endpoint` or `not_ready`; `why` gives the reason for a state that needs
/// attention.
pub(super) fn listeners(listening: &Listening, directory: &Directory, shared: &Shared) -> Value {
    let rows = listening.outbound.iter().map(|(listen, destination)| {
        let (leads_to, state, why) = outlook(destination, directory, shared);
        json!({ "listen": listen.to_string(), "leads_to": leads_to, "state": state, "why": why })
    });
    Value::Array(rows.collect())
}

fn outlook(
    destination: &Destination,
    directory: &Directory,
    shared: &Shared,
) -> (Option<String>, &'static str, Option<String>) {
    let Destination::Service { text, port, .. } = destination else {
        return (None, "by_host", None);
    };
    let leads_to = Some(format!("{text}:{port}"));
    let (state, why) = match address(directory, destination, None, &shared.identity) {
        Ok(port) if port.cluster.endpoints.is_empty() && port.rules.is_empty() => {
            ("no_endpoint", Some(port.cluster.absence.to_string()))
        }
        Ok(_) => ("ok", None),
        Err(astray) => {
            let reason = astray.failure.reason;
            let state = if reason == Reason::Denied {
                "forbidden"
            } else if reason == Reason::NotReady {
                "not_ready"
            } else {
                "unknown"
            };
            (state, Some(astray.failure.detail.into_owned()))
        }
    };
    (leads_to, state, why)
}

/// Each service that the settings serve. `problem` says why a service is not registered; `status` is that of
/// the control plane. `plaintext` is its listener for callers without mutual TLS, and why it takes none.
pub(super) fn registrations(shared: &Shared, directory: &Directory, status: &Value) -> Value {
    let table = directory.table.as_deref();
    let rows = shared.served.iter().map(|service| {
        let problem = &status["registration_problems"][&*service.label];
        let plaintext = service.plaintext.listen().map(|listen| {
            let refusal = takes_plaintext(table, &service.name).err();
            let why = refusal.map(|failure| failure.detail.into_owned());
            json!({ "listen": listen.to_string(), "problem": why })
        });
        json!({
            "service": &*service.label,
            "application": service.application.as_ref().map_or("none".to_owned(), ToString::to_string),
            "problem": problem,
            "plaintext": plaintext,
        })
    });
    Value::Array(rows.collect())
}
