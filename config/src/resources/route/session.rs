//! `sessionPersistence` of a rule (Gateway API, GEP-1619). Two shapes are published, and either is read: that
//! of v1.6 (`sessionName`, `cookieConfig`) and the one after it (`cookie`, `header`). What contradicts itself
//! is refused.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use http::HeaderName;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, COOKIE, HOST, LOCATION, RANGE};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use weft_transport::hex;

use super::duration::duration;
use super::filters::FRAMING;
use super::matches::bounded;
use crate::limits;
use crate::resources::Span;
use crate::resources::decode::{At, Decoder, Fields, all_or_none};
use crate::resources::schema::durations;
use crate::table::{Carrier, FieldName, Persistence};

/// How the requests of a client come to one endpoint, for as long as that endpoint is there. Write the name
/// as `sessionName`, or in `cookie` or `header`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct SessionPersistenceSpec {
    /// The name of the cookie or of the header.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = format!("1 to {} characters", limits::SESSION_NAME_LENGTH_MAX), "x-default" = "`weft-session-` or `session-`, and a text of the rule"))]
    pub session_name: Option<String>,
    /// How long a session lasts. After that the client gets another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = durations(&limits::SESSION_TIMEOUT_RANGE), "x-default" = "without end"))]
    pub absolute_timeout: Option<Span>,
    /// How clients carry the token of their session.
    #[serde(rename = "type", skip_serializing_if = "is_cookie")]
    pub kind: SessionType,
    /// How long clients keep the cookie, beside `sessionName`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie_config: Option<CookieConfigSpec>,
    /// The cookie, with the type `Cookie`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie: Option<SessionCookieSpec>,
    /// The header, with the type `Header`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<SessionHeaderSpec>,
}

/// How clients carry the token of their session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SessionType {
    /// In a cookie.
    #[default]
    Cookie,
    /// In a header of their requests, which they copy from the response that had it last.
    Header,
}

/// How long clients keep the cookie.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct CookieConfigSpec {
    /// `Session`: until they end. `Permanent`: for `absoluteTimeout`, which must be there.
    #[serde(skip_serializing_if = "is_session")]
    pub lifetime_type: CookieLifetime,
}

/// The cookie of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct SessionCookieSpec {
    /// Its name, beside which there is no `sessionName`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = format!("1 to {} characters", limits::SESSION_NAME_LENGTH_MAX), "x-default" = "`weft-session-` and a text of the rule"))]
    pub name: Option<String>,
    /// The path for which clients send it, and all below it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = format!("1 to {} characters", limits::PATH_LENGTH_MAX), "x-default" = "`/`"))]
    pub path: Option<String>,
    /// As in `cookieConfig`, beside which it is not written.
    #[serde(skip_serializing_if = "is_session")]
    pub lifetime_type: CookieLifetime,
}

/// The header of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionHeaderSpec {
    /// Its name, beside which there is no `sessionName`.
    #[schemars(extend("x-range" = format!("1 to {} characters", limits::SESSION_NAME_LENGTH_MAX)))]
    pub name: String,
}

/// How long clients keep a cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CookieLifetime {
    /// Until they end.
    #[default]
    Session,
    /// As long as the session may last.
    Permanent,
}

fn is_cookie(kind: &SessionType) -> bool {
    *kind == SessionType::Cookie
}

fn is_session(lifetime: &CookieLifetime) -> bool {
    *lifetime == CookieLifetime::Session
}

impl SessionType {
    /// As documents have it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Cookie => "Cookie",
            Self::Header => "Header",
        }
    }
}

impl CookieLifetime {
    /// As documents have it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Session => "Session",
            Self::Permanent => "Permanent",
        }
    }
}

/// Which values of a session are no defaults.
pub(crate) struct Written {
    pub(crate) name: bool,
    pub(crate) path: bool,
}

impl SessionPersistenceSpec {
    /// What a document says itself.
    pub(crate) fn written(&self) -> Written {
        let cookie = self.cookie.as_ref();
        let in_cookie = cookie.is_some_and(|one| one.name.is_some());
        Written {
            name: self.session_name.is_some() || in_cookie || self.header.is_some(),
            path: cookie.is_some_and(|one| one.path.is_some()),
        }
    }

