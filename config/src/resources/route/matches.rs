//! Conditions of routes on requests (Gateway API v1, HTTPRouteMatch). Names that stand twice: the first
//! counts.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limits;
use crate::resources::decode::{At, Decoder, Fields};
use crate::resources::schema::up_to;
use crate::table::{HttpMatch, PathMatch, Pattern, check_path};

/// Conditions on a request; all that are present must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct HttpRouteMatch {
    /// A condition on the path, without its query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "every path"))]
    pub path: Option<HttpPathMatch>,
    /// The method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-range" = "`GET`, `HEAD`, `POST`, `PUT`, `DELETE`, `CONNECT`, `OPTIONS`, `TRACE`, `PATCH`",
        "x-default" = "every method"
    ))]
    pub method: Option<String>,
    /// Headers that the request must have, all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-range" = up_to(limits::HEADERS_PER_MATCH_MAX), "x-default" = "none"))]
    pub headers: Vec<HttpHeaderMatch>,
    /// Parameters that the query must have, all of them. It may have more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-range" = up_to(limits::HEADERS_PER_MATCH_MAX), "x-default" = "none"))]
    pub query_params: Vec<HttpQueryParamMatch>,
}

/// A condition on a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct HttpPathMatch {
    /// How the path is compared.
    #[serde(rename = "type")]
    #[schemars(default = "prefix")]
    pub kind: PathMatchType,
    /// What it is compared with. It begins with `/`, unless it is a regular expression.
    #[schemars(default = "root", extend("x-range" = format!("up to {} characters", limits::PATH_LENGTH_MAX)))]
    pub value: String,
}

/// How a path is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PathMatchType {
    /// the whole path is equal.
    Exact,
    /// the path begins with these whole segments: `/v2` takes `/v2` and `/v2/a`, not `/v2a`.
    PathPrefix,
    /// the whole path matches, in the syntax of RE2.
    RegularExpression,
}

/// How a text is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MatchType {
    /// the whole value is equal.
    #[default]
    Exact,
    /// the whole value matches, in the syntax of RE2.
    RegularExpression,
}

/// A header and the value that it must have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct HttpHeaderMatch {
    /// How the value is compared.
    #[serde(rename = "type", default, skip_serializing_if = "is_exact")]
    pub kind: MatchType,
    /// The header's name, in any case. `host` is the host and port as the client wrote them, in `Host` or in
    /// `:authority`. Names that begin with `weft-` are the mesh's own. Of a name that stands twice, the first
    /// counts.
    #[schemars(extend("x-range" = "1 to 256 characters"))]
    pub name: String,
    /// The value of one of the header's lines, with its case.
    #[schemars(extend("x-range" = "1 to 4096 characters of ASCII"))]
    pub value: String,
}

/// A parameter of the query and the value that it must have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct HttpQueryParamMatch {
    /// How the value is compared.
    #[serde(rename = "type", default, skip_serializing_if = "is_exact")]
    pub kind: MatchType,
    /// The parameter's name, with its case. Of a name that stands twice, the first counts; so it is in
    /// requests.
    #[schemars(extend("x-range" = "1 to 256 characters of ASCII"))]
    pub name: String,
    /// Its value, with its case.
    #[schemars(extend("x-range" = "1 to 1024 characters"))]
    pub value: String,
}

fn is_exact(kind: &MatchType) -> bool {
    *kind == MatchType::Exact
}

fn prefix() -> PathMatchType {
    PathMatchType::PathPrefix
}

fn root() -> String {
    "/".to_owned()
}

impl HttpRouteMatch {
    /// As a table has it, without what always holds. `None` if a regular expression is none, which no
    /// document has that this build read.
    pub(crate) fn compiled(&self) -> Option<HttpMatch> {
        let mut compiled = HttpMatch {
            method: self.method.clone(),
            ..HttpMatch::default()
        };
        if let Some(path) = &self.path {
            compiled.path = path.compiled()?;
        }
        add_headers(&mut compiled, &self.headers)?;
        for one in first_of_each(&self.query_params, |one| one.name.as_str()) {
            let name = one.name.clone();
            match one.kind {
                MatchType::Exact => compiled.queries.push((name, one.value.clone())),
                MatchType::RegularExpression => {
                    let pattern = one.value.parse().ok()?;
                    compiled.query_patterns.push((name, pattern));
                }
            }
        }
        Some(compiled)
    }
}

/// Adds conditions on headers to a match of a table; `None` as in [`HttpRouteMatch::compiled`].
pub(crate) fn add_headers(compiled: &mut HttpMatch, headers: &[HttpHeaderMatch]) -> Option<()> {
    for one in first_of_each(headers, |one| one.name.as_str()) {
        let name = one.name.clone();
        match one.kind {
            MatchType::Exact => compiled.headers.push((name, one.value.clone())),
            MatchType::RegularExpression => {
                let pattern = one.value.parse().ok()?;
                compiled.header_patterns.push((name, pattern));
            }
        }
    }
    Some(())
}

