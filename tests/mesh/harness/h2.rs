//! HTTP/2 without TLS: an application whose streams a test answers in any way, and a client.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::client::texts;
use super::origin::Seen;

/// How an application treats one stream.
pub(crate) type Answering = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A listening application; it and its connections end when it is dropped.
pub(crate) struct Http2 {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    ended: Option<oneshot::Sender<()>>,
}

impl Http2 {
    /// Allows `streams` at once on each connection and serves each by `answer`.
    pub(crate) fn start<F>(address: Ipv4Addr, streams: u32, answer: F) -> Self
    where
        F: Fn(Request<RecvStream>, SendResponse<Bytes>) -> Answering + Send + Sync + 'static,
    {
        let listener = std::net::TcpListener::bind((address, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let (ended, end) = oneshot::channel();
        let (count, answer) = (Arc::clone(&connections), Arc::new(answer));
        thread::spawn(move || {
            runtime().block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                let mut serving = JoinSet::new();
                let accept = async {
                    while let Ok((stream, _)) = listener.accept().await {
                        count.fetch_add(1, Ordering::Relaxed);
                        serving.spawn(serve(stream, streams, Arc::clone(&answer)));
                    }
                };
                tokio::select! {
                    () = accept => {}
                    _ = end => {}
                }
            });
        });
        Self {
            address,
            connections,
            ended: Some(ended),
        }
    }

    /// Records each request when it is complete, and answers it with the result of `answer`.
    pub(crate) fn recording<F>(address: Ipv4Addr, answer: F) -> (Self, Arc<Mutex<Vec<Seen>>>)
    where
        F: Fn(&Seen) -> Answer + Send + Sync + 'static,
    {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (record, answer) = (Arc::clone(&requests), Arc::new(answer));
        let started = Self::start(address, 100, move |request, respond| {
            let (record, answer) = (Arc::clone(&record), Arc::clone(&answer));
            Box::pin(async move {
                // The test sees at the other side how a stream ends.
                if let Ok(seen) = read_request(request).await {
                    let answer = answer(&seen);
                    record.lock().unwrap().push(seen);
                    let _ = answer.write(respond);
                }
            })
        });
        (started, requests)
    }

    /// How many connections were ever made to it.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// A response of an application.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) interim: Vec<Response<()>>,
    pub(crate) head: Response<()>,
    /// Pieces of content; none at all if the end is said with the head.
    pub(crate) pieces: Vec<&'static str>,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Answer {
    fn write(self, mut respond: SendResponse<Bytes>) -> Result<(), h2::Error> {
        for interim in self.interim {
            respond.send_informational(interim)?;
        }
        let end = self.pieces.is_empty() && self.trailers.is_none();
        let mut stream = respond.send_response(self.head, end)?;
        let mut pieces = self.pieces.into_iter().peekable();
        while let Some(piece) = pieces.next() {
            let last = pieces.peek().is_none() && self.trailers.is_none();
            stream.send_data(Bytes::from_static(piece.as_bytes()), last)?;
        }
        match self.trailers {
            Some(trailers) => stream.send_trailers(trailers),
            None => Ok(()),
        }
    }
}

async fn read_request(request: Request<RecvStream>) -> Result<Seen, h2::Error> {
    let (head, mut body) = request.into_parts();
    let path = head.uri.path_and_query().map_or("", |path| path.as_str());
    let mut seen = Seen {
        line: format!("{} {path} HTTP/2.0", head.method),
        headers: texts(&head.headers),
        ends_with_head: body.is_end_stream(),
        ..Seen::default()
    };
    while let Some(piece) = body.data().await {
        let piece = piece?;
        let _ = body.flow_control().release_capacity(piece.len());
        seen.body.extend_from_slice(&piece);
    }
    seen.trailers = texts(&body.trailers().await?.unwrap_or_default());
    Ok(seen)
}

impl Drop for Http2 {
    fn drop(&mut self) {
        if let Some(ended) = self.ended.take() {
            let _ = ended.send(());
        }
    }
}

