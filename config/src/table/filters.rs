//! What a route does to requests and responses (Gateway API v1, HTTPRouteFilter). Each type stands at most
//! once in a list, but for mirrors, so the order of types is fixed here: CORS answers a preflight, a redirect
//! answers, then headers are changed, then the URL is rewritten, then copies are sent.

use std::fmt;

use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use super::ServiceName;
use super::traffic::is_default;

/// The filters of a rule, or of one of its backends. Those of the rule come first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filters {
    /// Who may call from pages of other origins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cors: Option<Cors>,
    /// Answers with another URL; nothing is sent to a backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redirect: Option<Redirect>,
    /// Changes of the request's header fields.
    #[serde(skip_serializing_if = "is_default")]
    pub request_headers: HeaderChanges,
    /// Changes of the response's header fields. They hold for the application's answers, not for those of the
    /// mesh.
    #[serde(skip_serializing_if = "is_default")]
    pub response_headers: HeaderChanges,
    /// Another host or path for the backend.
    #[serde(skip_serializing_if = "is_default")]
    pub rewrite: Rewrite,
    /// Destinations that get a copy, each drawn for itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<Mirror>,
    /// A filter that leads nowhere, as `KIND NAME`: every request is answered with 500, as it must not go on
    /// as if the filter were not there (Gateway API, HTTPRouteFilter.extensionRef).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unresolved: Option<String>,
}

/// Changes of header fields (Gateway API v1, HTTPHeaderFilter). A name stands in one of the lists at most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeaderChanges {
    /// Fields that get this one value, whatever they had.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<(FieldName, FieldValue)>,
    /// Values that come after those that are there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<(FieldName, FieldValue)>,
    /// Fields that go.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<FieldName>,
}

/// What a backend gets in place of the client's host and path (Gateway API v1, HTTPURLRewriteFilter). The
/// query stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rewrite {
    /// The host, without a port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathChange>,
}

/// Another path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum PathChange {
    /// All of it.
    Full(String),
    /// The prefix by which the rule was found, in whole segments.
    Prefix {
        /// That prefix.
        matched: String,
        /// What stands in its place; may be empty.
        with: String,
    },
}

/// An answer that leads elsewhere (Gateway API v1, HTTPRequestRedirectFilter). What is absent is that of the
/// request; the query stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redirect {
    /// The scheme.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
    /// The host, without a port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathChange>,
    /// The port. Where it is absent: the well-known one of `scheme`, or without that the port of the Service
    /// that was addressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// A scheme of URLs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// Its port is 80.
    Http,
    /// Its port is 443.
    Https,
}

/// Who gets a copy of requests (Gateway API v1, HTTPRequestMirrorFilter). What it answers is not used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    /// The service, one of whose endpoints gets it.
    pub service: ServiceName,
    /// Its port.
    pub port: u16,
    /// How many of the requests.
    pub share: MirrorShare,
}

/// A share of requests, `numerator` of `denominator`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MirrorShare {
    /// At most `denominator`.
    pub numerator: u32,
    /// At least 1.
    pub denominator: u32,
}

/// Who may call from pages of other origins (Fetch standard; Gateway API v1, HTTPCORSFilter). The client's
/// browser enforces it: a request of an origin that is not allowed passes, without these headers in its
/// answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cors {
    /// Origins as `scheme://host[:port]`, whose host may begin with `*.`; or `*` alone for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub origins: Vec<String>,
    /// Whether cookies and credentials may be sent along.
    #[serde(skip_serializing_if = "is_default")]
    pub credentials: bool,
    /// Methods beside GET, HEAD and POST; `*` alone for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Header fields of requests; `*` alone for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    /// Header fields of responses that pages may read; `*` alone for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exposed: Vec<String>,
    /// Seconds for which a preflight holds.
    pub max_age: u32,
}

/// The name of a header field.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FieldName(pub HeaderName);

/// The value of a header field.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FieldValue(HeaderValue);

/// A text that no header field can have (RFC 9110 section 5).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidField {
    /// As its name.
    #[error("{0:?} is no name of a header field")]
    Name(String),
    /// As its value.
    #[error(
        "{0:?} is no value of a header field: write visible characters of ASCII, spaces and tabs"
    )]
    Value(String),
}

impl FieldValue {
    /// The value.
    pub fn value(&self) -> &HeaderValue {
        &self.0
    }
}

impl TryFrom<String> for FieldName {
    type Error = InvalidField;

    fn try_from(text: String) -> Result<Self, InvalidField> {
        match HeaderName::try_from(&text) {
            Ok(name) => Ok(Self(name)),
            Err(_) => Err(InvalidField::Name(text)),
        }
    }
}

impl From<FieldName> for String {
    fn from(name: FieldName) -> Self {
        name.0.as_str().to_owned()
    }
}

impl fmt::Display for FieldName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<String> for FieldValue {
    type Error = InvalidField;

    fn try_from(text: String) -> Result<Self, InvalidField> {
        // Only what can be shown as text again.
        match HeaderValue::from_str(&text) {
            Ok(value) if value.to_str().is_ok() => Ok(Self(value)),
            _ => Err(InvalidField::Value(text)),
        }
    }
}

impl From<FieldValue> for String {
    fn from(value: FieldValue) -> Self {
        value.0.to_str().unwrap_or_default().to_owned()
    }
}
