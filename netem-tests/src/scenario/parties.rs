//! Services and callers of a scenario, checked. Pure.

use std::collections::BTreeMap;

use super::check::Checker;
use super::raw::{RawCaller, RawEndpoint, RawService};
use super::{Application, Caller, Endpoint, Service, limits};

/// The services: those with sidecars of their own first, then those that share them.
pub(super) fn services(
    checker: &mut Checker<'_>,
    raw: BTreeMap<String, RawService>,
    hosts: &[String],
) -> Vec<Service> {
    let (beside, own): (Vec<_>, Vec<_>) =
        raw.into_iter().partition(|(_, raw)| raw.beside.is_some());
    let mut services: Vec<Service> = own
        .into_iter()
        .map(|(name, raw)| service(checker, name, raw, hosts))
        .collect();
    let known: Vec<String> = services
        .iter()
        .map(|service| service.name.clone())
        .collect();
    for (name, raw) in beside {
        let path = format!("services.{name}");
        checker.label(&path, &name);
        if raw.host.is_some() || !raw.endpoints.is_empty() {
            checker.problem(&path, "write one of `host`, `endpoints` and `beside`");
        }
        let target = raw.beside.unwrap_or_default();
        let kind = "service with sidecars of its own";
        checker.known(format!("{path}.beside"), kind, &target, &known);
        let shared = services.iter().find(|service| service.name == target);
        let shared = shared.map(|service| service.endpoints.as_slice());
        let endpoints = shared.unwrap_or_default().iter().map(|endpoint| Endpoint {
            name: endpoint.name.replacen(&target, &name, 1),
            host: endpoint.host.clone(),
            application: application(raw.serve.clone(), raw.command.clone()),
        });
        services.push(Service {
            endpoints: endpoints.collect(),
            name,
            protocol: raw.protocol.unwrap_or_default(),
            beside: Some(target),
        });
    }
    services
}

fn service(checker: &mut Checker<'_>, name: String, raw: RawService, hosts: &[String]) -> Service {
    let path = format!("services.{name}");
    checker.label(&path, &name);
    let mut written = raw.endpoints;
    match raw.host {
        Some(host) if written.is_empty() => {
            written.push(RawEndpoint {
                host,
                serve: raw.serve,
                command: raw.command,
            });
        }
        Some(_) => checker.problem(format!("{path}.host"), "write either `host` or `endpoints`"),
        None if written.is_empty() => {
            checker.problem(&path, "say where it is: `host: NAME`, or `beside: SERVICE`")
        }
        None if !raw.serve.is_empty() || !raw.command.is_empty() => {
            checker.problem(
                &path,
                "`serve` and `command` belong to each of the endpoints",
            );
        }
        None => {}
    }
    if written.len() > limits::ENDPOINTS_MAX {
        checker.problem(
            format!("{path}.endpoints"),
            format!("at most {} are allowed", limits::ENDPOINTS_MAX),
        );
    }
    let several = written.len() > 1;
    let endpoints = written
        .into_iter()
        .enumerate()
        .map(|(index, raw)| {
            let at = if several {
                format!("{path}.endpoints[{index}]")
            } else {
                path.clone()
            };
            checker.known(format!("{at}.host"), "host", &raw.host, hosts);
            if !raw.serve.is_empty() && !raw.command.is_empty() {
                checker.problem(format!("{at}.command"), "write either `serve` or `command`");
            }
            Endpoint {
                name: if several {
                    format!("{name}-{}", index + 1)
                } else {
                    name.clone()
                },
                host: raw.host,
                application: application(raw.serve, raw.command),
            }
        })
        .collect();
    Service {
        name,
        protocol: raw.protocol.unwrap_or_default(),
        beside: None,
        endpoints,
    }
}

fn application(serve: Vec<String>, command: Vec<String>) -> Application {
    if command.is_empty() {
        Application::BuiltIn(serve)
    } else {
        Application::Command(command)
    }
}

/// A caller.
pub(super) fn caller(
    checker: &mut Checker<'_>,
    name: String,
    raw: RawCaller,
    hosts: &[String],
    services: &[Service],
) -> Caller {
    let path = format!("callers.{name}");
    checker.label(&path, &name);
    checker.known(format!("{path}.host"), "host", &raw.host, hosts);
    let known: Vec<String> = services
        .iter()
        .map(|service| service.name.clone())
        .collect();
    for (index, service) in raw.calls.iter().enumerate() {
        checker.known(format!("{path}.calls[{index}]"), "service", service, &known);
    }
    Caller {
        name,
        host: raw.host,
        calls: raw.calls,
    }
}
