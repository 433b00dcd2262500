//! The admin endpoint of a control-plane process: `/live`, `/ready` and `/metrics` in the text format of
//! Prometheus. Off unless an address is given. Read-only, and nothing on it is secret.
//!
//! The sidecar's richer one is `proxy/src/admin.rs`; who is answered is decided by the same rule.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use tokio_util::sync::CancellationToken;
use weft_ca::metrics::Sample;
use weft_config::settings::raw::RawAdmin;
use weft_config::settings::{ListenAddress, Observe};
use weft_proxy::AdminEndpoint;
use weft_transport::hosts;

use crate::failure::{Code, Failure};
use crate::process_metrics;

/// A bound endpoint, or none when no setting asks for one.
pub struct ControlAdmin(Option<AdminEndpoint>);

impl ControlAdmin {
    /// Binds the address of `--admin` or `admin.listen`.
    pub fn bind(settings: Option<Observe>) -> Result<Self, Failure> {
        let Some(Observe { listen, hosts }) = settings else {
            return Ok(Self(None));
        };
        let endpoint =
            hosts::listen(listen).and_then(|listener| AdminEndpoint::control(listener, hosts));
        let endpoint = endpoint.map_err(|error| {
            Failure::new(Code::Failed, format!("admin.listen {listen}: {error}"))
        })?;
        Ok(Self(Some(endpoint)))
    }

    /// Serves what `samples` and `concerns` say at each request, until `shutdown`. A concern is what an operator
    /// should look after although it stops nothing.
    pub async fn serve(
        self,
        samples: impl Fn() -> Vec<Sample> + Send + Sync + 'static,
        concerns: impl Fn() -> Vec<String> + Clone + Send + Sync + 'static,
        shutdown: CancellationToken,
    ) {
        let Some(endpoint) = self.0 else {
            return;
        };
        let samples = Arc::new(samples);
        // It is served from the moment at which the process serves, so it is ready when it answers.
        let router = Router::new()
            .route("/live", get(async || "live\n"))
            .route(
                "/ready",
                get(async move || match concerns().join("; ") {
                    concerns if concerns.is_empty() => "ready\n".to_owned(),
                    concerns => format!("ready, but {concerns}\n"),
                }),
            )
            .route(
                "/metrics",
                get(async move || {
                    let format = "text/plain; version=0.0.4; charset=utf-8";
                    let text = page(&samples()) + &process_metrics::exposition();
                    ([(CONTENT_TYPE, format)], text)
                }),
            );
        endpoint.serve(router, shutdown).await;
    }
}

/// `--admin` as a layer of settings.
pub fn raw_admin(address: Option<ListenAddress>) -> Option<RawAdmin> {
    Some(RawAdmin {
        listen: Some(address?),
        hosts: None,
    })
}

/// The samples as text; those of one name stand together.
pub fn page(samples: &[Sample]) -> String {
    let mut page = String::new();
    let mut last = "";
    for sample in samples {
        let Sample {
            name, help, value, ..
        } = sample;
        if *name != last {
            let kind = if sample.is_counter {
                "counter"
            } else {
                "gauge"
            };
            // Writing to a String cannot fail.
            let _ = write!(page, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
            last = name;
        }
        let _ = match sample.label {
            Some((label, text)) => writeln!(page, "{name}{{{label}=\"{text}\"}} {value}"),
            None => writeln!(page, "{name} {value}"),
        };
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_explained_once_for_all_its_labels() {
        let sample = |label, value| Sample {
            name: "weft_ca_refused_total",
            help: "Requests refused, by reason.",
            is_counter: true,
            label: Some(("reason", label)),
            value,
        };
        assert_eq!(
            page(&[sample("token_used", 2), sample("csr", 0)]),
            "# HELP weft_ca_refused_total Requests refused, by reason.\n\
             # TYPE weft_ca_refused_total counter\n\
             weft_ca_refused_total{reason=\"token_used\"} 2\n\
             weft_ca_refused_total{reason=\"csr\"} 0\n"
        );
    }
}
