//! What a route does to requests and responses (Gateway API v1, HTTPRouteFilter and GRPCRouteFilter), as
//! documents have it. `filters/read.rs` reads them, `filters/meaning.rs` says what they are in a table.

mod meaning;
mod read;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::backends::{BackendRef, PlainRef};
use crate::limits;
use crate::resources::schema::{numbers, up_to};

pub(crate) use meaning::compiled;
pub(super) use read::{FRAMING, Level, filters, prefix_fault};

/// One filter: its type, and the field of that type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RouteFilter {
    /// Which filter it is. The field of the same name must stand beside it, and no other.
    #[serde(rename = "type")]
    pub kind: FilterType,
    /// Changes of the request's header fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "none"))]
    pub request_header_modifier: Option<HeaderModifierSpec>,
    /// Changes of the response's header fields: the fields of `requestHeaderModifier`. They hold for answers
    /// of the application, not for those of the mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<super::backends::Map>", extend("x-default" = "none"))]
    pub response_header_modifier: Option<HeaderModifierSpec>,
    /// An answer that leads elsewhere, in place of a backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "none"))]
    pub request_redirect: Option<RequestRedirectSpec>,
    /// Another host or path for the backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "none"))]
    pub url_rewrite: Option<UrlRewriteSpec>,
    /// A Service that gets a copy of requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "none"))]
    pub request_mirror: Option<RequestMirrorSpec>,
    /// Who may call from pages of other origins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "none"))]
    pub cors: Option<CorsSpec>,
    /// A filter of another API. weft knows none: the requests of the rule get 500, as they must not pass as
    /// if the filter were not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "none"))]
    pub extension_ref: Option<ExtensionRefSpec>,
}

/// Types of filters.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum FilterType {
    /// `requestHeaderModifier`.
    RequestHeaderModifier,
    /// `responseHeaderModifier`.
    ResponseHeaderModifier,
    /// `requestRedirect`.
    RequestRedirect,
    /// `urlRewrite`.
    #[serde(rename = "URLRewrite")]
    UrlRewrite,
    /// `requestMirror`.
    RequestMirror,
    /// `cors`.
    #[serde(rename = "CORS")]
    Cors,
    /// `extensionRef`.
    ExtensionRef,
}

/// Changes of header fields. A name stands in one of the lists, once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HeaderModifierSpec {
    /// Fields that get this one value.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-range" = up_to(limits::FILTER_HEADERS_MAX)))]
    pub set: Vec<HeaderSpec>,
    /// Values that come after those that are there: the fields of `set`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<super::backends::Map>", extend("x-range" = up_to(limits::FILTER_HEADERS_MAX)))]
    pub add: Vec<HeaderSpec>,
    /// Names of fields that go.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-range" = up_to(limits::FILTER_HEADERS_MAX)))]
    pub remove: Vec<String>,
}

/// A header field with its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeaderSpec {
    /// Its name, in any case. Fields that frame a message (`Content-Length`, `Transfer-Encoding`,
    /// `Connection` and such) are the sidecar's, and so are those that begin with `weft-`.
    #[schemars(extend("x-range" = "1 to 256 characters"))]
    pub name: String,
    /// Its value.
    #[schemars(extend("x-range" = "1 to 4096 characters of ASCII"))]
    pub value: String,
}

/// An answer that leads elsewhere. What is absent is that of the request; the query stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RequestRedirectSpec {
    /// The scheme.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "that of the request"))]
    pub scheme: Option<RedirectScheme>,
    /// The host, without a port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = "1 to 253 characters", "x-default" = "that of the request"))]
    pub hostname: Option<String>,
    /// The path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "that of the request"))]
    pub path: Option<PathModifierSpec>,
    /// The port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-range" = "1 to 65535",
        "x-default" = "80 or 443 by `scheme`; without that the port of the Service that was called"
    ))]
    pub port: Option<u16>,
    /// The status.
    #[serde(default = "found")]
    #[schemars(extend("x-range" = "301, 302, 303, 307, 308"))]
    pub status_code: u16,
}

/// A scheme of URLs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RedirectScheme {
    /// plain.
    Http,
    /// with TLS.
    Https,
}

fn found() -> u16 {
    302
}

/// Another path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PathModifierSpec {
    /// What is replaced. The field of the same name must stand beside it, and no other.
    #[serde(rename = "type")]
    pub kind: PathModifierType,
    /// The path in place of the whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = "up to 1024 characters"))]
    pub replace_full_path: Option<String>,
    /// What stands in place of the prefix by which the rule took the request; may be empty. The rule has
    /// exactly one match, with a path of type `PathPrefix`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = "up to 1024 characters"))]
    pub replace_prefix_match: Option<String>,
}

/// What of a path is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PathModifierType {
    /// all of it.
    ReplaceFullPath,
    /// its first segments, by which the rule was found.
    ReplacePrefixMatch,
}

/// Another host or path for the backend. The query stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UrlRewriteSpec {
    /// The host, without a port.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = "1 to 253 characters", "x-default" = "that of the request"))]
    pub hostname: Option<String>,
    /// The path: the fields of `requestRedirect.path`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<super::backends::Map>", extend("x-default" = "that of the request"))]
    pub path: Option<PathModifierSpec>,
}

/// Who gets a copy of requests. What it answers is not used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RequestMirrorSpec {
    /// The Service, one of whose endpoints gets it. Without one, requests pass as if the filter were not
    /// there.
    #[schemars(with = "PlainRef")]
    pub backend_ref: BackendRef,
    /// How many of a hundred requests. Write either this or `fraction`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = "0 to 100", "x-default" = "100"))]
    pub percent: Option<u32>,
    /// How many of how many requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "all"))]
    pub fraction: Option<FractionSpec>,
}

/// So many of so many.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FractionSpec {
    /// How many.
    #[schemars(extend("x-range" = "0 to `denominator`"))]
    pub numerator: u32,
    /// Of how many.
    #[serde(default = "hundred")]
    #[schemars(extend("x-range" = numbers(&(1..=i32::MAX))))]
    pub denominator: u32,
}

fn hundred() -> u32 {
    100
}

/// Who may call from pages of other origins. The browser enforces it; other clients are not held up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct CorsSpec {
    /// Origins as `scheme://host[:port]`, whose host may begin with `*.`; or `*` alone for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-range" = up_to(limits::CORS_LIST_MAX)))]
    pub allow_origins: Vec<String>,
    /// Whether cookies and credentials may be sent along.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "false"))]
    pub allow_credentials: Option<bool>,
    /// Methods beside GET, HEAD and POST; or `*` alone for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-range" = up_to(super::matches::METHODS.len())))]
    pub allow_methods: Vec<String>,
    /// Header fields of requests; or `*` alone for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-range" = up_to(limits::CORS_LIST_MAX)))]
    pub allow_headers: Vec<String>,
    /// Header fields of responses that pages may read; or `*` alone for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-range" = up_to(limits::CORS_LIST_MAX)))]
    pub expose_headers: Vec<String>,
    /// Seconds for which a browser keeps the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = numbers(&(1..=i32::MAX)), "x-default" = limits::CORS_MAX_AGE.to_string()))]
    pub max_age: Option<u32>,
}

/// A filter of another API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExtensionRefSpec {
    /// Its API group.
    pub group: String,
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
}
