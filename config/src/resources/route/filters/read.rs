//! Reads filters, and refuses those that exclude each other (Gateway API v1, HTTPRouteRule.filters).

mod cors;
mod url;

use std::collections::BTreeSet;

use super::super::backends::{Extras, backend};
use super::super::matches::bounded;
use super::*;
use crate::resources::HttpRouteMatch;
use crate::resources::decode::{At, Decoder, Fields, all_or_none};
use crate::resources::route::PathMatchType;
use cors::cors;
use url::{redirect, rewrite};

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

/// Fields that the sidecars write themselves: they frame a message or belong to each connection (RFC 9110
/// section 7.6.1), or tell of a hop.
pub(in crate::resources::route) const FRAMING: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "via",
    "x-forwarded-client-cert",
];

/// How a call of gRPC ended, which only its server says.
const OF_CALLS: [&str; 3] = ["grpc-status", "grpc-message", "grpc-status-details-bin"];

/// Begins the names of the mesh's own fields.
const OF_THE_MESH: &str = "weft-";

/// Why no filter may change a field of this name. Some applications read any character of a name that is
/// neither a letter nor a digit as a dash (RFC 3875 section 4.1.18), so such twins count as well.
fn reserved(name: &str, of_request: bool) -> Option<&'static str> {
    let read_as: String = name
        .chars()
        .map(|letter| match letter.is_ascii_alphanumeric() {
            true => letter.to_ascii_lowercase(),
            false => '-',
        })
        .collect();
    if FRAMING.contains(&read_as.as_str()) {
        return Some("belongs to each connection");
    }
    if read_as.starts_with(OF_THE_MESH) {
        return Some("belongs to the mesh");
    }
    (!of_request && OF_CALLS.contains(&name)).then_some("is the server's to say")
}

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
    if let Some(why) = reserved(&name, of_request) {
        let message = format!("{written} {why}");
        let hint = "no filter changes it: remove it here".to_owned();
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