/// Of conditions with one name only the first counts (Gateway API v1, HTTPHeaderMatch.name).
fn first_of_each<'a, T>(
    all: &'a [T],
    name: impl Fn(&T) -> &str + 'a,
) -> impl Iterator<Item = &'a T> {
    all.iter().enumerate().filter_map(move |(i, one)| {
        let is_first = !all[..i].iter().any(|other| name(other) == name(one));
        is_first.then_some(one)
    })
}

impl HttpPathMatch {
    /// `None` if a regular expression is none; the prefix `/` is no condition.
    fn compiled(&self) -> Option<Option<PathMatch>> {
        Some(match self.kind {
            PathMatchType::PathPrefix if self.value == "/" => None,
            PathMatchType::PathPrefix => Some(PathMatch::Prefix(self.value.clone())),
            PathMatchType::Exact => Some(PathMatch::Exact(self.value.clone())),
            PathMatchType::RegularExpression => Some(PathMatch::Pattern(self.value.parse().ok()?)),
        })
    }
}

/// Reads the `matches` of a rule.
pub(super) fn matches(decoder: &mut Decoder<'_>, fields: &mut Fields<'_>) -> Vec<HttpRouteMatch> {
    let Some(at) = fields.take("matches") else {
        return Vec::new();
    };
    let items = decoder.list(&at, limits::MATCHES_PER_RULE_MAX);
    let read = items.iter().filter_map(|item| request_match(decoder, item));
    read.collect()
}

fn request_match(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<HttpRouteMatch> {
    let mut fields = Fields::open(decoder, at)?;
    let path = fields.take("path").map(|at| path_match(decoder, &at));
    let method = fields.take("method").map(|at| {
        let method = decoder.choice(&at, &METHODS.map(|one| (one, one)))?;
        Some(method.to_owned())
    });
    let headers = header_matches(decoder, &mut fields);
    let query_params = fields.take("queryParams").map(|at| {
        let items = decoder.list(&at, limits::HEADERS_PER_MATCH_MAX);
        let read = items.iter().filter_map(|item| query_match(decoder, item));
        let read: Vec<HttpQueryParamMatch> = read.collect();
        warn_of_seconds(decoder, &at, "parameter", read.iter().map(|one| &one.name));
        read
    });
    fields.close(decoder);
    Some(HttpRouteMatch {
        path: super::super::decode::all_or_none(path)?,
        method: super::super::decode::all_or_none(method)?,
        headers,
        query_params: query_params.unwrap_or_default(),
    })
}

/// Methods of Gateway API v1, HTTPMethod.
pub(super) const METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
];

/// Reads the `headers` of a match.
pub(super) fn header_matches(
    decoder: &mut Decoder<'_>,
    fields: &mut Fields<'_>,
) -> Vec<HttpHeaderMatch> {
    let Some(at) = fields.take("headers") else {
        return Vec::new();
    };
    let items = decoder.list(&at, limits::HEADERS_PER_MATCH_MAX);
    let read = items.iter().filter_map(|item| header_match(decoder, item));
    let read: Vec<HttpHeaderMatch> = read.collect();
    warn_of_seconds(decoder, &at, "header", read.iter().map(|one| &one.name));
    read
}

/// Gateway API v1, HTTPHeaderMatch.name: only the first of one name is considered.
fn warn_of_seconds<'a>(
    decoder: &mut Decoder<'_>,
    at: &At<'_>,
    what: &str,
    names: impl Iterator<Item = &'a String>,
) {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            let message = format!("{what} {name} is listed twice, and only the first counts");
            decoder.warning(at, message, Some("remove one".to_owned()));
        }
    }
}

const MATCH_TYPES: [(&str, MatchType); 2] = [
    ("Exact", MatchType::Exact),
    ("RegularExpression", MatchType::RegularExpression),
];

/// Reads the `type` of a condition on a text.
pub(super) fn match_type(decoder: &mut Decoder<'_>, fields: &mut Fields<'_>) -> Option<MatchType> {
    match fields.take("type") {
        Some(at) => decoder.choice(&at, &MATCH_TYPES),
        None => Some(MatchType::Exact),
    }
}

/// Reports an expression that is none.
pub(super) fn check_pattern(decoder: &mut Decoder<'_>, at: &At<'_>, text: &str) -> Option<()> {
    match text.parse::<Pattern>() {
        Ok(_) => Some(()),
        Err(error) => {
            let hint = "write one in the syntax of RE2, as /v[0-9]+; the whole text must match";
            decoder.error(at, format!("{text:?}: {error}"), Some(hint.to_owned()));
            None
        }
    }
}

