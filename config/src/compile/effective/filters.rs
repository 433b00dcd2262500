//! The filters of rules and of their backends, in the fields of Gateway API and in the order in which they
//! act: part of what `weft get --effective` shows. Pure. What they become is
//! `resources/route/filters/meaning.rs`.

use serde_json::{Value, json};

use super::{Effective, Origin, Place};
use crate::limits;
use crate::resources::{FilterType, Route, RouteFilter, Rule};

/// The filters of one list.
pub(super) fn of(route: &Route<'_>, filters: &[RouteFilter]) -> Vec<Effective> {
    let mut filters: Vec<&RouteFilter> = filters.iter().collect();
    // Each type has its turn, whatever the order of the list.
    filters.sort_by_key(|one| turn(one.kind));
    let from = || Origin::Rule(route.key.to_string());
    let shown = filters.into_iter().filter_map(|one| {
        let (field, value) = written(one)?;
        Some(Effective {
            field,
            value,
            from: from(),
        })
    });
    shown.collect()
}

/// A place for each backend of a rule that has filters; `place` is that of the rule.
pub(super) fn of_backends(route: &Route<'_>, rule: &Rule<'_>, place: &str) -> Vec<Place> {
    let backends = rule.backends.iter().map(|to| {
        let namespace = to.namespace.as_deref().unwrap_or(&route.key.namespace);
        let port = to.port.map(|port| format!(":{port}")).unwrap_or_default();
        Place {
            place: format!("{place}, backend {}.{namespace}{port}", to.name),
            fields: of(route, &to.filters),
        }
    });
    backends.filter(|one| !one.fields.is_empty()).collect()
}

/// The order of `table/filters.rs`. What leads nowhere is answered before anything else.
fn turn(kind: FilterType) -> u8 {
    match kind {
        FilterType::ExtensionRef => 0,
        FilterType::Cors => 1,
        FilterType::RequestRedirect => 2,
        FilterType::RequestHeaderModifier => 3,
        FilterType::UrlRewrite => 4,
        FilterType::RequestMirror => 5,
        FilterType::ResponseHeaderModifier => 6,
    }
}

/// The field of its type with what it says, and with the defaults of what it does not say.
fn written(one: &RouteFilter) -> Option<(&'static str, Value)> {
    let value = |says: Option<Value>, defaults: &[(&str, Value)]| {
        let mut says = says?;
        let fields = says.as_object_mut()?;
        for (name, default) in defaults {
            fields.entry(*name).or_insert_with(|| default.clone());
        }
        Some(says)
    };
    Some(match one.kind {
        FilterType::RequestHeaderModifier => (
            "filters.requestHeaderModifier",
            value(
                one.request_header_modifier.as_ref().map(|says| json!(says)),
                &[],
            )?,
        ),
        FilterType::ResponseHeaderModifier => (
            "filters.responseHeaderModifier",
            value(
                one.response_header_modifier
                    .as_ref()
                    .map(|says| json!(says)),
                &[],
            )?,
        ),
        FilterType::RequestRedirect => (
            "filters.requestRedirect",
            value(one.request_redirect.as_ref().map(|says| json!(says)), &[])?,
        ),
        FilterType::UrlRewrite => (
            "filters.urlRewrite",
            value(one.url_rewrite.as_ref().map(|says| json!(says)), &[])?,
        ),
        FilterType::RequestMirror => {
            let says = one.request_mirror.as_ref()?;
            let all = [("percent", json!(100))];
            let defaults = match says.fraction {
                Some(_) => &[][..],
                None => &all,
            };
            ("filters.requestMirror", value(Some(json!(says)), defaults)?)
        }
        FilterType::Cors => {
            let defaults = [
                ("allowCredentials", json!(false)),
                ("maxAge", json!(limits::CORS_MAX_AGE)),
            ];
            let says = one.cors.as_ref().map(|says| json!(says));
            ("filters.cors", value(says, &defaults)?)
        }
        FilterType::ExtensionRef => (
            "filters.extensionRef",
            value(one.extension_ref.as_ref().map(|says| json!(says)), &[])?,
        ),
    })
}
