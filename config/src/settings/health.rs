//! `inbound.services[].health`: how a sidecar asks whether its application is able to serve, complete and
//! checked. `weft_proxy` asks. The form of the file is in `raw.rs`, the numbers are in `limits.rs`.

use std::num::NonZeroU32;
use std::time::Duration;

use super::error::Problem;
use super::limits;
use super::proxy::duration;
use super::raw::{CheckKind, RawHealth};
use super::values::LocalAddress;

/// How one application is asked, how often, and how many answers decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// Where it is asked.
    pub address: LocalAddress,
    /// What it is asked.
    pub question: Question,
    /// From the end of one check to the next, while all is well.
    pub interval: Duration,
    /// For one check, from the connection to the end of the answer.
    pub timeout: Duration,
    /// Good answers in a row that bring it in.
    pub healthy: NonZeroU32,
    /// Failed checks in a row that take it out.
    pub unhealthy: NonZeroU32,
    /// From the sidecar's start: until then checks may fail without a warning, as it is starting.
    pub grace: Duration,
}

/// What an application is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Whether it accepts a connection.
    Tcp,
    /// `GET` of this path and query over HTTP/1.1: 200 to 299 is good.
    Http {
        /// The target, as it stands in the request.
        path: String,
        /// The field `host`.
        host: String,
    },
    /// `grpc.health.v1.Health/Check` of this service over HTTP/2; empty asks for the whole server.
    Grpc {
        /// The name of the gRPC service.
        service: String,
    },
}

impl HealthCheck {
    /// The check of an application for which none is written: it accepts connections.
    pub fn connects(application: LocalAddress, timeout: Duration) -> Self {
        Self {
            address: application,
            question: Question::Tcp,
            interval: limits::HEALTH_INTERVAL,
            timeout,
            healthy: NonZeroU32::MIN,
            unhealthy: NonZeroU32::MIN,
            grace: Duration::ZERO,
        }
    }
}

/// Checks what is written under `field`.
pub(super) fn parse(
    raw: RawHealth,
    application: &LocalAddress,
    field: &str,
) -> Result<HealthCheck, Problem> {
    let key = |key: &str| format!("{field}.{key}");
    let address = address(raw.port, application, key("port"))?;
    let only = |given: bool, name: &str, kind: &str| match given {
        true => Err(Problem::new(
            key(name),
            format!("is for kind: {kind} only: leave it out, or write that kind"),
        )),
        false => Ok(()),
    };
    if raw.kind != CheckKind::Http {
        only(raw.path.is_some(), "path", "http")?;
        only(raw.host.is_some(), "host", "http")?;
    }
    if raw.kind != CheckKind::Grpc {
        only(raw.service.is_some(), "service", "grpc")?;
    }
    let (question, unhealthy) = match raw.kind {
        CheckKind::Tcp => (Question::Tcp, NonZeroU32::MIN),
        CheckKind::Http => {
            let path = raw.path.unwrap_or_else(|| "/".to_owned());
            check_path(&path, key("path"))?;
            let host = raw.host.unwrap_or_else(|| match &address {
                LocalAddress::Tcp(address) => address.to_string(),
                LocalAddress::Unix(_) => "localhost".to_owned(),
            });
            check_text(&host, key("host"))?;
            let question = Question::Http { path, host };
            (question, limits::HEALTH_UNHEALTHY)
        }
        CheckKind::Grpc => {
            let service = raw.service.unwrap_or_default();
            if service.len() > limits::HEALTH_TEXT_MAX {
                return Err(too_long(key("service")));
            }
            (Question::Grpc { service }, limits::HEALTH_UNHEALTHY)
        }
    };
    Ok(HealthCheck {
        address,
        question,
        interval: duration(
            &key("interval"),
            raw.interval,
            limits::HEALTH_INTERVAL,
            &limits::HEALTH_INTERVAL_RANGE,
        )?,
        timeout: duration(
            &key("timeout"),
            raw.timeout,
            limits::HEALTH_TIMEOUT,
            &limits::HEALTH_TIMEOUT_RANGE,
        )?,
        healthy: threshold(raw.healthy, NonZeroU32::MIN, key("healthy"))?,
        unhealthy: threshold(raw.unhealthy, unhealthy, key("unhealthy"))?,
        grace: duration(
            &key("grace"),
            raw.grace,
            Duration::ZERO,
            &limits::HEALTH_GRACE_RANGE,
        )?,
    })
}

fn address(
    port: Option<u16>,
    application: &LocalAddress,
    field: String,
) -> Result<LocalAddress, Problem> {
    match (port, application) {
        (None, _) => Ok(application.clone()),
        (Some(0), _) => Err(Problem::new(field, "is port 0: write 1 to 65535")),
        (Some(port), LocalAddress::Tcp(address)) => {
            Ok(LocalAddress::Tcp((address.ip(), port).into()))
        }
        (Some(_), LocalAddress::Unix(_)) => Err(Problem::new(
            field,
            "is for an application at IP:PORT: this one is a Unix socket, which is asked itself",
        )),
    }
}