/// A text whose length is bounded.
pub(super) fn bounded(
    decoder: &mut Decoder<'_>,
    at: &At<'_>,
    range: std::ops::RangeInclusive<usize>,
) -> Option<String> {
    let text = decoder.text(at)?;
    let length = text.chars().count();
    if range.contains(&length) {
        return Some(text);
    }
    let (least, most) = (range.start(), range.end());
    let message = format!("has {length} characters, and {least} to {most} are allowed");
    decoder.error(at, message, None);
    None
}

fn path_match(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<HttpPathMatch> {
    let mut fields = Fields::open(decoder, at)?;
    let kinds = [
        ("Exact", PathMatchType::Exact),
        ("PathPrefix", PathMatchType::PathPrefix),
        ("RegularExpression", PathMatchType::RegularExpression),
    ];
    let kind = match fields.take("type") {
        Some(at) => decoder.choice(&at, &kinds),
        None => Some(prefix()),
    };
    let value = match fields.take("value") {
        Some(at) => {
            let value = bounded(decoder, &at, 1..=limits::PATH_LENGTH_MAX);
            value.filter(|value| match kind {
                Some(PathMatchType::RegularExpression) => {
                    check_pattern(decoder, &at, value).is_some()
                }
                Some(PathMatchType::Exact | PathMatchType::PathPrefix) => {
                    check_literal(decoder, &at, value).is_some()
                }
                None => true,
            })
        }
        None => Some(root()),
    };
    fields.close(decoder);
    Some(HttpPathMatch {
        kind: kind?,
        value: value?,
    })
}

/// Reports a path that no request can have, or that Gateway API does not take (v1, HTTPPathMatch.value).
pub(super) fn check_literal(decoder: &mut Decoder<'_>, at: &At<'_>, path: &str) -> Option<()> {
    if let Err(error) = check_path(path) {
        decoder.error(at, format!("{path:?} is not valid: {error}"), None);
        return None;
    }
    let fault = if !is_written_as_path(path) {
        "use letters and digits of ASCII, -._~!$&'()*+,;=:@ and %XX"
    } else if path.to_ascii_lowercase().contains("%2f") {
        "an encoded slash is refused in requests: write /"
    } else {
        return Some(());
    };
    let message = format!("{path:?} is not valid");
    decoder.error(at, message, Some(fault.to_owned()));
    None
}

/// RFC 3986 section 3.3: `pchar` and `/`.
fn is_written_as_path(path: &str) -> bool {
    let bytes = path.as_bytes();
    let is_hex = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
    bytes.iter().enumerate().all(|(i, byte)| match byte {
        b'%' => is_hex(i + 1) && is_hex(i + 2),
        byte => byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(byte),
    })
}

fn header_match(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<HttpHeaderMatch> {
    let mut fields = Fields::open(decoder, at)?;
    let kind = match_type(decoder, &mut fields);
    let name = fields.require(decoder, "name").and_then(|at| {
        bounded(decoder, &at, 1..=limits::HEADER_NAME_LENGTH_MAX)?;
        decoder.header_name(&at)
    });
    let value = fields.require(decoder, "value").and_then(|at| {
        let value = bounded(decoder, &at, 1..=limits::HEADER_VALUE_LENGTH_MAX)?;
        match kind {
            Some(MatchType::RegularExpression) => check_pattern(decoder, &at, &value)?,
            Some(MatchType::Exact) if http::HeaderValue::from_str(&value).is_err() => {
                decoder.error(&at, "no header can have this value", None);
                return None;
            }
            Some(MatchType::Exact) | None => {}
        }
        Some(value)
    });
    fields.close(decoder);
    Some(HttpHeaderMatch {
        kind: kind?,
        name: name?,
        value: value?,
    })
}

fn query_match(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<HttpQueryParamMatch> {
    let mut fields = Fields::open(decoder, at)?;
    let kind = match_type(decoder, &mut fields);
    let name = fields.require(decoder, "name").and_then(|at| {
        let name = bounded(decoder, &at, 1..=limits::HEADER_NAME_LENGTH_MAX)?;
        // Gateway API v1, HTTPHeaderName: names of parameters are written like those of headers.
        if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
            let hint = "use letters and digits of ASCII and !#$%&'*+-.^_`|~".to_owned();
            decoder.error(&at, format!("{name:?} is not valid"), Some(hint));
            return None;
        }
        Some(name)
    });
    let value = fields.require(decoder, "value").and_then(|at| {
        let value = bounded(decoder, &at, 1..=limits::QUERY_VALUE_LENGTH_MAX)?;
        if kind == Some(MatchType::RegularExpression) {
            check_pattern(decoder, &at, &value)?;
        }
        Some(value)
    });
    fields.close(decoder);
    Some(HttpQueryParamMatch {
        kind: kind?,
        name: name?,
        value: value?,
    })
}