async fn serve<F>(stream: TcpStream, streams: u32, answer: Arc<F>)
where
    F: Fn(Request<RecvStream>, SendResponse<Bytes>) -> Answering,
{
    let _ = stream.set_nodelay(true);
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(streams);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else {
        return;
    };
    let mut answering = JoinSet::new();
    while let Some(Ok((request, respond))) = connection.accept().await {
        answering.spawn(answer(request, respond));
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// A client with connections of its own.
pub(crate) struct Streams {
    runtime: Runtime,
    _driving: JoinSet<()>,
    senders: Vec<SendRequest<Bytes>>,
}

/// A call under way, or over.
pub(crate) struct Call {
    pub(crate) response: Response<RecvStream>,
    /// The request goes on until this is dropped.
    pub(crate) _request: SendStream<Bytes>,
}

impl Streams {
    /// This many connections to `address`.
    pub(crate) fn open(address: SocketAddr, connections: usize) -> Self {
        let runtime = runtime();
        let mut driving = JoinSet::new();
        let senders = runtime.block_on(async {
            let mut senders = Vec::new();
            for _ in 0..connections {
                let stream = TcpStream::connect(address).await.unwrap();
                let (sender, connection) = h2::client::handshake(stream).await.unwrap();
                driving.spawn(async move { drop(connection.await) });
                senders.push(sender);
            }
            senders
        });
        Self {
            runtime,
            _driving: driving,
            senders,
        }
    }

    /// Makes gRPC calls with a body of 32 bytes, this many `at_once` over all connections, and reads their
    /// answers.
    pub(crate) fn unary(&self, path: &'static str, calls: usize, at_once: usize) -> Vec<Outcome> {
        self.runtime.block_on(async {
            let (mut under_way, mut outcomes) = (JoinSet::new(), Vec::new());
            for index in 0..calls {
                if under_way.len() >= at_once {
                    outcomes.push(under_way.join_next().await.unwrap().unwrap());
                }
                let sender = self.senders[index % self.senders.len()].clone();
                under_way.spawn(async move { finish(call(sender, path, true).await).await });
            }
            while let Some(outcome) = under_way.join_next().await {
                outcomes.push(outcome.unwrap());
            }
            outcomes
        })
    }

    /// Begins calls whose requests do not end, all at once, and gives those whose answers begin or end within
    /// [`PATIENCE`].
    pub(crate) fn begin(&self, path: &'static str, calls: usize) -> Vec<Call> {
        self.runtime.block_on(async {
            let mut under_way = JoinSet::new();
            for index in 0..calls {
                let sender = self.senders[index % self.senders.len()].clone();
                under_way.spawn(call(sender, path, false));
            }
            under_way.join_all().await.into_iter().flatten().collect()
        })
    }

    /// Sends a request with all of its declared length and without its end. Gives the status of the whole
    /// answer, and whether the stream was reset within `patience` after it. Then the request ends.
    pub(crate) fn without_end(&self, patience: Duration) -> (u16, bool) {
        self.runtime.block_on(async {
            let request = Request::post("http://echo/")
                .header("content-length", "32")
                .body(())
                .unwrap();
            let mut sender = self.senders[0].clone().ready().await.unwrap();
            let (response, mut body) = sender.send_request(request, false).unwrap();
            body.send_data(Bytes::from_static(&[b'x'; 32]), false)
                .unwrap();
            let response = tokio::time::timeout(PATIENCE, response).await;
            let (head, mut content) = response.unwrap().unwrap().into_parts();
            while let Some(piece) = content.data().await {
                piece.unwrap();
            }
            let reset = std::future::poll_fn(|cx| body.poll_reset(cx));
            let reset = tokio::time::timeout(patience, reset).await.is_ok();
            let _ = body.send_data(Bytes::new(), true);
            (head.status.as_u16(), reset)
        })
    }

    /// Reads the rest of an answer.
    pub(crate) fn finish(&self, call: Call) -> Outcome {
        self.runtime.block_on(finish(Ok(call)))
    }
}

/// How long a call waits for its answer to begin.
const PATIENCE: Duration = Duration::from_secs(20);

/// How a call ended.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) status: u16,
    /// `grpc-status`, of the head or the trailers.
    pub(crate) grpc: Option<String>,
    pub(crate) proxy_status: Option<String>,
    pub(crate) body: Vec<u8>,
    /// Why there was no end.
    pub(crate) broken: Option<String>,
}

impl Outcome {
    /// It has an answer of the application's own, to its end.
    pub(crate) fn is_good(&self) -> bool {
        let code = self.grpc.as_deref().unwrap_or("0");
        self.status == 200 && code == "0" && self.broken.is_none()
    }
}

async fn call(sender: SendRequest<Bytes>, path: &str, end: bool) -> Result<Call, String> {
    let called = async {
        let request = Request::post(format!("http://echo{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let mut sender = sender.ready().await?;
        let (response, mut body) = sender.send_request(request, false)?;
        body.send_data(Bytes::from_static(&[b'x'; 32]), end)?;
        Ok(Call {
            response: response.await?,
            _request: body,
        })
    };
    match tokio::time::timeout(PATIENCE, called).await {
        Ok(outcome) => outcome.map_err(|error: h2::Error| error.to_string()),
        Err(_) => Err("no answer in time".into()),
    }
}

async fn finish(call: Result<Call, String>) -> Outcome {
    let call = match call {
        Ok(call) => call,
        Err(broken) => {
            return Outcome {
                broken: Some(broken),
                ..Outcome::default()
            };
        }
    };
    let (head, mut body) = call.response.into_parts();
    let text = |headers: &http::HeaderMap, name: &str| {
        let value = headers.get(name)?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let mut outcome = Outcome {
        status: head.status.as_u16(),
        grpc: text(&head.headers, "grpc-status"),
        proxy_status: text(&head.headers, "proxy-status"),
        ..Outcome::default()
    };
    while let Some(piece) = body.data().await {
        match piece {
            Ok(piece) => {
                let _ = body.flow_control().release_capacity(piece.len());
                outcome.body.extend_from_slice(&piece);
            }
            Err(error) => {
                outcome.broken = Some(error.to_string());
                return outcome;
            }
        }
    }
    match body.trailers().await {
        Ok(Some(trailers)) => outcome.grpc = text(&trailers, "grpc-status").or(outcome.grpc),
        Ok(None) => {}
        Err(error) => outcome.broken = Some(error.to_string()),
    }
    outcome
}
