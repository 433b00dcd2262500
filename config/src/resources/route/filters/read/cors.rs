//! Reads CORS filters.

use super::super::super::is_subdomain;
use super::super::super::matches::METHODS;
use super::super::*;
use crate::resources::decode::{At, Decoder, Fields, all_or_none};

pub(super) fn cors(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<CorsSpec> {
    let mut fields = Fields::open(decoder, at)?;
    let mut list = |decoder: &mut Decoder<'_>, name, most, check: fn(&str) -> bool, hint: &str| {
        let Some(at) = fields.take(name) else {
            return Vec::new();
        };
        let items = decoder.list(&at, most);
        let mut read: Vec<String> = Vec::new();
        for item in &items {
            let Some(text) = decoder.text(item) else {
                continue;
            };
            if text != "*" && !check(&text) {
                let message = format!("{text:?} is not valid");
                decoder.error(item, message, Some(hint.to_owned()));
            } else if read.contains(&text) {
                let message = format!("{text} is listed twice");
                decoder.error(item, message, Some("remove one".to_owned()));
            } else {
                read.push(text);
            }
        }
        if read.len() > 1 && read.iter().any(|one| one == "*") {
            let hint = "remove the others".to_owned();
            decoder.error(&at, "* means all and stands alone", Some(hint));
        }
        read
    };
    let is_name = |text: &str| http::HeaderName::from_bytes(text.as_bytes()).is_ok();
    let is_method = |text: &str| METHODS.contains(&text);
    let names = "write the name of a header field, or *";
    let origins = list(
        decoder,
        "allowOrigins",
        limits::CORS_LIST_MAX,
        is_origin,
        "write http:// or https:// with a host and no path, as https://*.example.org:8443, or *",
    );
    let methods = list(
        decoder,
        "allowMethods",
        METHODS.len(),
        is_method,
        "write a method in upper case, or *",
    );
    let headers = list(
        decoder,
        "allowHeaders",
        limits::CORS_LIST_MAX,
        is_name,
        names,
    );
    let exposed = list(
        decoder,
        "exposeHeaders",
        limits::CORS_LIST_MAX,
        is_name,
        names,
    );
    let credentials = fields.take("allowCredentials").map(|at| decoder.truth(&at));
    let max_age = fields
        .take("maxAge")
        .map(|at| decoder.integer(&at, 1, i32::MAX.unsigned_abs()));
    fields.close(decoder);
    Some(CorsSpec {
        allow_origins: origins,
        allow_credentials: all_or_none(credentials)?,
        allow_methods: methods,
        allow_headers: headers,
        expose_headers: exposed,
        max_age: all_or_none(max_age)?,
    })
}

/// `scheme://host[:port]`, whose host may begin with `*.` (Gateway API v1, CORSOrigin).
fn is_origin(text: &str) -> bool {
    let Some(rest) = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"))
    else {
        return false;
    };
    let (host, port) = match rest.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (rest, None),
    };
    let is_port = |text: &str| {
        text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0)
    };
    let host = host.strip_prefix("*.").unwrap_or(host);
    is_subdomain(&host.to_ascii_lowercase()) && port.is_none_or(is_port)
}
