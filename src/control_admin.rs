//! The admin endpoint of a control-plane process: `/live`, `/ready` and `/metrics` in the text format of
//! Prometheus. Off unless an address is given. Read-only, and nothing on it is secret.
//!
//! The sidecar's larger endpoint is `proxy/src/admin.rs`; the same rule decides which callers get an answer.

use std::sync::Arc;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use tokio_util::sync::CancellationToken;
use weft_config::settings::raw::RawAdmin;
use weft_config::settings::{ListenAddress, Observe};
use weft_proxy::AdminEndpoint;
use weft_transport::hosts;
use weft_transport::metrics::{Page, Sample};

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

    /// Serves the results of `samples` and `concerns` at each request, until `shutdown`. A concern is a
    /// condition that an operator should look into although it stops nothing.
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
        // The endpoint is served from the moment at which the process serves, so it is ready when it answers.
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
                    let mut page = Page::new();
                    page.samples(&[samples(), process_metrics::samples()].concat());
                    ([(CONTENT_TYPE, Page::CONTENT_TYPE)], page.finish())
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
