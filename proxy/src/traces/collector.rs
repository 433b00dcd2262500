//! The way to a collector: OTLP over gRPC, or over HTTP/1.1 with protobuf, in the clear or over TLS. What an
//! answer means is in [`super::answer`], when something is sent in [`super::export`].

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::{Buf as _, BufMut as _, Bytes};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Fuse};
use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::either::Either;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use weft_config::settings::{OtlpProtocol, Traces};
use weft_config::table::ExternalTls;
use weft_transport::external::TlsClientStream;
use weft_transport::hosts;

use super::answer::{self, Answer};
use crate::limits;
use crate::outside::Tls;

const METHOD: PathAndQuery =
    PathAndQuery::from_static("/opentelemetry.proto.collector.trace.v1.TraceService/Export");
const AGENT: HeaderValue = HeaderValue::from_static(concat!("weft/", env!("CARGO_PKG_VERSION")));

type Stream = TokioIo<Either<TcpStream, Box<TlsClientStream>>>;

/// See the module's documentation.
pub(super) struct Collector {
    settings: Traces,
    dial: Arc<Dial>,
    way: Way,
}

/// How a connection is made.
struct Dial {
    address: String,
    tls: Option<Tls>,
}

enum Way {
    /// Connects when it is needed, and again after a loss.
    Grpc(Grpc<Channel>),
    /// The connection, if there is one.
    Http(Option<Http>),
}

/// A connection of HTTP/1.1. It moves only while something is asked.
struct Http {
    sender: SendRequest<Full<Bytes>>,
    connection: Fuse<BoxFuture<'static, ()>>,
}

impl Collector {
    /// Connects to nothing yet.
    pub(super) fn new(settings: &Traces) -> Self {
        let file = settings.certificate.as_ref();
        let tls = settings.is_secure.then(|| {
            Tls::new(ExternalTls {
                server_name: settings.collector.host.clone(),
                roots: file.map(|file| file.to_string_lossy().into_owned()),
                certificate: None,
            })
        });
        let address = settings.collector.to_string();
        let dial = Arc::new(Dial { address, tls });
        let way = match settings.protocol {
            OtlpProtocol::Grpc => Way::Grpc(grpc(settings, &dial)),
            OtlpProtocol::Http => Way::Http(None),
        };
        Self {
            settings: settings.clone(),
            dial,
            way,
        }
    }

    /// Sends one export, and waits for its answer as long as the settings say.
    pub(super) async fn send(&mut self, export: Bytes) -> Answer {
        let timeout = self.settings.timeout;
        let answered = tokio::time::timeout(timeout, self.ask(export)).await;
        answered.unwrap_or_else(|_| {
            if let Way::Http(connection) = &mut self.way {
                *connection = None;
            }
            Answer::Later(None, "no answer in time".to_owned())
        })
    }

    async fn ask(&mut self, export: Bytes) -> Answer {
        let connection = match &mut self.way {
            Way::Grpc(client) => return ask_grpc(client, &self.settings, export).await,
            Way::Http(connection) => connection,
        };
        let kept = connection.take().and_then(Http::if_open);
        let is_kept = kept.is_some();
        let first = async {
            let mut http = match kept {
                Some(http) => http,
                None => Http::connect(&self.dial).await?,
            };
            let answer = http.ask(&self.settings, export.clone()).await?;
            io::Result::Ok((http, answer))
        };
        let outcome = match first.await {
            // The collector may have closed a connection that was idle.
            Err(_) if is_kept => {
                async {
                    let mut http = Http::connect(&self.dial).await?;
                    let answer = http.ask(&self.settings, export).await?;
                    io::Result::Ok((http, answer))
                }
                .await
            }
            outcome => outcome,
        };
        match outcome {
            Ok((http, answer)) => {
                *connection = Some(http);
                answer
            }
            Err(error) => Answer::Later(None, error.to_string()),
        }
    }
}

