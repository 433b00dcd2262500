//! What filters are in a table. Pure.

use super::{
    CorsSpec, HeaderModifierSpec, HeaderSpec, PathModifierSpec, PathModifierType, RedirectScheme,
    RequestMirrorSpec, RouteFilter,
};
use crate::limits;
use crate::resources::BackendRef;
use crate::table::{
    Cors, FieldName, FieldValue, Filters, HeaderChanges, Mirror, MirrorShare, PathChange, Redirect,
    Rewrite, Scheme, ServiceName,
};

/// The filters of one list. `matched` is the prefix by which the rule takes requests; `resolve` finds the
/// Service and port of a mirror, and a mirror that leads nowhere is left out.
pub(crate) fn compiled(
    filters: &[RouteFilter],
    matched: Option<&str>,
    resolve: &mut dyn FnMut(&BackendRef) -> Option<(ServiceName, u16)>,
) -> Filters {
    let mut all = Filters::default();
    for one in filters {
        if let Some(says) = &one.request_header_modifier {
            all.request_headers = changes(says);
        }
        if let Some(says) = &one.response_header_modifier {
            all.response_headers = changes(says);
        }
        if let Some(says) = &one.request_redirect {
            all.redirect = Some(Redirect {
                scheme: says.scheme.map(|scheme| match scheme {
                    RedirectScheme::Http => Scheme::Http,
                    RedirectScheme::Https => Scheme::Https,
                }),
                host: says.hostname.clone(),
                path: says.path.as_ref().and_then(|path| change(path, matched)),
                port: says.port,
                status: says.status_code,
            });
        }
        if let Some(says) = &one.url_rewrite {
            all.rewrite = Rewrite {
                host: says.hostname.clone(),
                path: says.path.as_ref().and_then(|path| change(path, matched)),
            };
        }
        if let Some(says) = &one.request_mirror
            && let Some((service, port)) = resolve(&says.backend_ref)
        {
            all.mirrors.push(Mirror {
                service,
                port,
                share: share(says),
            });
        }
        if let Some(says) = &one.cors {
            all.cors = Some(cors(says));
        }
        if let Some(to) = &one.extension_ref {
            all.unresolved = Some(format!("{} {}", to.kind, to.name));
        }
    }
    all
}

fn changes(says: &HeaderModifierSpec) -> HeaderChanges {
    // What is no field was refused when the document was read.
    let field = |one: &HeaderSpec| {
        let name = FieldName::try_from(one.name.clone()).ok()?;
        let value = FieldValue::try_from(one.value.clone()).ok()?;
        Some((name, value))
    };
    HeaderChanges {
        set: says.set.iter().filter_map(field).collect(),
        add: says.add.iter().filter_map(field).collect(),
        remove: says
            .remove
            .iter()
            .filter_map(|name| FieldName::try_from(name.clone()).ok())
            .collect(),
    }
}

fn change(says: &PathModifierSpec, matched: Option<&str>) -> Option<PathChange> {
    match says.kind {
        PathModifierType::ReplaceFullPath => {
            Some(PathChange::Full(says.replace_full_path.clone()?))
        }
        PathModifierType::ReplacePrefixMatch => Some(PathChange::Prefix {
            matched: matched?.to_owned(),
            with: says.replace_prefix_match.clone()?,
        }),
    }
}

fn share(says: &RequestMirrorSpec) -> MirrorShare {
    let of_hundred = |numerator| MirrorShare {
        numerator,
        denominator: 100,
    };
    match (&says.fraction, says.percent) {
        (Some(fraction), _) => MirrorShare {
            numerator: fraction.numerator,
            denominator: fraction.denominator,
        },
        (None, Some(percent)) => of_hundred(percent),
        (None, None) => of_hundred(100),
    }
}

fn cors(says: &CorsSpec) -> Cors {
    Cors {
        origins: says.allow_origins.clone(),
        credentials: says.allow_credentials.unwrap_or_default(),
        methods: says.allow_methods.clone(),
        headers: says.allow_headers.clone(),
        exposed: says.expose_headers.clone(),
        max_age: says.max_age.unwrap_or(limits::CORS_MAX_AGE),
    }
}