/// Of the form `/path?query` of RFC 9112 section 3.2.1, which needs no further encoding.
fn check_path(path: &str, field: String) -> Result<(), Problem> {
    if path.len() > limits::HEALTH_TEXT_MAX {
        return Err(too_long(field));
    }
    let is_target = path.starts_with('/')
        && path
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'"' | b'<' | b'>'));
    match is_target {
        true => Ok(()),
        false => Err(Problem::new(
            field,
            "is not a path: write one that begins with /, percent-encoded and without #, as /healthz?full=1",
        )),
    }
}

fn check_text(host: &str, field: String) -> Result<(), Problem> {
    if host.len() > limits::HEALTH_TEXT_MAX {
        return Err(too_long(field));
    }
    match !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(()),
        false => Err(Problem::new(
            field,
            "is not a host: write a name or an address, with a port or without, as orders.internal",
        )),
    }
}

fn too_long(field: String) -> Problem {
    Problem::new(
        field,
        format!(
            "is longer than {} bytes: shorten it",
            limits::HEALTH_TEXT_MAX
        ),
    )
}

fn threshold(
    value: Option<u32>,
    default: NonZeroU32,
    field: String,
) -> Result<NonZeroU32, Problem> {
    let value = value.unwrap_or(default.get());
    let range = &limits::HEALTH_THRESHOLD;
    NonZeroU32::new(value)
        .filter(|value| range.contains(&value.get()))
        .ok_or_else(|| {
            Problem::new(
                field,
                format!(
                    "{value} is out of range: write {} to {}",
                    range.start(),
                    range.end()
                ),
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<HealthCheck, String> {
        of(text, "127.0.0.1:8080")
    }

    fn of(text: &str, application: &str) -> Result<HealthCheck, String> {
        let raw: RawHealth = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        parse(raw, &application.parse().unwrap(), "health")
            .map_err(|problem| format!("{}: {}", problem.field, problem.message))
    }

    #[test]
    fn what_is_left_out_has_the_default_of_its_kind() {
        let http = check("{ kind: http }").unwrap();
        let (path, host) = ("/".to_owned(), "127.0.0.1:8080".to_owned());
        assert_eq!(http.question, Question::Http { path, host });
        assert_eq!((http.healthy.get(), http.unhealthy.get()), (1, 3));
        assert_eq!(http.interval, Duration::from_secs(5));
        let tcp = check("{ kind: tcp, port: 9000 }").unwrap();
        assert_eq!(tcp.address, "127.0.0.1:9000".parse().unwrap());
        assert_eq!(tcp.unhealthy.get(), 1);
        let grpc = check("{ kind: grpc }").unwrap();
        let service = String::new();
        assert_eq!(grpc.question, Question::Grpc { service });
        let unix = of("{ kind: http }", "unix:/run/app.sock").unwrap();
        let Question::Http { host, .. } = unix.question else {
            panic!("{unix:?}");
        };
        assert_eq!(host, "localhost");
    }

    #[test]
    fn what_does_not_fit_is_refused_with_what_to_write() {
        for (text, said) in [
            (
                "{ kind: tcp, path: / }",
                "health.path: is for kind: http only",
            ),
            (
                "{ kind: http, service: a }",
                "health.service: is for kind: grpc only",
            ),
            (
                "{ kind: http, path: healthz }",
                "health.path: is not a path",
            ),
            (
                "{ kind: http, path: \"/a b\" }",
                "health.path: is not a path",
            ),
            (
                "{ kind: http, path: \"/a\\r\\nx: y\" }",
                "health.path: is not a path",
            ),
            (
                "{ kind: http, host: \"a b\" }",
                "health.host: is not a host",
            ),
            ("{ kind: http, port: 0 }", "health.port: is port 0"),
            (
                "{ kind: http, interval: 1ms }",
                "health.interval: 1ms is out of range: write 100ms to 1h",
            ),
            (
                "{ kind: http, timeout: 2m }",
                "health.timeout: 2m is out of range: write 10ms to 1m",
            ),
            (
                "{ kind: http, grace: 2h }",
                "health.grace: 2h is out of range: write 0s to 1h",
            ),
            (
                "{ kind: http, healthy: 0 }",
                "health.healthy: 0 is out of range: write 1 to 100",
            ),
            (
                "{ kind: http, unhealthy: 101 }",
                "health.unhealthy: 101 is out of range",
            ),
            ("{ kind: http, interval: 5 }", "unit"),
            ("{ kind: ping }", "ping"),
            ("{ path: / }", "kind"),
        ] {
            let refused = check(text).unwrap_err();
            assert!(refused.contains(said), "{text}: {refused}");
        }
        let unix = of("{ kind: tcp, port: 1 }", "unix:/run/app.sock").unwrap_err();
        assert!(unix.contains("a Unix socket"), "{unix}");
        let long = format!("{{ kind: grpc, service: {} }}", "a".repeat(1000));
        assert!(check(&long).unwrap_err().contains("longer than"));
    }
}
