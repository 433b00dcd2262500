//! One client for every version of HTTP, with each way to mark the end of a request. It returns an answer as
//! it came.

use std::io;
use std::io::Read as _;
use std::net::SocketAddr;

use bytes::Bytes;
use h2::SendStream;
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use super::http::{Connection, Response};

/// Of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Http10,
    Http11,
    /// With prior knowledge.
    Http2,
}

/// The content after a request's head, and how its end is marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// None, and not declared.
    None,
    /// With a length declared in advance.
    Sized(&'static str),
    /// In pieces, and the end marked last.
    Streamed(&'static [&'static str]),
    /// The same with this trailer.
    Trailed(&'static [&'static str], (&'static str, &'static str)),
}

impl Content {
    /// Whether this version can express it.
    pub(crate) fn is_of(self, version: Version) -> bool {
        version != Version::Http10 || matches!(self, Self::None | Self::Sized(_))
    }

    /// The bytes.
    pub(crate) fn text(self) -> String {
        match self {
            Self::None => String::new(),
            Self::Sized(text) => text.to_owned(),
            Self::Streamed(pieces) | Self::Trailed(pieces, _) => pieces.concat(),
        }
    }

    fn trailer(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Trailed(_, trailer) => Some(trailer),
            Self::None | Self::Sized(_) | Self::Streamed(_) => None,
        }
    }
}

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
    pub(crate) trailers: Vec<(String, String)>,
    /// The statuses of the responses before it.
    pub(crate) interim: Vec<u16>,
}

impl Reply {
    /// The values of a header, joined.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let named = self.headers.iter().filter(|(key, _)| key == name);
        let values: Vec<_> = named.map(|(_, value)| value.as_str()).collect();
        (!values.is_empty()).then(|| values.join(", "))
    }
}

/// A client with one connection, or one for each request of HTTP/1.0.
pub(crate) struct Client {
    address: SocketAddr,
    spoken: Spoken,
}

enum Spoken {
    Http10,
    Http11(Connection),
    Http2 {
        runtime: Runtime,
        sender: SendRequest<Bytes>,
        _driving: JoinSet<()>,
    },
}

impl Client {
    pub(crate) fn open(version: Version, address: SocketAddr) -> Self {
        let spoken = match version {
            Version::Http10 => Spoken::Http10,
            Version::Http11 => Spoken::Http11(Connection::open(address).unwrap()),
            Version::Http2 => {
                let runtime = Builder::new_current_thread().enable_all().build().unwrap();
                let mut driving = JoinSet::new();
                let sender = runtime.block_on(async {
                    let stream = TcpStream::connect(address).await.unwrap();
                    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
                    driving.spawn(async move { drop(connection.await) });
                    sender
                });
                Spoken::Http2 {
                    runtime,
                    sender,
                    _driving: driving,
                }
            }
        };
        Self { address, spoken }
    }

    /// Sends a request for `path` at `orders` with these fields, and reads the answer to its end. Of HTTP/1.0
    /// that is the end of the connection.
    pub(crate) fn ask(
        &mut self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        content: Content,
    ) -> io::Result<Reply> {
        let is_head = method == "HEAD";
        match &mut self.spoken {
            Spoken::Http10 => {
                let mut connection = Connection::open(self.address)?;
                connection.send(&http1_request("1.0", method, path, fields, content))?;
                let reply = lower(connection.receive(is_head)?);
                let mut rest = String::new();
                connection.reader().read_to_string(&mut rest)?;
                assert_eq!(rest, "", "behind {reply:?}");
                Ok(reply)
            }
            Spoken::Http11(connection) => {
                connection.send(&http1_request("1.1", method, path, fields, content))?;
                Ok(lower(connection.receive(is_head)?))
            }
            Spoken::Http2 {
                runtime, sender, ..
            } => {
                let sender = sender.clone();
                let asked = http2_exchange(sender, method, path, fields, content);
                runtime.block_on(asked).map_err(io::Error::other)
            }
        }
    }
}

