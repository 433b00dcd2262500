//! Reads filters, and refuses those that exclude each other (Gateway API v1, HTTPRouteRule.filters).

use std::collections::BTreeSet;

use super::super::backends::{Extras, backend};
use super::super::is_subdomain;
use super::super::matches::{METHODS, bounded, check_literal};
use super::super::parents::all_or_none;
use super::*;
use crate::resources::HttpRouteMatch;
use crate::resources::decode::{At, Decoder, Fields};
use crate::resources::route::PathMatchType;
use crate::resources::service::port_number;

/// Which filters a list may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::resources::route) enum Level {
    /// All.
    Http,
    /// Those that a gRPC client understands.
    Grpc,
}

const TYPES: [(&str, FilterType, &str); 7] = [
    (
        "RequestHeaderModifier",
        FilterType::RequestHeaderModifier,
        "requestHeaderModifier",
    ),
    (
        "ResponseHeaderModifier",
        FilterType::ResponseHeaderModifier,
        "responseHeaderModifier",
    ),
    (
        "RequestRedirect",
        FilterType::RequestRedirect,
        "requestRedirect",
    ),
    ("URLRewrite", FilterType::UrlRewrite, "urlRewrite"),
    ("RequestMirror", FilterType::RequestMirror, "requestMirror"),
    ("CORS", FilterType::Cors, "cors"),
    ("ExtensionRef", FilterType::ExtensionRef, "extensionRef"),
];

impl FilterType {
    /// Whether it may stand more than once in a list.
    fn repeats(self) -> bool {
        matches!(self, Self::RequestMirror | Self::ExtensionRef)
    }

    fn is_of_grpc(self) -> bool {
        match self {
            Self::RequestHeaderModifier
            | Self::ResponseHeaderModifier
            | Self::RequestMirror
            | Self::ExtensionRef => true,
            Self::RequestRedirect | Self::UrlRewrite | Self::Cors => false,
        }
    }
}

/// Reads `filters`; none at all is an empty list.
pub(in crate::resources::route) fn filters(
    decoder: &mut Decoder<'_>,
    fields: &mut Fields<'_>,
    level: Level,
) -> Vec<RouteFilter> {
    let Some(at) = fields.take("filters") else {
        return Vec::new();
    };
    let items = decoder.list(&at, limits::FILTERS_PER_RULE_MAX);
    let mut read: Vec<RouteFilter> = Vec::new();
    for item in &items {
        let Some(one) = filter(decoder, item, level) else {
            continue;
        };
        if read.iter().any(|other| other.kind == one.kind) && !one.kind.repeats() {
            let message = format!("a second {} in one list", name_of(one.kind));
            decoder.error(item, message, Some("join them into one".to_owned()));
        }
        read.push(one);
    }
    let has = |kind| read.iter().any(|one| one.kind == kind);
    if has(FilterType::RequestRedirect) && has(FilterType::UrlRewrite) {
        let hint = "a redirect is answered, and nothing is sent that could be rewritten";
        let message = "RequestRedirect and URLRewrite exclude each other";
        decoder.error(&at, message, Some(hint.to_owned()));
    }
    read
}

fn name_of(kind: FilterType) -> &'static str {
    let found = TYPES.iter().find(|(_, one, _)| *one == kind);
    found.map_or("", |(name, _, _)| name)
}

