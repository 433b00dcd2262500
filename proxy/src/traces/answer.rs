//! What a collector's answer to an export means (OTLP specification 1.9): taken, to be sent again, or
//! refused. Pure.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode};
use prost::Message;

use crate::limits;

/// What becomes of the spans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// They arrived, but for some that the collector does not want, with its words for that.
    Taken { rejected: u64, words: String },
    /// They are sent again, if the collector says so not before that time.
    Later(Option<Duration>, String),
    /// They are dropped: the same export would be refused again.
    Never(String),
}

/// `ExportTraceServiceResponse`.
#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(message, optional, tag = "1")]
    partial: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected: i64,
    #[prost(string, tag = "2")]
    words: String,
}

/// `google.rpc.Status`, of gRPC's `grpc-status-details-bin` and of OTLP/HTTP's refusals.
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Detail>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Detail {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    delay: Option<Delay>,
}

#[derive(Clone, PartialEq, Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// Of a message that came with success.
pub(super) fn of_success(message: &[u8]) -> Answer {
    // One that cannot be read came with success all the same.
    let partial = Response::decode(message)
        .ok()
        .and_then(|response| response.partial);
    let partial = partial.unwrap_or_default();
    Answer::Taken {
        rejected: u64::try_from(partial.rejected).unwrap_or(0),
        words: partial.words,
    }
}

/// Of an answer of OTLP/HTTP.
pub(super) fn of_http(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    now: SystemTime,
) -> Answer {
    if status.is_success() {
        return of_success(body);
    }
    let words = Status::decode(body)
        .map(|status| status.message)
        .unwrap_or_default();
    let words = format!("HTTP {} {words}", status.as_u16());
    match status.as_u16() {
        429 | 502 | 503 | 504 => {
            let after = headers
                .get(http::header::RETRY_AFTER)
                .and_then(|field| field.to_str().ok());
            Answer::Later(after.and_then(|text| wait(text, now)), words)
        }
        _ => Answer::Never(words),
    }
}

/// `Retry-After` (RFC 9110 section 10.2.3): seconds, or a date.
fn wait(text: &str, now: SystemTime) -> Option<Duration> {
    let wait = match text.trim().parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = httpdate::parse_http_date(text.trim()).ok()?;
            date.duration_since(now).unwrap_or_default()
        }
    };
    Some(wait.min(limits::EXPORT_RETRY_MAX))
}

/// Of a status of gRPC that is not OK; `details` is the field `grpc-status-details-bin`.
pub(super) fn of_grpc(code: i32, message: &str, details: &[u8]) -> Answer {
    let words = format!("gRPC status {code} {message}");
    let wait = retry_info(details);
    match code {
        // CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS.
        1 | 4 | 10 | 11 | 14 | 15 => Answer::Later(wait, words),
        // RESOURCE_EXHAUSTED is a limit that ends only if the collector says when.
        8 if wait.is_some() => Answer::Later(wait, words),
        _ => Answer::Never(words),
    }
}

fn retry_info(details: &[u8]) -> Option<Duration> {
    let status = Status::decode(details).ok()?;
    let mut details = status.details.iter();
    let info = details.find(|one| one.kind.ends_with("/google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(&info.value[..]).ok()?.delay?;
    let seconds = Duration::from_secs(u64::try_from(delay.seconds).unwrap_or(0));
    let nanos = Duration::from_nanos(u64::try_from(delay.nanos).unwrap_or(0));
    Some(seconds.saturating_add(nanos).min(limits::EXPORT_RETRY_MAX))
}

#[cfg(test)]
mod fuzz_tests;

#[cfg(test)]
mod tests {
    use super::*;

    fn http(status: u16, after: Option<&'static str>, body: &[u8]) -> Answer {
        let mut headers = HeaderMap::new();
        if let Some(after) = after {
            headers.insert("retry-after", after.parse().unwrap());
        }
        of_http(
            StatusCode::from_u16(status).unwrap(),
            &headers,
            body,
            SystemTime::UNIX_EPOCH,
        )
    }

    #[test]
    fn a_partial_success_is_taken_with_what_was_rejected() {
        let partial = Some(PartialSuccess {
            rejected: 3,
            words: "too old".into(),
        });
        let body = Response { partial }.encode_to_vec();
        let taken = Answer::Taken {
            rejected: 3,
            words: "too old".into(),
        };
        assert_eq!(http(200, None, &body), taken);
        let all = Answer::Taken {
            rejected: 0,
            words: String::new(),
        };
        for body in [&b""[..], b"{}", b"\xff\xff"] {
            assert_eq!(http(202, None, body), all);
        }
    }

    #[test]
    fn what_may_pass_is_sent_again_and_at_the_time_that_is_asked_for() {
        let wait = |answer| match answer {
            Answer::Later(wait, _) => Some(wait),
            Answer::Taken { .. } | Answer::Never(_) => None,
        };
        for status in [429, 502, 503, 504] {
            assert_eq!(wait(http(status, None, b"")), Some(None), "{status}");
        }
        for status in [400, 401, 403, 404, 413, 415, 500, 501] {
            assert_eq!(wait(http(status, Some("1"), b"")), None, "{status}");
        }
        let seconds = |number| Some(Some(Duration::from_secs(number)));
        assert_eq!(wait(http(503, Some("7"), b"")), seconds(7));
        assert_eq!(
            wait(http(503, Some("Thu, 01 Jan 1970 00:00:09 GMT"), b"")),
            seconds(9)
        );
        assert_eq!(
            wait(http(503, Some("100000"), b"")),
            Some(Some(limits::EXPORT_RETRY_MAX))
        );
        assert_eq!(wait(http(503, Some("soon"), b"")), Some(None));
    }

    #[test]
    fn the_statuses_of_grpc_are_those_of_the_specification() {
        let info = RetryInfo {
            delay: Some(Delay {
                seconds: 2,
                nanos: 500_000_000,
            }),
        };
        let detail = Detail {
            kind: "type.googleapis.com/google.rpc.RetryInfo".into(),
            value: info.encode_to_vec(),
        };
        let details = Status {
            message: "full".into(),
            details: vec![detail],
        }
        .encode_to_vec();
        let wait = Some(Duration::from_millis(2500));
        for code in 1..=16 {
            let later = matches!(code, 1 | 4 | 10 | 11 | 14 | 15);
            let without = of_grpc(code, "", b"");
            assert_eq!(matches!(without, Answer::Later(None, _)), later, "{code}");
            let with = of_grpc(code, "", &details);
            assert_eq!(
                matches!(with, Answer::Later(it, _) if it == wait),
                later || code == 8,
                "{code}"
            );
        }
    }
}
