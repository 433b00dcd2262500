//! What must hold of all bytes that an application may send on a connection of HTTP/1.1. Their inputs are in
//! `proxy/fuzz/corpus/http1_requests`.

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use http::Version;
use http::request::Parts;
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use weft_fuzz::Target;

use super::super::prepare;
use super::*;
use crate::application::head::declare;
use crate::failure::{Failure, Reason};
use crate::http::authority::{self, canonical};
use crate::http::reference_tests::{FORGIVEN, Front, request as read};
use crate::inbound;

const PATIENCE: Duration = Duration::from_secs(10);

/// A request that the sidecar read: its head, and the content with trailers, unless that broke off.
#[derive(Debug)]
struct Got {
    head: Parts,
    content: Option<(Bytes, Option<HeaderMap>)>,
}

impl Got {
    /// That it is the same, with what an assertion can show.
    fn shown(&self) -> String {
        format!("{:?} {:?}", self.head, self.content)
    }
}

/// What the sidecar makes of a connection on which these pieces come before its client ends it.
async fn serve(pieces: &[&[u8]]) -> Vec<Got> {
    let (mut client, server) = UnixStream::pair().unwrap();
    let got = Rc::new(RefCell::new(Vec::new()));
    let answer = |request: Request<Incoming>| {
        let got = Rc::clone(&got);
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let is_last = is_last(&head.headers);
            let content = body.collect().await.ok().map(|whole| {
                let trailers = whole.trailers().cloned();
                (whole.to_bytes(), trailers)
            });
            got.borrow_mut().push(Got { head, content });
            let mut response = Response::new(Full::new(Bytes::new()));
            if is_last {
                response.headers_mut().insert(CONNECTION, CLOSE);
            }
            Ok(response)
        })
    };
    let (first, rest) = pieces.split_first().unwrap();
    let connection = Connection::new(
        ApplicationStream::Unix(server),
        BytesMut::from(*first),
        None,
    );
    let end = CancellationToken::new();
    let burst = burst(connection, PATIENCE, &end, answer);
    let feed = async {
        for piece in rest {
            tokio::task::yield_now().await;
            // It may have refused what came before.
            let _ = client.write_all(piece).await;
        }
        let _ = client.shutdown().await;
        client
    };
    let (_, client) = tokio::join!(burst, feed);
    drop(client);
    got.take()
}

/// The head for the next hop as the two sidecars make it, or why there is none.
fn pass(got: &Got) -> Result<Parts, Failure> {
    let mut head = got.head.clone();
    prepare::check(&head, "weft-1")?;
    prepare::mean_whole_server(&mut head);
    let whom = canonical(&head)?;
    let text = whom
        .as_ref()
        .map_or("orders.shop", |authority| authority.text);
    let bad = |_| Failure::new(Reason::BadRequest, "no URI");
    let authority = http::uri::Authority::try_from(text).map_err(bad)?;
    prepare::aim(&mut head, authority)?;
    fields::strip_request(&mut head.headers)?;
    head.headers.remove(http::header::HOST);
    // The wire carries the path as a text, and refuses one that is not of visible ASCII.
    let mut parts = std::mem::take(&mut head.uri).into_parts();
    let path = parts.path_and_query.map(|path| path.as_str().to_owned());
    let path = path.filter(|path| path.bytes().all(|byte| byte.is_ascii_graphic()));
    let path = path.ok_or_else(|| Failure::new(Reason::BadRequest, "no path"))?;
    parts.path_and_query = Some(path.parse().map_err(bad)?);
    head.uri = http::Uri::from_parts(parts).unwrap();
    let caller = HeaderValue::from_static("spiffe://demo.test/a");
    inbound::prepare(&mut head, &caller, false)?;
    let is_empty = got
        .content
        .as_ref()
        .is_none_or(|(data, trailers)| data.is_empty() && trailers.is_none());
    declare(&head.method, &mut head.headers, is_empty, false);
    Ok(head)
}

/// An application that only listens.
#[derive(Clone, Default)]
struct Listening(Rc<RefCell<Vec<u8>>>);

impl Read for Listening {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Poll::Pending
    }
}

