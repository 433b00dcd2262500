//! Answers bytes that do not parse as a request of HTTP/1.0 or 1.1. Like every answer of the mesh, this one
//! has `proxy-status` and a request id, is counted and is logged.
//!
//! hyper reports by its error that it could not parse a head, and hands back the bytes. Not here: refusals of
//! requests that parse ([`super::prepare`]).

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, DATE};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, Uri};
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;
use weft_transport::locks::lock;

use super::Requests;
use crate::failure::{Failure, Reason};
use crate::http::{answer, request_id};
use crate::limits;
use crate::record::Record;
use crate::stream::ApplicationStream;

/// Answers on a connection on which HTTP parsing has failed, and closes it.
pub(crate) async fn refuse(
    client: &impl Requests,
    mut stream: ApplicationStream,
    unread: &[u8],
    failure: Failure,
) {
    let worker = client.worker();
    let id = request_id::make(rand::RngExt::random(&mut *lock(&worker.random)));
    let head = guess(unread);
    let counted = Arc::clone(client.unread());
    let observers = Arc::clone(&worker.observers);
    let mut record = Record::new(counted, observers, Instant::now(), &head, Some(id.clone()));
    let bodiless = head.method == Method::HEAD;
    let (response, text) = answer::answer(&failure, false, bodiless, Some(&id));
    record.status = response.status().as_u16();
    record.received = text.len() as u64;
    let bytes = write(response, &text, SystemTime::now());
    let told = timeout(limits::REFUSAL_TIMEOUT, async {
        stream.write_all(&bytes).await?;
        stream.shutdown().await?;
        drain(&stream).await
    });
    // A client that does not read it has gone, or keeps sending.
    let _ = told.await;
    record.end(Err(failure));
}

/// Why it does not parse; none if the client went away.
pub(super) fn reason(error: &hyper::Error, unread: &[u8], patience: Duration) -> Option<Failure> {
    let bad = |detail: Cow<'static, str>| Failure::new(Reason::BadRequest, detail);
    // Empty lines may precede a request, and are none. Of a head that was parsed and is invalid, hyper hands
    // back no bytes.
    let is_there = !unread.trim_ascii_start().is_empty();
    if error.is_timeout() {
        return is_there.then(|| slow(patience));
    }
    if error.is_parse_too_large() {
        let in_target = !unread.contains(&b'\n');
        return Some(if in_target {
            Failure::new(Reason::TargetTooLong, "the request target is too long")
        } else {
            Failure::new(Reason::HeadTooLarge, "the head is too large")
        });
    }
    if error.is_parse() {
        return Some(match version(unread) {
            Some(version) if !matches!(version, "HTTP/1.0" | "HTTP/1.1") => Failure::new(
                Reason::VersionUnsupported,
                format!(
                    "{version} is not spoken here: HTTP/1.0, HTTP/1.1, or HTTP/2 from the first byte on"
                ),
            ),
            _ => bad(format!("the request does not parse: {error}").into()),
        });
    }
    (error.is_incomplete_message() && is_there)
        .then(|| bad("the connection ends within a head".into()))
}

/// A head that does not end.
pub(crate) fn slow(patience: Duration) -> Failure {
    let detail = format!("the head was not there after {patience:?}");
    Failure::new(Reason::RequestTooSlow, detail)
}

/// The version at the end of the request line, if it has the form of one.
fn version(unread: &[u8]) -> Option<&str> {
    let last = words(unread).last()?;
    let (major, minor) = last.strip_prefix("HTTP/")?.split_once('.')?;
    let is_digit = |text: &str| text.len() == 1 && text.bytes().all(|byte| byte.is_ascii_digit());
    (is_digit(major) && is_digit(minor)).then_some(last)
}

/// Method and target for the log, as far as they can be read.
fn guess(unread: &[u8]) -> Parts {
    let mut words = words(unread);
    let mut request = Request::new(());
    // Not a registered method: a hyphen, as logs write it where there is no value.
    let method = words.next().and_then(|word| word.parse().ok());
    *request.method_mut() = method
        .or_else(|| Method::from_bytes(b"-").ok())
        .unwrap_or_default();
    let target = words.next().and_then(|word| word.parse::<Uri>().ok());
    *request.uri_mut() = target.unwrap_or_default();
    request.into_parts().0
}

/// The words of the request line; empty lines may precede it (RFC 9112 section 2.2).
fn words(unread: &[u8]) -> impl Iterator<Item = &str> {
    let text = unread.trim_ascii_start();
    let line = text.split(|byte| matches!(byte, b'\r' | b'\n')).next();
    let line = std::str::from_utf8(line.unwrap_or_default()).unwrap_or_default();
    line.split(' ').filter(|word| !word.is_empty())
}

/// The response as HTTP/1.1 writes it.
fn write(mut response: Response<()>, text: &Bytes, now: SystemTime) -> BytesMut {
    let date = HeaderValue::try_from(httpdate::fmt_http_date(now));
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers.extend(date.ok().map(|date| (DATE, date)));
    let mut bytes = BytesMut::from(format!("HTTP/1.1 {}\r\n", response.status()).as_bytes());
    for (name, value) in response.headers() {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            bytes.extend_from_slice(part);
        }
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(text);
    bytes
}

/// Reads what still comes: closing a connection with unread bytes resets it, and the client may lose the
/// answer (RFC 9112 section 9.6).
async fn drain(stream: &ApplicationStream) -> std::io::Result<()> {
    let mut left = limits::REFUSED_BYTES_MAX;
    let mut buffer = BytesMut::new();
    while left > 0 {
        stream.readable().await?;
        buffer.clear();
        buffer.reserve(limits::TUNNEL_READ_MIN);
        match stream.try_read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => left = left.saturating_sub(read),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_line_tells_method_target_and_version_as_far_as_it_can() {
        for (head, method, target, spoken) in [
            (
                &b"GET /a?b HTTP/3.0\r\nx: y\r\n"[..],
                "GET",
                "/a?b",
                Some("HTTP/3.0"),
            ),
            (b"\r\n\r\nPUT / HTTP/1.9\r\n", "PUT", "/", Some("HTTP/1.9")),
            (b"GET / HTTP/10.1\r\n", "GET", "/", None),
            (b"G(T /\xff HTTP/1.1\r\n", "-", "/", None),
            (b"\x16\x03\x01\x02", "-", "/", None),
            (b"", "-", "/", None),
        ] {
            let guessed = guess(head);
            assert_eq!(guessed.method.as_str(), method, "{head:?}");
            assert_eq!(guessed.uri, target, "{head:?}");
            assert_eq!(version(head), spoken, "{head:?}");
        }
    }

    #[test]
    fn the_answer_is_whole_and_ends_the_connection() {
        let failure = Failure::new(Reason::VersionUnsupported, "no");
        let id = HeaderValue::from_static("r1");
        let (response, text) = answer::answer(&failure, false, false, Some(&id));
        let bytes = write(response, &text, SystemTime::UNIX_EPOCH);
        let answer = String::from_utf8(bytes.to_vec()).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with("HTTP/1.1 505 HTTP Version Not Supported\r\n"),
            "{head}"
        );
        for line in [
            "proxy-status: weft; error=http_request_error; details=\"no\"",
            "x-request-id: r1",
            "connection: close",
            "date: Thu, 01 Jan 1970 00:00:00 GMT",
            &format!("content-length: {}", body.len()),
        ] {
            assert!(head.lines().any(|one| one == line), "{line} in {head}");
        }
    }
}
