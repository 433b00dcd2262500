//! What a VirtualService does to requests and responses, as filters of Gateway API.

use serde_json::{Value as Json, json};

use super::matches::{Kind, string_match};
use crate::import::durations::seconds;
use crate::import::output::Output;
use crate::import::reader::{Document, Place};

/// One filter of each type.
pub(super) fn merged(filters: Vec<Json>) -> Vec<Json> {
    let mut all: Vec<Json> = Vec::new();
    for filter in filters {
        let same = all
            .iter_mut()
            .find(|one| one["type"] == "URLRewrite" && one["type"] == filter["type"]);
        match same {
            Some(one) => {
                for (name, value) in filter["urlRewrite"].as_object().into_iter().flatten() {
                    one["urlRewrite"][name] = value.clone();
                }
            }
            None => all.push(filter),
        }
    }
    all
}

/// `set`, `add` and `remove` of requests and responses.
pub(super) fn headers(document: &Document<'_>, at: &Place<'_>, output: &mut Output) -> Vec<Json> {
    let mut filters = Vec::new();
    let mut fields = at.fields();
    for (name, kind, field) in [
        ("request", "RequestHeaderModifier", "requestHeaderModifier"),
        (
            "response",
            "ResponseHeaderModifier",
            "responseHeaderModifier",
        ),
    ] {
        let Some(at) = fields.take(name) else {
            continue;
        };
        let mut changes = json!({});
        for list in ["set", "add"] {
            let mut pairs = Vec::new();
            for (name, place) in at.field(list).iter().flat_map(Place::entries) {
                let value = place.text().unwrap_or_default();
                match name.to_ascii_lowercase().as_str() {
                    "host" | ":authority" if field == "requestHeaderModifier" => {
                        let rewrite = json!({ "hostname": value });
                        filters.push(json!({ "type": "URLRewrite", "urlRewrite": rewrite }));
                    }
                    name if name.starts_with(':') || value.contains('%') => {
                        let message = "is a field or a value that weft does not write";
                        output.dropped(document, &place, message, "");
                    }
                    _ => pairs.push(json!({ "name": name, "value": value })),
                }
            }
            if !pairs.is_empty() {
                changes[list] = json!(pairs);
            }
        }
        if let Some(remove) = at
            .field("remove")
            .map(|one| one.texts())
            .filter(|one| !one.is_empty())
        {
            changes["remove"] = json!(remove);
        }
        if changes != json!({}) {
            let mut filter = json!({ "type": kind });
            filter[field] = changes;
            filters.push(filter);
        }
    }
    fields.rest(document, output);
    filters
}

pub(super) fn cors(document: &Document<'_>, at: &Place<'_>, output: &mut Output) -> Option<Json> {
    let mut fields = at.fields();
    let mut cors = json!({});
    let mut origins: Vec<String> = fields
        .take("allowOrigin")
        .map(|one| one.texts())
        .unwrap_or_default();
    for item in fields.take("allowOrigins").iter().flat_map(Place::items) {
        match string_match(&item) {
            Some((Kind::Exact, origin)) => origins.push(origin),
            Some(_) | None => {
                let message = "only whole origins have a counterpart; this one is not allowed";
                output.dropped(
                    document,
                    &item,
                    message,
                    "list the origins, or write https://*.example.org",
                );
            }
        }
    }
    for (from, to) in [
        ("allowMethods", "allowMethods"),
        ("allowHeaders", "allowHeaders"),
        ("exposeHeaders", "exposeHeaders"),
    ] {
        if let Some(list) = fields
            .take(from)
            .map(|one| one.texts())
            .filter(|one| !one.is_empty())
        {
            cors[to] = json!(list);
        }
    }
    if let Some(age) = fields.take("maxAge").and_then(|one| seconds(&one.text()?)) {
        cors["maxAge"] = json!(age.max(1.0) as u32);
    }
    if fields
        .take("allowCredentials")
        .is_some_and(|one| one.is_true())
    {
        cors["allowCredentials"] = json!(true);
    }
    fields.rest(document, output);
    if origins.is_empty() {
        return None;
    }
    cors["allowOrigins"] = json!(origins);
    Some(json!({ "type": "CORS", "cors": cors }))
}

pub(super) fn redirect(
    document: &Document<'_>,
    at: &Place<'_>,
    output: &mut Output,
) -> Option<Json> {
    let mut fields = at.fields();
    let mut text = |name| fields.take(name).and_then(|one| one.text());
    let mut redirect = json!({});
    if let Some(uri) = text("uri") {
        redirect["path"] = json!({ "type": "ReplaceFullPath", "replaceFullPath": uri });
    }
    if let Some(authority) = text("authority") {
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => (host.to_owned(), port.parse::<u16>().ok()),
            None => (authority, None),
        };
        redirect["hostname"] = json!(host);
        if let Some(port) = port {
            redirect["port"] = json!(port);
        }
    }
    if let Some(scheme) = text("scheme") {
        redirect["scheme"] = json!(scheme);
    }
    let code = text("redirectCode").and_then(|one| one.parse::<u16>().ok());
    redirect["statusCode"] = json!(code.unwrap_or(301));
    if let Some(port) = text("port").and_then(|one| one.parse::<u16>().ok()) {
        redirect["port"] = json!(port);
    }
    fields.rest(document, output);
    Some(json!({ "type": "RequestRedirect", "requestRedirect": redirect }))
}

pub(super) fn rewrite(
    document: &Document<'_>,
    at: &Place<'_>,
    matched: Option<&Json>,
    output: &mut Output,
) -> Option<Json> {
    let mut fields = at.fields();
    let mut rewrite = json!({});
    if let Some(authority) = fields.take("authority").and_then(|one| one.text()) {
        rewrite["hostname"] = json!(authority);
    }
    if let Some(place) = fields.take("uri") {
        let uri = place.text().unwrap_or_default();
        let kind = matched.and_then(|one| one["path"]["type"].as_str());
        match kind {
            Some("PathPrefix") | None => {
                rewrite["path"] =
                    json!({ "type": "ReplacePrefixMatch", "replacePrefixMatch": uri });
            }
            Some("Exact") => {
                rewrite["path"] = json!({ "type": "ReplaceFullPath", "replaceFullPath": uri });
            }
            Some(_) => {
                let message =
                    "replaces a path by a regular expression, which weft does not: the path stays";
                output.dropped(
                    document,
                    &place,
                    message,
                    "match by a prefix or a whole path",
                );
            }
        }
    }
    fields.rest(document, output);
    (rewrite != json!({})).then(|| json!({ "type": "URLRewrite", "urlRewrite": rewrite }))
}
