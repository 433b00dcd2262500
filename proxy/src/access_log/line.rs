//! A line of the access log: the facts of a request as JSON, of bounded length, with text of others made
//! visible. Pure, but for the time of day.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use http::Uri;
use serde::Serialize;

use crate::limits;
use crate::record::attempt::{Attempt, Ended, Part};
use crate::record::{Finished, Reply, Routed};
use crate::resilience::attempts::WithheldReason;
use crate::resilience::destination::Event;
use crate::visible::{cut, escape};

/// The line of a request after so many that were suppressed.
pub(super) fn logged(finished: &Finished<'_>, suppressed: u64) -> Option<Vec<u8>> {
    text(Json::new(finished, suppressed))
}

/// The line of a request with its attempts, however they ended.
pub(crate) fn whole(finished: &Finished<'_>) -> Option<Vec<u8>> {
    text(Json::whole(finished))
}

/// The line, with its end. A line that has no room for the attempts leaves them out, and then the filters and
/// what they sent; the fields that name the call always fit.
fn text(mut json: Json<'_>) -> Option<Vec<u8>> {
    loop {
        let line = serde_json::to_string(&json).ok()?;
        let mut text = escape(&line).into_owned().into_bytes();
        text.push(b'\n');
        if text.len() <= limits::ACCESS_LOG_LINE_BYTES_MAX {
            return Some(text);
        }
        match (json.tried.is_empty(), json.filters.is_empty()) {
            (false, _) => (json.tried, json.body_ms) = (Vec::new(), None),
            (true, false) => (json.filters, json.sent_as) = (Vec::new(), None),
            (true, true) => return Some(text),
        }
    }
}

/// The line's shape; fields are documented in the reference of the log.
#[derive(Serialize)]
struct Json<'a> {
    time: String,
    direction: &'static str,
    method: Cow<'a, str>,
    authority: Cow<'a, str>,
    path: Cow<'a, str>,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc_status: Option<u8>,
    duration_ms: f64,
    bytes_in: u64,
    bytes_out: u64,
    source: Cow<'a, str>,
    /// Of a caller that proved no identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    source_address: Option<IpAddr>,
    destination: Cow<'a, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    destination_principal: Cow<'a, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    route: Cow<'a, str>,
    /// How the route answered by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    answered: Option<&'static str>,
    /// The filters of the route that acted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    filters: Vec<&'static str>,
    /// Host and path that a filter wrote, as they were sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    sent_as: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "is_none_at_all")]
    copies: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_token: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    /// More exact than `error`.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<Cow<'a, str>>,
    /// Of a request whose spans are recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    span_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<u64>,
    /// Omitted if there was one attempt only.
    #[serde(skip_serializing_if = "is_one")]
    attempts: u32,
    /// Why it was not sent once more.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_retried: Option<&'static str>,
    /// Omitted if there was one attempt and it succeeded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tried: Vec<AttemptEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_ms: Option<f64>,
    /// The application's part of the time until the head of the answer, where its sidecar told it.
    #[serde(skip_serializing_if = "Option::is_none")]
    application_ms: Option<f64>,
    /// The mesh's part of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    mesh_ms: Option<f64>,
    #[serde(skip_serializing_if = "is_zero")]
    suppressed: u64,
}

/// One attempt. Parts that the attempt did not reach are left out.
#[derive(Serialize)]
struct AttemptEntry {
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<SocketAddr>,
    /// From the request's head to its begin.
    at_ms: f64,
    pick_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    dial_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    head_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
}

impl AttemptEntry {
    fn new(attempt: &Attempt, started: Instant) -> Self {
        let took = |part| {
            let found = attempt.parts().find(|(one, _)| *one == part);
            found.map(|(_, took)| milliseconds(took))
        };
        let (status, error) = match attempt.ended {
            Some(Ended::Answered(status)) => (Some(status), None),
            Some(Ended::Failed(reason)) => (None, Some(reason.token())),
            None => (None, None),
        };
        Self {
            endpoint: attempt.endpoint,
            at_ms: milliseconds(attempt.began.saturating_duration_since(started)),
            pick_ms: took(Part::Pick).unwrap_or_default(),
            dial_ms: took(Part::Dial),
            stream_ms: took(Part::Stream),
            head_ms: took(Part::Head),
            status,
            error,
        }
    }
}

/// With three decimals.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

fn is_one(number: &u32) -> bool {
    *number <= 1
}

