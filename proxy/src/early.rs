//! The admin endpoint of a sidecar that has no identity yet. It reports that the process is alive, and for
//! which event the process waits.
//!
//! All other paths of the endpoint need a running sidecar (`admin.rs`).

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONNECTION;
use axum::response::IntoResponse;
use axum::routing::get;
use futures_util::future::join_all;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use weft_config::settings::ProxyAdmin;

use crate::admin::server::Endpoint;
use crate::run::RunError;
use crate::run::admin::Bound;

/// Answers at the addresses of the admin endpoint from the moment at which the sidecar has to wait, until it
/// is dropped. `waiting` names the reason; it is empty while there is none. The state directory must be this
/// process's own.
pub async fn answer_while_waiting(
    settings: &ProxyAdmin,
    mut waiting: watch::Receiver<String>,
) -> Infallible {
    if waiting.wait_for(|what| !what.is_empty()).await.is_err() {
        return pending().await;
    }
    // A socket that cannot be bound here is reported as an error once the sidecar itself binds it.
    match endpoints(settings, &router(waiting)) {
        Ok(endpoints) => {
            let stop = CancellationToken::new();
            let all = endpoints.into_iter();
            join_all(all.map(|(endpoint, router)| endpoint.serve(router, stop.clone()))).await;
        }
        Err(error) => tracing::warn!(%error, "nothing answers while this sidecar waits"),
    }
    pending().await
}

fn endpoints(settings: &ProxyAdmin, router: &Router) -> Result<Vec<(Endpoint, Router)>, RunError> {
    let bound = Bound::bind(settings, None)?;
    if let Some(opening) = bound.opening() {
        opening.open()?;
    }
    Ok(bound.endpoints(|_| router.clone())?)
}

fn router(waiting: watch::Receiver<String>) -> Router {
    let waiting = Arc::new(waiting);
    let not_ready = move || {
        let what = waiting.borrow().clone();
        // The next request of this client is for the sidecar once it runs.
        let close = [(CONNECTION, "close")];
        let said = format!("not ready: waiting for {what}\n");
        std::future::ready((StatusCode::SERVICE_UNAVAILABLE, close, said).into_response())
    };
    let live = || std::future::ready(([(CONNECTION, "close")], "live\n"));
    Router::new().route("/live", get(live)).fallback(not_ready)
}