    /// As a table has it, for the rule that `scope` names.
    pub(crate) fn compiled(&self, scope: &str) -> Option<Arc<Persistence>> {
        let carrier = match self.kind {
            SessionType::Cookie => {
                let own = self.cookie.clone().unwrap_or_default();
                let config = self.cookie_config.clone().unwrap_or_default();
                let lifetimes = [own.lifetime_type, config.lifetime_type];
                let named = own.name.or_else(|| self.session_name.clone());
                Carrier::Cookie {
                    name: named.unwrap_or_else(|| format!("weft-session-{}", text_of(scope))),
                    path: own.path.unwrap_or_else(|| "/".to_owned()),
                    permanent: lifetimes.contains(&CookieLifetime::Permanent),
                }
            }
            SessionType::Header => {
                let own = self.header.as_ref().map(|header| header.name.clone());
                let named = own.or_else(|| self.session_name.clone());
                let name = named.unwrap_or_else(|| format!("session-{}", text_of(scope)));
                // The decoder takes no other name.
                Carrier::Header(FieldName::try_from(name).ok()?)
            }
        };
        Some(Arc::new(Persistence {
            scope: scope.to_owned(),
            carrier,
            timeout: self.absolute_timeout.map(|span| span.0),
        }))
    }
}

/// Some digits that tell the sessions of one rule from those of others.
fn text_of(scope: &str) -> String {
    let sum = digest(&SHA256, scope.as_bytes());
    hex::encode(&sum.as_ref()[..4])
}

/// Reads `sessionPersistence` of a rule. The outer `None` is one that could not be read.
#[expect(
    clippy::option_option,
    reason = "outside: whether it could be read; inside: whether it is there"
)]
pub(super) fn session(
    decoder: &mut Decoder<'_>,
    fields: &mut Fields<'_>,
) -> Option<Option<SessionPersistenceSpec>> {
    let at = fields.take("sessionPersistence");
    all_or_none(at.map(|at| read(decoder, &at)))
}