fn filter(decoder: &mut Decoder<'_>, at: &At<'_>, level: Level) -> Option<RouteFilter> {
    let mut fields = Fields::open(decoder, at)?;
    let choices: Vec<(&'static str, FilterType)> = TYPES
        .iter()
        .filter(|(_, kind, _)| level == Level::Http || kind.is_of_grpc())
        .map(|(name, kind, _)| (*name, *kind))
        .collect();
    let kind = fields
        .require(decoder, "type")
        .and_then(|at| decoder.choice(&at, &choices));
    let mut read = RouteFilter {
        kind: kind.unwrap_or(FilterType::ExtensionRef),
        request_header_modifier: None,
        response_header_modifier: None,
        request_redirect: None,
        url_rewrite: None,
        request_mirror: None,
        cors: None,
        extension_ref: None,
    };
    let mut whole = kind.is_some();
    for (name, of, field) in TYPES {
        let Some(at) = fields.take(field) else {
            if kind == Some(of) {
                let place = format!("{}.{field}", at.path);
                let hint = format!("type: {name} needs it");
                let message = "is missing".to_owned();
                decoder.error_at(at.node.position, place, message, Some(hint));
                whole = false;
            }
            continue;
        };
        if let Some(kind) = kind.filter(|kind| *kind != of) {
            let message = format!("stands beside type: {}", name_of(kind));
            let hint = format!("write type: {name}, or remove it");
            decoder.error(&at, message, Some(hint));
            whole = false;
            continue;
        }
        let errors = decoder.findings.errors();
        match of {
            FilterType::RequestHeaderModifier => {
                read.request_header_modifier = header_changes(decoder, &at, true);
            }
            FilterType::ResponseHeaderModifier => {
                read.response_header_modifier = header_changes(decoder, &at, false);
            }
            FilterType::RequestRedirect => read.request_redirect = redirect(decoder, &at),
            FilterType::UrlRewrite => read.url_rewrite = rewrite(decoder, &at),
            FilterType::RequestMirror => read.request_mirror = mirror(decoder, &at),
            FilterType::Cors => read.cors = cors(decoder, &at),
            FilterType::ExtensionRef => read.extension_ref = extension(decoder, &at),
        }
        whole &= decoder.findings.errors() == errors;
    }
    fields.close(decoder);
    whole.then_some(read)
}

/// Fields by which messages are framed; they belong to each connection (RFC 9110 section 7.6.1).
const FRAMING: [&str; 9] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

fn header_changes(
    decoder: &mut Decoder<'_>,
    at: &At<'_>,
    of_request: bool,
) -> Option<HeaderModifierSpec> {
    let mut fields = Fields::open(decoder, at)?;
    let mut seen = BTreeSet::new();
    let mut pairs = |decoder: &mut Decoder<'_>, field| -> Vec<HeaderSpec> {
        let Some(at) = fields.take(field) else {
            return Vec::new();
        };
        let items = decoder.list(&at, limits::FILTER_HEADERS_MAX);
        let read = items.iter().filter_map(|item| {
            let mut fields = Fields::open(decoder, item)?;
            let name = fields
                .require(decoder, "name")
                .and_then(|at| changed_name(decoder, &at, of_request, &mut seen));
            let value = fields.require(decoder, "value").and_then(|at| {
                let value = bounded(decoder, &at, 1..=limits::HEADER_VALUE_LENGTH_MAX)?;
                if crate::table::FieldValue::try_from(value.clone()).is_err() {
                    let hint = "write visible characters of ASCII, spaces and tabs".to_owned();
                    decoder.error(&at, "no header can have this value", Some(hint));
                    return None;
                }
                Some(value)
            });
            fields.close(decoder);
            Some(HeaderSpec {
                name: name?,
                value: value?,
            })
        });
        read.collect()
    };
    let set = pairs(decoder, "set");
    let add = pairs(decoder, "add");
    let remove = fields.take("remove").map(|at| {
        let items = decoder.list(&at, limits::FILTER_HEADERS_MAX);
        let names = items
            .iter()
            .filter_map(|item| changed_name(decoder, item, of_request, &mut seen));
        names.collect()
    });
    fields.close(decoder);
    Some(HeaderModifierSpec {
        set,
        add,
        remove: remove.unwrap_or_default(),
    })
}

