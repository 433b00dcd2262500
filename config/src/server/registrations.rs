//! The result of a registration, as told to the sidecar and as told to operators. Pure.
//!
//! A sidecar gets the same answer for a Service that does not exist and for one that its identity may not
//! serve. Otherwise any member of the mesh could find out by guessing which Services exist and who serves
//! them. Operators see the reason, in `weft get sidecars` and in the log.

use std::net::SocketAddr;

use weft_transport::identity::SpiffeId;

use crate::compile::Plan;
use crate::limits;
use crate::table::ServiceName;

/// Why a registration does not hold, as told to its sidecar, and whether it is refused (if not, it waits).
pub(super) fn problem(
    plan: &Plan,
    identity: &SpiffeId,
    service: &ServiceName,
    port: u16,
    address: Option<SocketAddr>,
) -> (String, bool) {
    match plan.may_serve(identity, service) {
        None | Some(false) => (
            format!("waits: no Service {service} that this identity may serve"),
            false,
        ),
        Some(true) if !plan.has_port(service, port) => (
            format!("waits: Service {service} has no port {port}"),
            false,
        ),
        Some(true) if address.is_none() => ("no address was advertised".to_owned(), true),
        Some(true) => (String::new(), false),
    }
}

/// The same for operators, who may know the reason; `None` if it holds.
pub(super) fn reason(
    plan: &Plan,
    identity: &SpiffeId,
    service: &ServiceName,
    port: u16,
    address: Option<SocketAddr>,
) -> Option<String> {
    match plan.may_serve(identity, service) {
        None => Some(format!("waits: there is no Service {service} yet")),
        Some(false) => Some(may_not_serve(plan, identity, service)),
        Some(true) => {
            let (problem, _) = problem(plan, identity, service, port, address);
            (!problem.is_empty()).then_some(problem)
        }
    }
}

/// Names the identities that may serve it, and the remedies.
fn may_not_serve(plan: &Plan, identity: &SpiffeId, service: &ServiceName) -> String {
    let named = plan.servers(service);
    if named.is_empty() {
        return format!(
            "{identity} may not serve {service}, and no other identity may: name this one in spec.identities of the \
             Service"
        );
    }
    let mut who: Vec<String> = named
        .iter()
        .take(limits::PROVIDERS_NAMED_MAX)
        .map(ToString::to_string)
        .collect();
    if named.len() > limits::PROVIDERS_NAMED_MAX {
        who.push(format!(
            "{} more",
            named.len() - limits::PROVIDERS_NAMED_MAX
        ));
    }
    format!(
        "{identity} may not serve {service}, only {} may: start the sidecar with a token for such an \
         identity, or name this one in spec.identities of the Service",
        who.join(", ")
    )
}
