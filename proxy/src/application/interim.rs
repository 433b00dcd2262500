//! Interim responses (1xx) of an application on their way to its caller, in whichever HTTP version. Only
//! callers that wait for them, or may understand them, pay for that. The caller's sidecar handles them in
//! `outbound/attempt.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{HeaderMap, Request, Response, StatusCode};
use tokio::sync::mpsc;
use weft_transport::wire::Responder;

use super::body::{Moved, RequestBody};
use crate::failure::Failure;
use crate::http::{fields, response};
use crate::limits;
use crate::transport_failure::send_failure;

/// Takes those to one request.
pub(crate) struct Interims {
    queue: mpsc::Sender<Response<()>>,
    /// How many more there may be.
    left: AtomicUsize,
}

/// Interim responses that are not passed on yet.
pub(crate) struct Queue(mpsc::Receiver<Response<()>>);

impl Interims {
    /// None came yet.
    pub(crate) fn new() -> (Self, Queue) {
        let (queue, heads) = mpsc::channel(limits::INFORMATIONAL_MAX);
        let left = AtomicUsize::new(limits::INFORMATIONAL_MAX);
        (Self { queue, left }, Queue(heads))
    }

    /// An interim response came. It is dropped if it is beyond the limit, or if peers would refuse its
    /// fields: a caller can do without it.
    pub(crate) fn came(&self, status: StatusCode, headers: &HeaderMap) {
        if headers.len() > limits::FIELDS_MAX || !fields::fit(headers) {
            return;
        }
        let one_less = |left: usize| left.checked_sub(1);
        let order = Ordering::Relaxed;
        if self.left.fetch_update(order, order, one_less).is_err() {
            return;
        }
        let mut response = Response::new(());
        *response.status_mut() = status;
        response.headers_mut().clone_from(headers);
        // There is room for all that may come.
        let _ = self.queue.try_send(response);
    }
}

impl Queue {
    /// Passes on interim responses until no more can come. Cancel-safe.
    pub(crate) async fn forward(&mut self, respond: &mut Responder) -> Result<(), Failure> {
        while let Some(interim) = self.0.recv().await {
            tell(interim, respond).await?;
        }
        Ok(())
    }

    /// Passes on interim responses that came together with the answer.
    pub(crate) async fn forward_rest(&mut self, respond: &mut Responder) -> Result<(), Failure> {
        while let Ok(interim) = self.0.try_recv() {
            tell(interim, respond).await?;
        }
        Ok(())
    }
}

async fn tell(interim: Response<()>, respond: &mut Responder) -> Result<(), Failure> {
    let (mut interim, ()) = interim.into_parts();
    fields::strip(&mut interim.headers);
    let told = respond.informational(&interim).await;
    told.map_err(|error| send_failure(&error))
}

/// Judges the interim responses to a request of HTTP/1.1, and takes them if they are wanted.
pub(crate) fn listen(request: &mut Request<RequestBody>, wanted: Option<Arc<Interims>>) {
    let moved = request.body().moved().cloned();
    hyper::ext::on_informational(request, move |interim| {
        judge(moved.as_deref(), interim.headers());
        if let Some(wanted) = &wanted {
            wanted.came(interim.status(), interim.headers());
        }
    });
}

fn judge(moved: Option<&Moved>, headers: &HeaderMap) {
    if let Some(moved) = moved
        && response::interim_declares_content(headers)
    {
        moved.interim_declared_content();
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn as_many_are_taken_as_a_peer_takes_and_none_that_it_would_refuse() {
        let (interims, mut queue) = Interims::new();
        let mut large = HeaderMap::new();
        let value = HeaderValue::try_from("x".repeat(limits::HEAD_BYTES_MAX)).unwrap();
        large.insert("link", value);
        interims.came(StatusCode::EARLY_HINTS, &large);
        let mut taken = 0;
        for _ in 0..limits::INFORMATIONAL_MAX * 2 {
            interims.came(StatusCode::EARLY_HINTS, &HeaderMap::new());
            // Interim responses that were passed on leave no room for more, because the peer counts all of
            // them.
            taken += usize::from(queue.0.try_recv().is_ok());
        }
        assert_eq!(taken, limits::INFORMATIONAL_MAX);
    }
}
