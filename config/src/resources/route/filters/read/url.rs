//! Reads filters that lead to another URL: redirects and rewrites.

use super::super::super::is_subdomain;
use super::super::super::matches::{bounded, check_literal};
use super::super::*;
use crate::resources::decode::{At, Decoder, Fields, all_or_none};
use crate::resources::service::port_number;

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

pub(super) fn redirect(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<RequestRedirectSpec> {
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

pub(super) fn rewrite(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<UrlRewriteSpec> {
    let mut fields = Fields::open(decoder, at)?;
    let host = fields.take("hostname").map(|at| hostname(decoder, &at));
    let path = fields.take("path").map(|at| path_change(decoder, &at));
    fields.close(decoder);
    Some(UrlRewriteSpec {
        hostname: all_or_none(host)?,
        path: all_or_none(path)?,
    })
}