impl Dial {
    async fn connect(&self, alpn: &'static [u8]) -> io::Result<Stream> {
        let stream = hosts::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        let stream = match &self.tls {
            None => Either::Left(stream),
            Some(tls) => {
                let secured = tls.client(alpn).await?.connect(stream).await?;
                Either::Right(Box::new(secured))
            }
        };
        Ok(TokioIo::new(stream))
    }
}

fn grpc(settings: &Traces, dial: &Arc<Dial>) -> Grpc<Channel> {
    let scheme = if settings.is_secure { "https" } else { "http" };
    let written = format!("{scheme}://{}", dial.address);
    // The connector makes the connection, TLS included.
    let endpoint = Endpoint::from_static("http://collector.invalid");
    let endpoint = match written.parse::<Uri>() {
        Ok(origin) => endpoint.origin(origin),
        Err(_) => endpoint,
    };
    let dial = Arc::clone(dial);
    let connector = tower::service_fn(move |_: Uri| {
        let dial = Arc::clone(&dial);
        async move { dial.connect(b"h2").await }
    });
    let channel = endpoint.connect_with_connector_lazy(connector);
    Grpc::new(channel).max_decoding_message_size(limits::EXPORT_ANSWER_BYTES_MAX)
}

async fn ask_grpc(client: &mut Grpc<Channel>, settings: &Traces, export: Bytes) -> Answer {
    if let Err(error) = client.ready().await {
        return Answer::Later(None, error.to_string());
    }
    let mut request = tonic::Request::new(export);
    let headers: HeaderMap = settings.headers.iter().cloned().collect();
    *request.metadata_mut() = tonic::metadata::MetadataMap::from_headers(headers);
    match client.unary(request, METHOD, Raw).await {
        Ok(response) => answer::of_success(response.get_ref()),
        Err(status) => answer::of_grpc(status.code().into(), status.message(), status.details()),
    }
}

impl Http {
    async fn connect(dial: &Dial) -> io::Result<Self> {
        let stream = dial.connect(b"http/1.1").await?;
        let (sender, connection) = http1::handshake(stream).await.map_err(io::Error::other)?;
        Ok(Self {
            sender,
            connection: connection.map(drop).boxed().fuse(),
        })
    }

    /// The same, if the collector left it open as far as is known.
    fn if_open(mut self) -> Option<Self> {
        // Polled to hear of the end.
        let _ = (&mut self.connection).now_or_never();
        self.sender.is_ready().then_some(self)
    }

    async fn ask(&mut self, settings: &Traces, export: Bytes) -> io::Result<Answer> {
        let mut request = Request::new(Full::new(export));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = settings.path.parse().map_err(io::Error::other)?;
        let headers = request.headers_mut();
        let host = HeaderValue::from_str(&settings.collector.to_string());
        headers.insert(HOST, host.map_err(io::Error::other)?);
        headers.insert(USER_AGENT, AGENT);
        headers.extend(
            settings
                .headers
                .iter()
                .cloned()
                .map(|(name, value)| (Some(name), value)),
        );
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-protobuf"),
        );
        let mut asking = pin!(async {
            let response = self
                .sender
                .send_request(request)
                .await
                .map_err(io::Error::other)?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, limits::EXPORT_ANSWER_BYTES_MAX)
                .collect()
                .await;
            let body = body.map_err(io::Error::other)?.to_bytes();
            Ok(answer::of_http(
                head.status,
                &head.headers,
                &body,
                SystemTime::now(),
            ))
        });
        tokio::select! {
            biased;
            answered = &mut asking => return answered,
            () = &mut self.connection => {}
        }
        // It ended with the answer, or without one.
        asking.await
    }
}

/// Messages as bytes: what is sent is written already.
#[derive(Clone, Copy, Debug)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = tonic::Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), tonic::Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = tonic::Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, tonic::Status> {
        let mut message = vec![0; source.remaining()];
        source.copy_to_slice(&mut message);
        Ok(Some(message))
    }
}