impl Write for Listening {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.0.borrow_mut().extend_from_slice(data);
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What the other sidecar writes to its application.
fn written(head: Parts, data: &Bytes, trailers: Option<&HeaderMap>) -> Vec<u8> {
    let listening = Listening::default();
    let mut cx = Context::from_waker(Waker::noop());
    let shake = pin!(hyper::client::conn::http1::handshake(listening.clone()));
    let Poll::Ready(Ok((mut sender, mut connection))) = shake.poll(&mut cx) else {
        panic!("there is nothing to wait for");
    };
    let data = (!data.is_empty()).then(|| Frame::data(data.clone()));
    let trailers = trailers.cloned().map(|mut trailers| {
        fields::strip_trailers(&mut trailers);
        Frame::trailers(trailers)
    });
    let frames: Vec<Result<Frame<Bytes>, Infallible>> =
        data.into_iter().chain(trailers).map(Ok).collect();
    let is_empty = frames.is_empty();
    let body = StreamBody::new(futures_util::stream::iter(frames));
    let body = if is_empty {
        http_body_util::Either::Left(Full::new(Bytes::new()))
    } else {
        http_body_util::Either::Right(body)
    };
    let mut answer = pin!(sender.send_request(Request::from_parts(head, body)));
    for _ in 0..4 {
        assert!(answer.as_mut().poll(&mut cx).is_pending());
        assert!(Pin::new(&mut connection).poll(&mut cx).is_pending());
    }
    listening.0.take()
}

/// That the next application reads one request of what is sent on, and that it is this one.
fn check_what_is_sent_on(got: &Got) -> bool {
    let (Ok(head), Some((data, trailers))) = (pass(got), &got.content) else {
        return false;
    };
    if trailers.as_ref().is_some_and(fields::has_twin) {
        return false;
    }
    assert!(head.headers.len() <= limits::FIELDS_MAX + 5);
    let method = head.method.clone();
    let target = head.uri.to_string();
    let bytes = written(head, data, trailers.as_ref());
    let text = bytes.escape_ascii();
    let Front::Clear(message, length) = read(&bytes) else {
        panic!("what is sent on: {text}");
    };
    assert_eq!(length, bytes.len(), "something behind: {text}");
    assert_eq!(
        message.line,
        [method.as_str(), &target, "HTTP/1.1"],
        "{text}"
    );
    assert!(target.bytes().all(|byte| byte.is_ascii_graphic()), "{text}");
    assert_eq!(message.body, *data, "{text}");
    let host = message.field("host").unwrap();
    assert!(
        !host.is_empty() && message.field("weft-client-id").is_some(),
        "{text}"
    );
    for name in [
        "keep-alive",
        "upgrade",
        "proxy-connection",
        "http2-settings",
    ] {
        assert_eq!(message.field(name), None, "{text}");
    }
    true
}

/// What the property says of one connection.
fn judge(runtime: &Runtime, input: &[u8]) -> String {
    let all = runtime.block_on(serve(&[input]));
    for at in cuts(input) {
        let (first, rest) = input.split_at(at);
        let cut = runtime.block_on(serve(&[first, rest]));
        let shown = |got: &[Got]| got.iter().map(Got::shown).collect::<Vec<_>>();
        assert_eq!(shown(&cut), shown(&all), "cut at {at}");
    }
    let mut rest = input;
    let (mut clear, mut sent, mut end) = (0, 0, "the end");
    for (place, got) in all.iter().enumerate() {
        assert!(got.head.headers.len() <= limits::FIELDS_MAX);
        sent += usize::from(check_what_is_sent_on(got));
        match read(rest) {
            Front::Clear(message, length) => {
                let [method, target, version] = &message.line;
                assert_eq!(got.head.method.as_str(), method);
                assert_eq!(format!("{:?}", got.head.version), *version);
                if target.starts_with('/') {
                    // The URI type drops a fragment, so it is neither judged nor sent on.
                    let judged = target.split('#').next();
                    assert_eq!(Some(&*got.head.uri.to_string()), judged);
                }
                let Some((data, _)) = &got.content else {
                    assert_eq!(place + 1, all.len(), "a request behind one that broke off");
                    end = "broken off";
                    break;
                };
                assert_eq!(*data, message.body);
                if got.head.version == Version::HTTP_11
                    && let Ok(Some(authority::Authority { text, .. })) = canonical(&got.head)
                {
                    let host = message.field("host").unwrap();
                    assert!(host == text.as_bytes() || target.contains(text));
                }
                assert!(length <= rest.len());
                rest = &rest[length..];
                clear += 1;
            }
            // hyper reads on to the next empty line that ends as it should. Nothing more can be compared.
            Front::Doubtful(why) if why == FORGIVEN => {
                end = why;
                break;
            }
            // Where it ends is not known, so nothing behind it is a request.
            Front::Doubtful(why) => {
                assert_eq!(
                    place + 1,
                    all.len(),
                    "a request behind a doubtful one ({why})"
                );
                end = why;
            }
            Front::Cut => {
                assert_eq!(place + 1, all.len(), "a request behind one that is cut");
                assert!(got.content.is_none(), "it is whole without its end");
                end = "cut";
            }
        }
    }
    format!("{} clear, {} sent on, {end}", clear.min(3), sent.min(3))
}

/// Where to cut: some places, which differ from input to input.
fn cuts(input: &[u8]) -> impl Iterator<Item = usize> {
    let mix = |sum: usize, byte: &u8| sum.wrapping_mul(31) ^ usize::from(*byte);
    let seed = input.iter().fold(input.len(), mix);
    (0..3).map(move |one| (seed >> (8 * one)) % (input.len() + 1))
}

#[test]
fn what_an_application_sends_is_the_same_requests_to_every_reader_or_goes_no_further() {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().start_paused(true).build().unwrap();
    let words = &[
        "\r\n",
        "\n",
        "\r",
        "\r\n\r\n",
        " ",
        "\t",
        ":",
        "0\r\n\r\n",
        "5\r\nabcde\r\n",
        "\r\nhost: a",
        "\0",
        "\r\ncontent-length: 5",
        "\r\ntransfer-encoding: chunked",
        "\r\ncontent-length: 0",
        "\r\nconnection: close",
        "\r\nconnection: keep-alive",
        "\r\nexpect: 100-continue",
        "\r\nupgrade: h2c",
        "\r\ntransfer-encoding: gzip, ",
        "HTTP/1.0",
        "HTTP/1.1",
        "HTTP/2.0",
        "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST ",
        "OPTIONS ",
        "CONNECT ",
        "*",
        "http://a",
        ";x=y",
        "ffffffffffffffff\r\n",
        "+5",
        "0x5",
        "\u{b}",
        "\u{a0}",
        "_",
        "#",
        "?",
    ];
    let target = Target::new(env!("CARGO_MANIFEST_DIR"), "http1_requests").words(words);
    let seen = target
        .longest(2000)
        .rounds(3000)
        .run(|input| judge(&runtime, input));
    seen.expect("3 clear, 3 sent on, the end")
        .expect("1 clear, 1 sent on, cut");
}
