//! The admin endpoint of a sidecar that has no identity yet: it lives, and says what it waits for.
//!
//! Everything else that the endpoint knows needs a sidecar that runs (`admin.rs`).

use std::convert::Infallible;
use std::future::{IntoFuture, pending};
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONNECTION;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::sync::watch;

use crate::run::bind;

/// Answers on the admin address from the moment at which there is something to wait for, until it is dropped.
/// `waiting` is what is waited for; empty as long as that is nothing.
pub async fn answer_while_waiting(
    address: SocketAddr,
    mut waiting: watch::Receiver<String>,
) -> Infallible {
    if waiting.wait_for(|what| !what.is_empty()).await.is_err() {
        return pending().await;
    }
    // An address that cannot be had is an error once there is a sidecar to serve there.
    match bind::admin(address, None) {
        Ok(listener) => {
            let served = axum::serve(listener, router(waiting)).into_future().await;
            if let Err(error) = served {
                tracing::error!(%error, "the admin endpoint ended");
            }
        }
        Err(error) => tracing::warn!(%error, "nothing answers while this sidecar waits"),
    }
    pending().await
}

fn router(waiting: watch::Receiver<String>) -> Router {
    let waiting = Arc::new(waiting);
    let not_ready = move || {
        let what = waiting.borrow().clone();
        // The next request of this client is for the sidecar that runs.
        let close = [(CONNECTION, "close")];
        let said = format!("not ready: waiting for {what}\n");
        std::future::ready((StatusCode::SERVICE_UNAVAILABLE, close, said).into_response())
    };
    let live = || std::future::ready(([(CONNECTION, "close")], "live\n"));
    Router::new().route("/live", get(live)).fallback(not_ready)
}