fn http1_request(
    version: &str,
    method: &str,
    path: &str,
    fields: &[(&str, &str)],
    content: Content,
) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/{version}\r\nhost: orders\r\n");
    for (name, value) in fields {
        text += &format!("{name}: {value}\r\n");
    }
    match content {
        Content::None => text += "\r\n",
        Content::Sized(body) => text += &format!("content-length: {}\r\n\r\n{body}", body.len()),
        Content::Streamed(pieces) | Content::Trailed(pieces, _) => {
            text += "transfer-encoding: chunked\r\n";
            if let Some((name, _)) = content.trailer() {
                text += &format!("trailer: {name}\r\n");
            }
            text += "\r\n";
            for piece in pieces {
                text += &format!("{:x}\r\n{piece}\r\n", piece.len());
            }
            text += "0\r\n";
            if let Some((name, value)) = content.trailer() {
                text += &format!("{name}: {value}\r\n");
            }
            text += "\r\n";
        }
    }
    text.into_bytes()
}

fn lower(response: Response) -> Reply {
    let fields = |fields: Vec<(String, String)>| {
        let lower = |(name, value): (String, String)| (name.to_ascii_lowercase(), value);
        fields.into_iter().map(lower).collect()
    };
    Reply {
        status: response.status,
        body: String::from_utf8_lossy(&response.body).into_owned(),
        headers: fields(response.headers),
        trailers: fields(response.trailers),
        interim: response.interim,
    }
}

async fn http2_exchange(
    sender: SendRequest<Bytes>,
    method: &str,
    path: &str,
    fields: &[(&str, &str)],
    content: Content,
) -> Result<Reply, h2::Error> {
    let mut request = Request::builder()
        .method(method)
        .uri(format!("http://orders{path}"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    if let Content::Sized(body) = content {
        request = request.header("content-length", body.len());
    }
    if let Some((name, _)) = content.trailer() {
        request = request.header("trailer", name);
    }
    let mut sender = sender.ready().await?;
    let end = content == Content::None;
    let (mut response, mut stream) = sender.send_request(request.body(()).unwrap(), end)?;
    // A server may answer before it has the whole request, and want no more of it: its answer counts.
    let _ = send(&mut stream, content).await;
    let interim = interim(&mut response).await?;
    let (head, mut body) = response.await?.into_parts();
    let (mut bytes, mut trailers) = (Vec::new(), HeaderMap::new());
    let mut stopped = false;
    while let Some(piece) = body.data().await {
        let piece = match piece {
            // RFC 9113 section 8.1: a server says in this way that the rest of the request is not needed.
            Err(error) if error.reason() == Some(h2::Reason::NO_ERROR) => {
                stopped = true;
                break;
            }
            piece => piece?,
        };
        let _ = body.flow_control().release_capacity(piece.len());
        bytes.extend_from_slice(&piece);
    }
    if !stopped {
        trailers = body.trailers().await?.unwrap_or_default();
    }
    Ok(Reply {
        status: head.status.as_u16(),
        headers: texts(&head.headers),
        body: String::from_utf8_lossy(&bytes).into_owned(),
        trailers: texts(&trailers),
        interim,
    })
}

async fn send(stream: &mut SendStream<Bytes>, content: Content) -> Result<(), h2::Error> {
    match content {
        Content::None => Ok(()),
        Content::Sized(body) => stream.send_data(Bytes::from_static(body.as_bytes()), true),
        Content::Streamed(pieces) | Content::Trailed(pieces, _) => {
            for piece in pieces {
                stream.send_data(Bytes::from_static(piece.as_bytes()), false)?;
                tokio::task::yield_now().await;
            }
            let Some((name, value)) = content.trailer() else {
                return stream.send_data(Bytes::new(), true);
            };
            let (name, value) = (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
            stream.send_trailers(HeaderMap::from_iter([(name, value)]))
        }
    }
}

async fn interim(response: &mut ResponseFuture) -> Result<Vec<u16>, h2::Error> {
    let mut statuses = Vec::new();
    while let Some(interim) = std::future::poll_fn(|cx| response.poll_informational(cx)).await {
        statuses.push(interim?.status().as_u16());
    }
    Ok(statuses)
}

/// Fields as text, in their order.
pub(super) fn texts(fields: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    fields
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), text(value)))
        .collect()
}
