//! An HTTP/1.1 connection of a client: the application, or a caller without mutual TLS. hyper serves it while
//! requests come; between them only the socket is kept.
//!
//! hyper holds 16 KiB of buffers for as long as it serves a connection, and most connections are idle most of
//! the time. So after a burst hyper releases the connection, and a new hyper takes it when the next request
//! begins to come. The client notices nothing. Not here: how a request is served ([`super::request`]).

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, EXPECT};
use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1::{self, Builder};
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;

use super::connection::{Activity, Connection, arrive};
use super::intake::Turn;
use super::response_body::ResponseBody;
use super::{Requests, refusal};
use crate::http::fields;
use crate::limits;
use crate::stream::ApplicationStream;

const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// Serves a connection of which `first` was read already, to its end.
pub(crate) async fn serve<R: Requests>(
    client: R,
    mut stream: ApplicationStream,
    mut first: BytesMut,
) {
    let worker = Arc::clone(client.worker());
    let intake = &worker.shard.intake;
    loop {
        // Boxed, so that it takes no memory between bursts.
        let rest = Box::pin(requests(client.clone(), stream, first));
        let Some(rest) = rest.await else { return };
        (stream, first) = rest;
        if !first.is_empty() {
            continue;
        }
        let arrived = tokio::select! {
            // First, so that a request that is here already is seen before the connection ends.
            biased;
            arrived = arrive(&stream, &mut first, intake) => arrived,
            () = client.rest().cancelled() => return,
        };
        if !arrived.is_ok_and(|arrived| arrived) {
            return;
        }
    }
}

/// Serves a burst of requests. Returns the connection when it becomes idle, with the bytes that were read of
/// the next request.
async fn requests<R: Requests>(
    client: R,
    stream: ApplicationStream,
    first: BytesMut,
) -> Option<(ApplicationStream, BytesMut)> {
    let worker = client.worker();
    let patience = worker.shared.timeouts.request_headers;
    let connection = Connection::new(stream, first, Some(Turn::new(&worker.shard.intake)));
    // hyper reserves space for a request's future for as long as it serves.
    let of_requests = client.clone();
    let answer = move |request| Box::pin(answer(of_requests.clone(), request));
    match burst(connection, patience, client.rest(), answer).await {
        End::Rested(stream, unread) => Some((stream, unread)),
        End::Unreadable(what) => {
            what.refuse(&client, patience).await;
            None
        }
        End::Over => None,
    }
}

async fn answer<R: Requests>(
    client: R,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let finish = client.finish().clone();
    let version = request.version();
    let is_last = is_last(request.headers());
    let mut response = client.serve(request).await?;
    if is_last || finish.is_cancelled() {
        // RFC 9112 section 9.6: the last answer tells the client.
        response.headers_mut().insert(CONNECTION, CLOSE);
        // In HTTP/1.1 hyper would add `keep-alive` for a client of HTTP/1.0 that asked for it.
        *response.version_mut() = version;
    }
    Ok(response)
}

/// Whether nothing behind this request is read: with codings that are refused, others may see its end
/// elsewhere.
fn is_last(headers: &HeaderMap) -> bool {
    fields::has_other_coding(headers)
}

/// How a burst ends.
enum End {
    /// No request is under way. With the bytes that were read of the next one.
    Rested(ApplicationStream, BytesMut),
    /// A head cannot be parsed, and no answer was sent.
    Unreadable(Box<Unreadable>),
    /// The connection has ended.
    Over,
}

/// A connection with a head that cannot be parsed.
struct Unreadable {
    stream: ApplicationStream,
    /// The bytes that were read of the head.
    unread: Bytes,
    error: hyper::Error,
}

impl Unreadable {
    async fn refuse(self, client: &impl Requests, patience: Duration) {
        if let Some(failure) = refusal::reason(&self.error, &self.unread, patience) {
            refusal::refuse(client, self.stream, &self.unread, failure).await;
        }
    }
}

/// Serves requests until the connection ends (after those under way, once `end` is cancelled), or until it
/// has been idle for a while: then it is returned, with the bytes that were read of the next request.
async fn burst<A, R, B>(
    connection: Connection,
    patience: Duration,
    end: &CancellationToken,
    answer: A,
) -> End
where
    A: Fn(Request<Incoming>) -> R + Unpin,
    R: Future<Output = Result<Response<B>, Infallible>> + Unpin,
    B: Body + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let activity = connection.activity();
    let mut builder = Builder::new();
    builder
        .timer(connection.timer())
        // RFC 9112 section 9.6. The connection itself tells whether the client is still there.
        .half_close(true)
        .header_read_timeout(patience)
        .max_headers(limits::FIELDS_MAX)
        .max_buf_size(limits::HEAD_BYTES_MAX);
    let service = service_fn({
        let activity = Arc::clone(&activity);
        move |mut request: Request<Incoming>| {
            activity.request();
            if request.headers().contains_key(EXPECT) {
                let activity = Arc::clone(&activity);
                request.extensions_mut().insert(activity);
            }
            answer(request)
        }
    });
    let mut connection = builder.serve_connection(TokioIo::new(connection), service);
    let rested = tokio::select! {
        // First, as in `serve`.
        biased;
        ended = &mut connection => return over(ended, connection, &activity),
        () = end.cancelled() => false,
        () = activity.rested(limits::BUFFERS_KEPT) => true,
    };
    Pin::new(&mut connection).graceful_shutdown();
    if rested {
        // No request is under way and everything is written, so the connection ends at once, without notice
        // to the client.
        match poll_fn(|cx| Poll::Ready(connection.poll_without_shutdown(cx))).await {
            Poll::Ready(Ok(())) => {
                let parts = connection.into_parts();
                let unread = BytesMut::from(&*parts.read_buf);
                return End::Rested(parts.io.into_inner().into_stream(), unread);
            }
            Poll::Ready(Err(_)) => return End::Over,
            Poll::Pending => {}
        }
    }
    let ended = (&mut connection).await;
    over(ended, connection, &activity)
}