fn read(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<SessionPersistenceSpec> {
    let mut fields = Fields::open(decoder, at)?;
    let errors = decoder.findings.errors();
    let name_at = fields.take("sessionName");
    let timeout_at = fields.take("absoluteTimeout");
    let timeout = timeout_at.as_ref();
    let timeout = timeout.map(|at| duration(decoder, at, &limits::SESSION_TIMEOUT_RANGE));
    let kind = fields.take("type").map(|at| {
        let types = [
            ("Cookie", SessionType::Cookie),
            ("Header", SessionType::Header),
        ];
        decoder.choice(&at, &types)
    });
    let config_at = fields.take("cookieConfig");
    let config = config_at.as_ref().map(|at| cookie_config(decoder, at));
    let cookie_at = fields.take("cookie");
    let cookie = cookie_at.as_ref().map(|at| cookie(decoder, at));
    let header_at = fields.take("header");
    let header = header_at.as_ref().map(|at| header(decoder, at));
    let idle = "write absoluteTimeout: a session does not end for want of requests";
    fields.refuse(decoder, "idleTimeout", idle);
    fields.close(decoder);
    let kind = all_or_none(kind)?.unwrap_or_default();
    let session_name = name_at.as_ref().map(|at| match kind {
        SessionType::Cookie => cookie_name(decoder, at),
        SessionType::Header => header_name(decoder, at),
    });
    let read = SessionPersistenceSpec {
        session_name: all_or_none(session_name)?,
        absolute_timeout: all_or_none(timeout)?,
        kind,
        cookie_config: all_or_none(config)?,
        cookie: all_or_none(cookie)?,
        header: all_or_none(header)?,
    };
    let places = Places {
        all: at,
        name: name_at.as_ref(),
        config: config_at.as_ref(),
        cookie: cookie_at.as_ref(),
        header: header_at.as_ref(),
    };
    contradictions(decoder, &read, &places);
    (decoder.findings.errors() == errors).then_some(read)
}

struct Places<'a, 'n> {
    all: &'a At<'n>,
    name: Option<&'a At<'n>>,
    config: Option<&'a At<'n>>,
    cookie: Option<&'a At<'n>>,
    header: Option<&'a At<'n>>,
}

/// Reports what one field says against another.
fn contradictions(
    decoder: &mut Decoder<'_>,
    read: &SessionPersistenceSpec,
    places: &Places<'_, '_>,
) {
    let mut refuse = |at: Option<&At<'_>>, message: &str, hint: &str| {
        if let Some(at) = at {
            decoder.error(at, message, Some(hint.to_owned()));
        }
    };
    match read.kind {
        SessionType::Cookie => {
            let hint = "write type: Header, or cookie in its place";
            let message = "a session of the type Cookie has no header";
            refuse(places.header, message, hint);
        }
        SessionType::Header => {
            let hint = "write type: Cookie, or header in its place";
            let message = "a session of the type Header has no cookie";
            refuse(places.cookie, message, hint);
            refuse(places.config, message, hint);
        }
    }
    let has_own_name = match read.kind {
        SessionType::Cookie => read.cookie.as_ref().is_some_and(|one| one.name.is_some()),
        SessionType::Header => read.header.is_some(),
    };
    if has_own_name {
        let message = "the session has a second name";
        refuse(
            places.name,
            message,
            "remove it: cookie.name and header.name are the same thing",
        );
    }
    if places.cookie.is_some() {
        let message = "cookie and cookieConfig exclude each other";
        refuse(places.config, message, "write cookie.lifetimeType alone");
    }
    let permanent = [
        read.cookie.as_ref().map(|one| one.lifetime_type),
        read.cookie_config.as_ref().map(|one| one.lifetime_type),
    ]
    .contains(&Some(CookieLifetime::Permanent));
    if permanent && read.absolute_timeout.is_none() {
        let hint = "add absoluteTimeout: it is how long clients keep the cookie";
        let message = "a cookie with lifetimeType Permanent needs an absoluteTimeout";
        refuse(
            places.cookie.or(places.config).or(Some(places.all)),
            message,
            hint,
        );
    }
    let named = read.cookie.as_ref().and_then(|one| one.name.as_deref());
    let path = read.cookie.as_ref().and_then(|one| one.path.as_deref());
    if let (Some(name), Some(path)) = (named.or(read.session_name.as_deref()), path)
        && name.to_ascii_lowercase().starts_with("__host-")
        && path != "/"
    {
        let hint = "write path: / or another name (RFC 6265bis section 4.1.3.2)";
        let message =
            "clients refuse a cookie whose name begins with __Host- and whose path is not /";
        refuse(places.cookie, message, hint);
    }
}

