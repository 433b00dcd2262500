//! Timeouts, retries and faults of a VirtualService.

use serde_json::{Value as Json, json};

use crate::import::durations::{duration, seconds};
use crate::import::output::Output;
use crate::import::reader::{Document, Place};

pub(super) fn times(
    document: &Document<'_>,
    timeout: Option<Place<'_>>,
    retries: Option<Place<'_>>,
    rule: &mut Json,
    output: &mut Output,
) {
    let mut whole = None;
    if let Some(at) = timeout {
        match at.text().as_deref().and_then(seconds) {
            Some(0.0) => rule["timeouts"]["request"] = json!("0s"),
            Some(some) => {
                whole = Some(some);
                rule["timeouts"]["request"] = json!(duration(some));
            }
            None => output.dropped(document, &at, "is no duration", ""),
        }
    }
    let Some(at) = retries else { return };
    let mut fields = at.fields();
    let attempts = fields.take("attempts").and_then(|one| one.number());
    if let Some(place) = fields.take("perTryTimeout")
        && let Some(each) = place
            .text()
            .as_deref()
            .and_then(seconds)
            .filter(|one| *one > 0.0)
    {
        let each = whole.map_or(each, |whole: f64| whole.min(each));
        rule["timeouts"]["backendRequest"] = json!(duration(each));
    }
    let mut retry = json!({});
    let on = fields.take("retryOn");
    let mut codes: Vec<u16> = Vec::new();
    for word in on.iter().filter_map(Place::text).flat_map(|text| {
        text.split(',')
            .map(|one| one.trim().to_owned())
            .collect::<Vec<_>>()
    }) {
        match word.as_str() {
            "5xx" => codes.extend([500, 502, 503, 504]),
            "gateway-error" => codes.extend([502, 503, 504]),
            "retriable-4xx" => codes.push(409),
            // What weft retries by itself.
            "connect-failure"
            | "refused-stream"
            | "reset"
            | "reset-before-request"
            | "unavailable"
            | "cancelled"
            | "retriable-status-codes"
            | "" => {}
            word => match word.parse() {
                Ok(code) if (400..=599).contains(&code) => codes.push(code),
                _ => {
                    if let Some(at) = &on {
                        let message = format!("{word} has no counterpart and is left out");
                        output.dropped(document, at, &message, "");
                    }
                }
            },
        }
    }
    codes.sort_unstable();
    codes.dedup();
    if !codes.is_empty() {
        retry["codes"] = json!(codes);
    }
    if let Some(backoff) = fields.take("backoff").and_then(|one| seconds(&one.text()?)) {
        retry["backoff"] = json!(duration(backoff));
    }
    fields.rest(document, output);
    match attempts {
        Some(0.0) => {
            let message = "switches retries off, which a rule cannot say";
            let hint = "write retry: { attempts: 0 } in a TrafficPolicy for the route";
            return output.dropped(document, &at, message, hint);
        }
        Some(some) => retry["attempts"] = json!(some.clamp(1.0, 10.0) as u32),
        None => {}
    }
    let message = "weft retries only idempotent methods, within a budget of 20 %";
    output.told(
        document,
        &at,
        message,
        "a TrafficPolicy may say more: retry.nonIdempotent, retryBudget",
    );
    rule["retry"] = retry;
}

pub(super) fn fault(document: &Document<'_>, at: &Place<'_>, output: &mut Output) -> Option<Json> {
    let mut fields = at.fields();
    let mut fault = json!({});
    let percent = |at: &Place<'_>| {
        let value = at
            .field("percentage")
            .and_then(|one| one.field("value")?.number());
        value
            .or_else(|| at.field("percent")?.number())
            .unwrap_or(100.0)
    };
    if let Some(at) = fields.take("delay") {
        match at.field("fixedDelay").and_then(|one| seconds(&one.text()?)) {
            Some(delay) => {
                fault["delay"] = json!({ "percent": percent(&at), "duration": duration(delay) });
            }
            None => output.dropped(document, &at, "only a fixedDelay has a counterpart", ""),
        }
    }
    if let Some(at) = fields.take("abort") {
        let status = at.field("httpStatus").and_then(|one| one.number());
        let grpc = at.field("grpcStatus").and_then(|one| one.text());
        match (status, grpc) {
            (Some(status), _) => {
                fault["abort"] = json!({ "percent": percent(&at), "status": status as u16 });
            }
            (None, Some(grpc)) => {
                fault["abort"] = json!({ "percent": percent(&at), "grpcStatus": grpc });
            }
            (None, None) => output.dropped(document, &at, "only a status has a counterpart", ""),
        }
    }
    fields.rest(document, output);
    (fault != json!({})).then_some(fault)
}