/// Why hyper ended a connection.
fn over<S, B>(
    ended: hyper::Result<()>,
    connection: http1::Connection<TokioIo<Connection>, S>,
    activity: &Activity,
) -> End
where
    S: HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match ended {
        // If a request was under way, its record has reported the failure.
        Err(error) if !activity.is_under_way() => {
            let parts = connection.into_parts();
            End::Unreadable(Box::new(Unreadable {
                stream: parts.io.into_inner().into_stream(),
                unread: parts.read_buf,
                error,
            }))
        }
        Ok(()) | Err(_) => End::Over,
    }
}

#[cfg(test)]
mod fuzz_tests;

#[cfg(test)]
mod tests {
    use http_body_util::Full;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixStream;
    use tokio::task::JoinHandle;

    use super::*;

    const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    const PATIENCE: Duration = Duration::from_secs(10);

    /// A burst on one end of a connection, whose answers take this long and have this size.
    fn begin(stream: UnixStream, first: BytesMut, took: Duration, size: usize) -> JoinHandle<End> {
        let answer = move |_| {
            Box::pin(async move {
                tokio::time::sleep(took).await;
                Ok(Response::new(Full::new(Bytes::from(vec![b'x'; size]))))
            })
        };
        let stream = ApplicationStream::Unix(stream);
        #[expect(clippy::disallowed_methods, reason = "a test waits for it itself")]
        tokio::spawn(async move {
            let end = CancellationToken::new();
            let connection = Connection::new(stream, first, None);
            burst(connection, PATIENCE, &end, answer).await
        })
    }

    async fn rested(burst: JoinHandle<End>) -> (ApplicationStream, BytesMut) {
        match burst.await.unwrap() {
            End::Rested(stream, unread) => (stream, unread),
            End::Unreadable(what) => panic!("{}", what.error),
            End::Over => panic!("the connection is over"),
        }
    }

    async fn answer(client: &mut UnixStream) {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\nx") {
            client.read_buf(&mut bytes).await.unwrap();
        }
        assert!(bytes.starts_with(b"HTTP/1.1 200 OK"), "{bytes:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_rests_comes_back_and_serves_the_next_request() {
        let (mut client, server) = UnixStream::pair().unwrap();
        let burst = begin(server, BytesMut::from(GET), Duration::ZERO, 1);
        answer(&mut client).await;
        let (stream, unread) = rested(burst).await;
        assert!(unread.is_empty());
        let ApplicationStream::Unix(server) = stream else {
            panic!("the stream is another one");
        };
        client.write_all(GET).await.unwrap();
        let burst = begin(server, unread, Duration::ZERO, 1);
        answer(&mut client).await;
        drop(client);
        assert!(matches!(burst.await.unwrap(), End::Over));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_under_way_is_no_rest_however_long_it_takes() {
        for head in [GET.to_vec(), [GET, GET].concat()] {
            let (mut client, server) = UnixStream::pair().unwrap();
            let long = limits::BUFFERS_KEPT * 20;
            let burst = begin(server, BytesMut::from(&*head), long, 1);
            for _ in 0..head.len() / GET.len() {
                answer(&mut client).await;
            }
            rested(burst).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_head_that_came_with_a_request_is_given_back() {
        let (mut client, server) = UnixStream::pair().unwrap();
        let first = BytesMut::from(&*[GET, b"GET /n"].concat());
        let burst = begin(server, first, Duration::ZERO, 1);
        answer(&mut client).await;
        let (_, unread) = rested(burst).await;
        assert_eq!(&*unread, b"GET /n");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_the_client_has_no_room_for_is_no_rest() {
        let (mut client, server) = UnixStream::pair().unwrap();
        let size = 16 << 20;
        let burst = begin(server, BytesMut::from(GET), Duration::ZERO, size);
        tokio::time::sleep(limits::BUFFERS_KEPT * 20).await;
        assert!(!burst.is_finished());
        let mut bytes = vec![0; size];
        client.read_exact(&mut bytes).await.unwrap();
        rested(burst).await;
    }
}