/// The name of a field that a filter changes, as it was written. Each may be named once.
fn changed_name(
    decoder: &mut Decoder<'_>,
    at: &At<'_>,
    of_request: bool,
    seen: &mut BTreeSet<String>,
) -> Option<String> {
    let written = bounded(decoder, at, 1..=limits::HEADER_NAME_LENGTH_MAX)?;
    let name = decoder.header_name(at)?;
    if FRAMING.contains(&name.as_str()) {
        let message = format!("{written} belongs to each connection");
        let hint = "the sidecars write it".to_owned();
        decoder.error(at, message, Some(hint));
        return None;
    }
    if of_request && name == "host" {
        let hint = "use a filter of type URLRewrite, with hostname".to_owned();
        decoder.error(at, "Host is not changed by this filter", Some(hint));
        return None;
    }
    if !seen.insert(name) {
        let message = format!("{written} is named twice in one filter");
        decoder.error(at, message, Some("set, add or remove it".to_owned()));
        return None;
    }
    Some(written)
}

fn hostname(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<String> {
    let text = decoder.text(at)?;
    // Gateway API v1, PreciseHostname: no address.
    if is_subdomain(&text) && text.parse::<std::net::IpAddr>().is_err() {
        return Some(text);
    }
    let hint = "write a host in lower case, without a port, as example.org".to_owned();
    decoder.error(at, format!("{text:?} is no hostname"), Some(hint));
    None
}

fn redirect(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<RequestRedirectSpec> {
    let mut fields = Fields::open(decoder, at)?;
    let schemes = [
        ("http", RedirectScheme::Http),
        ("https", RedirectScheme::Https),
    ];
    let scheme = fields
        .take("scheme")
        .map(|at| decoder.choice(&at, &schemes));
    let host = fields.take("hostname").map(|at| hostname(decoder, &at));
    let path = fields.take("path").map(|at| path_change(decoder, &at));
    let port = fields.take("port").map(|at| port_number(decoder, &at));
    let status = match fields.take("statusCode") {
        Some(at) => status(decoder, &at),
        None => Some(found()),
    };
    fields.close(decoder);
    Some(RequestRedirectSpec {
        scheme: all_or_none(scheme)?,
        hostname: all_or_none(host)?,
        path: all_or_none(path)?,
        port: all_or_none(port)?,
        status_code: status?,
    })
}

fn status(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<u16> {
    let number = decoder.integer(at, 100, 599)?;
    let number = u16::try_from(number).ok()?;
    if [301, 302, 303, 307, 308].contains(&number) {
        return Some(number);
    }
    let hint = "use 301, 302, 303, 307 or 308".to_owned();
    decoder.error(at, format!("{number} is no redirect"), Some(hint));
    None
}

fn path_change(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<PathModifierSpec> {
    let mut fields = Fields::open(decoder, at)?;
    let kinds = [
        ("ReplaceFullPath", PathModifierType::ReplaceFullPath),
        ("ReplacePrefixMatch", PathModifierType::ReplacePrefixMatch),
    ];
    let errors = decoder.findings.errors();
    let kind = fields
        .require(decoder, "type")
        .and_then(|at| decoder.choice(&at, &kinds));
    let mut path = |decoder: &mut Decoder<'_>, name, of: PathModifierType| {
        let at = fields.take(name)?;
        if kind.is_some_and(|kind| kind != of) {
            let hint = "write the field of the same name as the type".to_owned();
            decoder.error(&at, "does not belong to this type", Some(hint));
            return None;
        }
        let text = bounded(decoder, &at, 0..=limits::PATH_LENGTH_MAX)?;
        let is_empty = of == PathModifierType::ReplacePrefixMatch && text.is_empty();
        if !is_empty {
            check_literal(decoder, &at, &text)?;
        }
        Some(text)
    };
    let full = path(
        decoder,
        "replaceFullPath",
        PathModifierType::ReplaceFullPath,
    );
    let prefix = path(
        decoder,
        "replacePrefixMatch",
        PathModifierType::ReplacePrefixMatch,
    );
    fields.close(decoder);
    let kind = kind?;
    if decoder.findings.errors() > errors {
        return None;
    }
    if full.is_none() && prefix.is_none() {
        let (name, _) = kinds[usize::from(kind == PathModifierType::ReplacePrefixMatch)];
        let message = format!("type: {name} needs the field of the same name");
        decoder.error(at, message, None);
        return None;
    }
    Some(PathModifierSpec {
        kind,
        replace_full_path: full,
        replace_prefix_match: prefix,
    })
}

fn rewrite(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<UrlRewriteSpec> {
    let mut fields = Fields::open(decoder, at)?;
    let host = fields.take("hostname").map(|at| hostname(decoder, &at));
    let path = fields.take("path").map(|at| path_change(decoder, &at));
    fields.close(decoder);
    Some(UrlRewriteSpec {
        hostname: all_or_none(host)?,
        path: all_or_none(path)?,
    })
}

fn mirror(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<RequestMirrorSpec> {
    let mut fields = Fields::open(decoder, at)?;
    let to = fields
        .require(decoder, "backendRef")
        .and_then(|at| backend(decoder, &at, Extras::None));
    let percent_at = fields.take("percent");
    let percent = percent_at.as_ref().map(|at| decoder.integer(at, 0, 100));
    let fraction_at = fields.take("fraction");
    let fraction = fraction_at.as_ref().map(|at| fraction(decoder, at));
    if let (Some(_), Some(at)) = (&percent_at, &fraction_at) {
        let hint = Some("remove one".to_owned());
        decoder.error(at, "percent and fraction exclude each other", hint);
    }
    fields.close(decoder);
    Some(RequestMirrorSpec {
        backend_ref: to?,
        percent: all_or_none(percent)?,
        fraction: all_or_none(fraction)?,
    })
}

fn fraction(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<FractionSpec> {
    let most = i32::MAX.unsigned_abs();
    let mut fields = Fields::open(decoder, at)?;
    let numerator = fields
        .require(decoder, "numerator")
        .and_then(|at| decoder.integer(&at, 0, most));
    let denominator = match fields.take("denominator") {
        Some(at) => decoder.integer(&at, 1, most),
        None => Some(hundred()),
    };
    fields.close(decoder);
    let (numerator, denominator) = (numerator?, denominator?);
    if numerator > denominator {
        let message = format!("{numerator} of {denominator} is more than all");
        decoder.error(at, message, None);
        return None;
    }
    Some(FractionSpec {
        numerator,
        denominator,
    })
}

fn cors(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<CorsSpec> {
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

fn extension(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<ExtensionRefSpec> {
    let mut fields = Fields::open(decoder, at)?;
    let mut text = |decoder: &mut Decoder<'_>, name, least| {
        let at = fields.require(decoder, name)?;
        bounded(decoder, &at, least..=limits::SUBDOMAIN_LENGTH_MAX)
    };
    let group = text(decoder, "group", 0);
    let kind = text(decoder, "kind", 1);
    let name = text(decoder, "name", 1);
    fields.close(decoder);
    let read = ExtensionRefSpec {
        group: group?,
        kind: kind?,
        name: name?,
    };
    let message = format!(
        "weft knows no filter {} {}, so these requests get 500",
        read.kind, read.name
    );
    decoder.warning(at, message, Some("remove it".to_owned()));
    Some(read)
}

/// Why filters that replace a prefix cannot stand in a rule with these matches (Gateway API v1,
/// HTTPPathModifier.replacePrefixMatch).
pub(in crate::resources::route) fn prefix_fault(
    filters: &[RouteFilter],
    matches: &[HttpRouteMatch],
) -> Option<&'static str> {
    let paths = filters.iter().flat_map(|one| {
        let redirect = one.request_redirect.as_ref();
        let rewrite = one.url_rewrite.as_ref();
        let redirected = redirect.and_then(|one| one.path.as_ref());
        redirected.or(rewrite.and_then(|one| one.path.as_ref()))
    });
    let replaces = |path: &PathModifierSpec| path.kind == PathModifierType::ReplacePrefixMatch;
    if !paths.into_iter().any(replaces) {
        return None;
    }
    let is_prefix = |one: &HttpRouteMatch| {
        let path = one.path.as_ref();
        path.is_some_and(|path| path.kind == PathMatchType::PathPrefix)
    };
    match matches {
        [only] if is_prefix(only) => None,
        _ => Some(
            "ReplacePrefixMatch needs exactly one match in the rule, with a path of type PathPrefix",
        ),
    }
}