fn is_none_at_all(number: &usize) -> bool {
    *number == 0
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl<'a> Json<'a> {
    fn new(finished: &Finished<'a>, suppressed: u64) -> Self {
        let tells = finished.record.kept.len() > 1 || finished.outcome.failed;
        Self::telling(finished, tells, suppressed)
    }

    /// With its attempts, however they ended.
    fn whole(finished: &Finished<'a>) -> Self {
        Self::telling(finished, true, 0)
    }

    fn telling(finished: &Finished<'a>, tells: bool, suppressed: u64) -> Self {
        let record = finished.record;
        let attempts = record.kept.iter().filter(|_| tells);
        let labels = &record.counted.labels;
        let principal = |text| cut(text, limits::ACCESS_LOG_PRINCIPAL_BYTES_MAX);
        let name = |text| cut(text, limits::ACCESS_LOG_NAME_BYTES_MAX);
        let context = record.traced.as_ref().map(|traced| traced.context);
        let routed = record.routed.as_deref();
        let filters = routed.map_or(&[][..], |routed| &routed.filters);
        let event = |event: fn(&Routed) -> Option<Event>| routed.and_then(event).map(Event::label);
        Self {
            time: jiff::Timestamp::now().to_string(),
            direction: labels.direction.as_str(),
            method: cut(record.method.as_str(), limits::ACCESS_LOG_METHOD_BYTES_MAX),
            authority: cut(
                record
                    .uri
                    .authority()
                    .map_or("", |authority| authority.as_str()),
                limits::ACCESS_LOG_AUTHORITY_BYTES_MAX,
            ),
            path: cut(record.uri.path(), limits::ACCESS_LOG_PATH_BYTES_MAX),
            status: record.status,
            grpc_status: record.grpc_status,
            duration_ms: milliseconds(finished.duration()),
            bytes_in: record.sent,
            bytes_out: record.received,
            source: principal(&labels.source_principal),
            source_address: record.counted.source,
            destination: name(&labels.destination_service),
            destination_principal: principal(&labels.destination_principal),
            route: name(&labels.route),
            answered: record.reply.map(Reply::as_str),
            filters: filters.iter().map(|filter| filter.label()).collect(),
            sent_as: routed.and_then(|routed| Some(sent_as(routed.sent_as.as_ref()?))),
            copies: routed.map_or(0, |routed| routed.copies),
            session: event(|routed| routed.session),
            session_token: event(|routed| routed.token),
            error: record
                .failure
                .as_ref()
                .map(|failure| failure.reason.token()),
            reason: record.failure.as_ref().map(|failure| failure.reason.word()),
            details: record
                .failure
                .as_ref()
                .map(|failure| cut(&failure.detail, limits::ACCESS_LOG_DETAILS_BYTES_MAX)),
            policy: record
                .failure
                .as_ref()
                .and_then(|failure| Some(name(failure.policy.as_deref()?))),
            request_id: record
                .request_id
                .as_ref()
                .and_then(|id| id.to_str().ok())
                .map(|id| cut(id, limits::ACCESS_LOG_REQUEST_ID_BYTES_MAX)),
            trace_id: context.map(|context| format!("{:032x}", context.trace)),
            span_id: context.map(|context| format!("{:016x}", context.parent)),
            revision: record.revision,
            attempts: record.attempts,
            not_retried: record.withheld.map(WithheldReason::as_str),
            tried: attempts
                .map(|attempt| AttemptEntry::new(attempt, record.started))
                .collect(),
            body_ms: finished.body().filter(|_| tells).map(milliseconds),
            application_ms: record
                .serving
                .map(|serving| milliseconds(serving.application())),
            mesh_ms: finished.mesh().map(milliseconds),
            suppressed,
        }
    }
}

/// Host and path of a target, in the length of a path.
fn sent_as(target: &Uri) -> Cow<'static, str> {
    let host = target
        .authority()
        .map_or("", |authority| authority.as_str());
    let text = [host, target.path()].concat();
    Cow::Owned(cut(&text, limits::ACCESS_LOG_PATH_BYTES_MAX).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Reason;

    const FILTERS: [Event; 5] = [
        Event::FilterCors,
        Event::FilterRequestHeaders,
        Event::FilterRewrite,
        Event::FilterMirror,
        Event::FilterResponseHeaders,
    ];

    /// A line whose fields are all as long as they may be, made of one character.
    fn longest(unit: &str) -> Json<'static> {
        let text = unit.repeat(64 * 1024);
        let field = |bytes_max| Cow::Owned(cut(&text, bytes_max).into_owned());
        Json {
            // The clock gives nine digits of a second.
            time: "2026-11-29T12:31:06.123456789Z".to_owned(),
            direction: "outbound",
            method: field(limits::ACCESS_LOG_METHOD_BYTES_MAX),
            authority: field(limits::ACCESS_LOG_AUTHORITY_BYTES_MAX),
            path: field(limits::ACCESS_LOG_PATH_BYTES_MAX),
            status: u16::MAX,
            grpc_status: Some(u8::MAX),
            duration_ms: f64::MIN,
            bytes_in: u64::MAX,
            bytes_out: u64::MAX,
            source: field(limits::ACCESS_LOG_PRINCIPAL_BYTES_MAX),
            // A caller that has one has no principal, which is longer.
            source_address: None,
            destination: field(limits::ACCESS_LOG_NAME_BYTES_MAX),
            destination_principal: field(limits::ACCESS_LOG_PRINCIPAL_BYTES_MAX),
            route: field(limits::ACCESS_LOG_NAME_BYTES_MAX),
            answered: Some("preflight"),
            filters: FILTERS.map(Event::label).to_vec(),
            sent_as: None,
            copies: 99,
            session: Some(Event::SessionMovedFailed.label()),
            session_token: Some(Event::TokenUnauthentic.label()),
            error: Some("connection_write_timeout_and_some_more"),
            reason: Some("response_head_too_large"),
            details: Some(field(limits::ACCESS_LOG_DETAILS_BYTES_MAX)),
            policy: Some(field(limits::ACCESS_LOG_NAME_BYTES_MAX)),
            request_id: Some(field(limits::ACCESS_LOG_REQUEST_ID_BYTES_MAX)),
            trace_id: Some("f".repeat(32)),
            span_id: Some("f".repeat(16)),
            revision: Some(u64::MAX),
            attempts: u32::MAX,
            not_retried: Some("attempts"),
            tried: Vec::new(),
            body_ms: None,
            application_ms: Some(f64::MIN),
            mesh_ms: Some(f64::MIN),
            suppressed: u64::MAX,
        }
    }

    #[test]
    fn a_line_is_bounded_and_one_line_of_json_whatever_it_is_about() {
        for unit in [
            "a", "\"", "\n", "\u{1b}", "\u{9b}", "\u{202e}", "\u{2028}", "漢",
        ] {
            let line = text(longest(unit)).unwrap();
            assert!(
                line.len() <= limits::ACCESS_LOG_LINE_BYTES_MAX,
                "{}",
                line.len()
            );
            let line = String::from_utf8(line).unwrap();
            let line = line.strip_suffix('\n').unwrap();
            assert!(!line.contains(crate::visible::acts), "{line}");
            let json: serde_json::Value = serde_json::from_str(line).unwrap();
            let path = json["path"].as_str().unwrap();
            assert!(path.starts_with(unit) && path.ends_with('…'), "{path}");
        }
    }

    #[test]
    fn attempts_are_logged_part_by_part_and_left_out_of_a_line_without_room() {
        let now = Instant::now();
        let after = |milliseconds| now + Duration::from_millis(milliseconds);
        let mut attempt = Attempt::begin(after(2));
        attempt.picked("[fe80::1%4000000000]:65535".parse().unwrap(), after(3));
        attempt.finish(Ended::Failed(Reason::ConnectionRefused), after(7));
        let all = vec![attempt; limits::RECORD_ATTEMPTS_MAX];
        let tried = || all.iter().map(|one| AttemptEntry::new(one, now)).collect();
        let json = |unit| Json {
            tried: tried(),
            body_ms: Some(f64::MIN),
            ..longest(unit)
        };
        assert!(text(json("a")).unwrap().len() <= limits::ACCESS_LOG_LINE_BYTES_MAX);
        let json = Json {
            path: Cow::Borrowed("/"),
            ..json("a")
        };
        let line = text(json).unwrap();
        assert!(line.len() <= limits::ACCESS_LOG_LINE_BYTES_MAX);
        let line: serde_json::Value = serde_json::from_slice(&line).unwrap();
        let tried = line["tried"].as_array().unwrap();
        assert_eq!(tried.len(), limits::RECORD_ATTEMPTS_MAX);
        let wanted = serde_json::json!({
            "endpoint": "[fe80::1%4000000000]:65535", "at_ms": 2.0, "pick_ms": 1.0, "dial_ms": 4.0,
            "error": "connection_refused",
        });
        assert_eq!(tried[0], wanted);
    }

    #[test]
    fn filters_are_left_out_of_a_line_without_room_after_the_attempts() {
        let target = format!("http://v2.example:80/{}?q", "a".repeat(2000));
        let sent = sent_as(&target.parse().unwrap());
        assert!(
            sent.starts_with("v2.example:80/aaa") && sent.ends_with("a…"),
            "{sent}"
        );
        let now = Instant::now();
        let json = |unit, path: &'static str| Json {
            path: Cow::Borrowed(path),
            tried: vec![AttemptEntry::new(&Attempt::begin(now), now)],
            sent_as: Some(sent.clone()),
            ..longest(unit)
        };
        let shown = |json| -> serde_json::Value {
            let line = text(json).unwrap();
            assert!(line.len() <= limits::ACCESS_LOG_LINE_BYTES_MAX);
            serde_json::from_slice(&line).unwrap()
        };
        let full = Json {
            path: Cow::Owned("a".repeat(limits::ACCESS_LOG_PATH_BYTES_MAX)),
            ..json("a", "")
        };
        assert_eq!(shown(full)["sent_as"], serde_json::Value::Null);
        let some = Json {
            details: None,
            ..json("a", "/")
        };
        let some = shown(some);
        assert_eq!(some["sent_as"], *sent);
        assert_eq!(some["filters"][2], "URLRewrite");
    }
}