fn cookie_config(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<CookieConfigSpec> {
    let mut fields = Fields::open(decoder, at)?;
    let lifetime = lifetime(decoder, &mut fields);
    fields.close(decoder);
    Some(CookieConfigSpec {
        lifetime_type: lifetime?,
    })
}

fn cookie(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<SessionCookieSpec> {
    let mut fields = Fields::open(decoder, at)?;
    let name = fields.take("name").map(|at| cookie_name(decoder, &at));
    let path = fields.take("path").map(|at| {
        let text = bounded(decoder, &at, 1..=limits::PATH_LENGTH_MAX)?;
        // RFC 6265 section 4.1.1, path-value: what is not a control character or a semicolon.
        let is_valid = text.starts_with('/')
            && text
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && byte != b';');
        if !is_valid {
            let hint = "begin with /, and write no spaces, semicolons or characters beyond ASCII";
            let message = format!("{text:?} is no path of a cookie");
            decoder.error(&at, message, Some(hint.to_owned()));
            return None;
        }
        Some(text)
    });
    let lifetime = lifetime(decoder, &mut fields);
    fields.close(decoder);
    Some(SessionCookieSpec {
        name: all_or_none(name)?,
        path: all_or_none(path)?,
        lifetime_type: lifetime?,
    })
}

fn header(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<SessionHeaderSpec> {
    let mut fields = Fields::open(decoder, at)?;
    let name = fields
        .require(decoder, "name")
        .and_then(|at| header_name(decoder, &at));
    fields.close(decoder);
    Some(SessionHeaderSpec { name: name? })
}

fn lifetime(decoder: &mut Decoder<'_>, fields: &mut Fields<'_>) -> Option<CookieLifetime> {
    let Some(at) = fields.take("lifetimeType") else {
        return Some(CookieLifetime::Session);
    };
    let types = [
        ("Session", CookieLifetime::Session),
        ("Permanent", CookieLifetime::Permanent),
    ];
    decoder.choice(&at, &types)
}

fn cookie_name(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<String> {
    let name = bounded(decoder, at, 1..=limits::SESSION_NAME_LENGTH_MAX)?;
    // A token (RFC 6265 section 4.1.1), like the name of a method.
    if http::Method::from_bytes(name.as_bytes()).is_err() {
        let hint = "use letters, digits, - and _".to_owned();
        decoder.error(at, format!("{name:?} is no name of a cookie"), Some(hint));
        return None;
    }
    Some(name)
}

/// Header fields that mean something else.
const TAKEN: [HeaderName; 7] = [
    AUTHORIZATION,
    CONTENT_ENCODING,
    CONTENT_TYPE,
    COOKIE,
    HOST,
    LOCATION,
    RANGE,
];

fn header_name(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<String> {
    let name = bounded(decoder, at, 1..=limits::SESSION_NAME_LENGTH_MAX)?;
    let lower = decoder.header_name(at)?;
    if FRAMING.contains(&lower.as_str()) || TAKEN.iter().any(|one| *one == lower.as_str()) {
        let hint = "choose a name of its own, as x-session".to_owned();
        decoder.error(at, format!("{name} means something else"), Some(hint));
        return None;
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::{HttpRouteSpec, SourceFile, Spec as _, parse};

    fn parsed(kind: &str, says: &str) -> (Option<SessionPersistenceSpec>, Vec<String>) {
        let text = format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{ name: r, namespace: shop }}\n\
             spec:\n  parentRefs: [ {{ group: \"\", kind: Service, name: a }} ]\n  \
             rules: [ {{ sessionPersistence: {says}, backendRefs: [ {{ name: a, port: 80 }} ] }} ]\n"
        );
        let parsed = parse(&[SourceFile {
            name: "t".into(),
            text,
        }]);
        let found = parsed.resources.first().and_then(|one| {
            let route = HttpRouteSpec::of(one)?;
            route
                .spec
                .rules
                .first()?
                .rule()?
                .session_persistence
                .clone()
        });
        let findings = parsed.findings.listed.iter().map(|one| {
            let hint = one.hint.clone().unwrap_or_default();
            format!("{}: {} ({hint})", one.field, one.message)
        });
        (found, findings.collect())
    }

    fn compiled(says: &str) -> Persistence {
        let (found, findings) = parsed("HTTPRoute", says);
        assert_eq!(findings, Vec::<String>::new(), "{says}");
        (*found.unwrap().compiled("HTTPRoute/shop/r#0").unwrap()).clone()
    }

    fn cookie(name: &str, path: &str, permanent: bool) -> Carrier {
        Carrier::Cookie {
            name: name.to_owned(),
            path: path.to_owned(),
            permanent,
        }
    }

    #[test]
    fn both_published_shapes_mean_the_same() {
        for says in [
            "{ sessionName: s, absoluteTimeout: 5m, type: Cookie, cookieConfig: { lifetimeType: Permanent } }",
            "{ absoluteTimeout: 5m, cookie: { name: s, lifetimeType: Permanent } }",
            "{ sessionName: s, absoluteTimeout: 5m, cookie: { lifetimeType: Permanent } }",
        ] {
            let read = compiled(says);
            assert_eq!(read.carrier, cookie("s", "/", true), "{says}");
            assert_eq!(read.timeout, Some(std::time::Duration::from_secs(300)));
        }
        for says in [
            "{ sessionName: X-S, type: Header }",
            "{ type: Header, header: { name: X-S } }",
        ] {
            let name = FieldName::try_from("x-s".to_owned()).unwrap();
            assert_eq!(compiled(says).carrier, Carrier::Header(name), "{says}");
        }
        let read = compiled("{ cookie: { name: s, path: /shop } }");
        assert_eq!(read.carrier, cookie("s", "/shop", false));
        assert_eq!(read.timeout, None);
    }

    #[test]
    fn a_session_without_a_name_gets_one_that_no_other_rule_has() {
        let (found, _) = parsed("HTTPRoute", "{}");
        let name_of = |scope: &str| match found.clone().unwrap().compiled(scope).unwrap().carrier {
            Carrier::Cookie { ref name, .. } => name.clone(),
            Carrier::Header(ref name) => panic!("a cookie is the default, and not {name}"),
        };
        assert_ne!(name_of("HTTPRoute/shop/r#0"), name_of("HTTPRoute/shop/r#1"));
        assert!(name_of("a").starts_with("weft-session-"));
    }

    #[test]
    fn what_contradicts_itself_is_refused_with_its_place_and_what_to_write() {
        let at = "spec.rules[0].sessionPersistence";
        for kind in ["HTTPRoute", "GRPCRoute"] {
            for (says, field, word) in [
                (
                    "{ type: Cookie, header: { name: x } }",
                    ".header",
                    "type: Header",
                ),
                (
                    "{ type: Header, cookie: { name: x } }",
                    ".cookie",
                    "type: Cookie",
                ),
                (
                    "{ type: Header, sessionName: x, cookieConfig: {} }",
                    ".cookieConfig",
                    "type: Cookie",
                ),
                (
                    "{ sessionName: a, cookie: { name: a } }",
                    ".sessionName",
                    "remove it",
                ),
                (
                    "{ type: Header, sessionName: a, header: { name: b } }",
                    ".sessionName",
                    "remove it",
                ),
                (
                    "{ cookie: {}, cookieConfig: {} }",
                    ".cookieConfig",
                    "cookie.lifetimeType",
                ),
                (
                    "{ cookie: { lifetimeType: Permanent } }",
                    ".cookie",
                    "absoluteTimeout",
                ),
                (
                    "{ sessionName: a, cookieConfig: { lifetimeType: Permanent } }",
                    ".cookieConfig",
                    "absoluteTimeout",
                ),
                ("{ idleTimeout: 5m }", ".idleTimeout", "absoluteTimeout"),
                (
                    "{ absoluteTimeout: 0s }",
                    ".absoluteTimeout",
                    "not within 1s",
                ),
                (
                    "{ absoluteTimeout: 99999h }",
                    ".absoluteTimeout",
                    "not within 1s",
                ),
                ("{ type: Query }", ".type", "Cookie or Header"),
                ("{ sessionName: \"a b\" }", ".sessionName", "letters"),
                ("{ cookie: { name: \"a=b\" } }", ".cookie.name", "letters"),
                ("{ cookie: { path: shop } }", ".cookie.path", "begin with /"),
                (
                    "{ cookie: { path: \"/;x\" } }",
                    ".cookie.path",
                    "semicolons",
                ),
                (
                    "{ cookie: { name: __Host-s, path: /shop } }",
                    ".cookie",
                    "path: /",
                ),
                ("{ type: Header, header: {} }", ".header.name", "is missing"),
                (
                    "{ type: Header, header: { name: weft-x } }",
                    ".header.name",
                    "mesh's own",
                ),
                (
                    "{ type: Header, header: { name: Cookie } }",
                    ".header.name",
                    "x-session",
                ),
                (
                    "{ type: Header, header: { name: Transfer-Encoding } }",
                    ".header.name",
                    "x-session",
                ),
                ("{ lifetime: 1s }", ".lifetime", "unknown field"),
            ] {
                let (_, findings) = parsed(kind, says);
                let found = findings
                    .iter()
                    .any(|one| one.starts_with(&format!("{at}{field}: ")) && one.contains(word));
                assert!(found, "{kind} {says}: {findings:?}");
            }
        }
    }
}
