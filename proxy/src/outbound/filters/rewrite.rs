//! Another host or path for the backend (Gateway API v1, HTTPURLRewriteFilter). What policies at the far
//! sidecar judge is what the application there sees: this comes before both. Pure.

use std::borrow::Cow;

use http::Uri;
use http::uri::{Authority, PathAndQuery};
use weft_config::table::{PathChange, Rewrite};

use crate::failure::{Failure, Reason};

/// Rewrites the target that is sent.
pub(in super::super) fn apply(uri: &mut Uri, rewrite: &Rewrite) -> Result<(), Failure> {
    if *rewrite == Rewrite::default() {
        return Ok(());
    }
    let mut parts = std::mem::take(uri).into_parts();
    if let Some(host) = &rewrite.host {
        let authority = Authority::try_from(host.as_str());
        parts.authority = Some(authority.map_err(|_| unusable(host))?);
    }
    if let Some(change) = &rewrite.path
        && let Some(old) = &parts.path_and_query
    {
        let new = target(old.path(), old.query(), change);
        let path = PathAndQuery::try_from(new.as_str());
        parts.path_and_query = Some(path.map_err(|_| unusable(&new))?);
    }
    *uri = Uri::from_parts(parts).map_err(|_| unusable("what it makes"))?;
    Ok(())
}

/// A path that was changed, with the query that was there.
pub(super) fn target(path: &str, query: Option<&str>, change: &PathChange) -> String {
    let path = changed(path, change);
    match query {
        Some(query) => format!("{path}?{query}"),
        None => path.into_owned(),
    }
}

/// Replaces a path, or its prefix in whole segments. The result begins with `/`.
pub(super) fn changed<'a>(path: &'a str, change: &'a PathChange) -> Cow<'a, str> {
    let (matched, with) = match change {
        PathChange::Full(path) => return path.into(),
        PathChange::Prefix { matched, with } => (matched, with),
    };
    let plain = |prefix: &'a str| prefix.strip_suffix('/').unwrap_or(prefix);
    let rest = path.strip_prefix(plain(matched));
    let rest = rest.filter(|rest| rest.is_empty() || rest.starts_with('/'));
    // A rule that was found by something else has nothing to replace.
    let Some(rest) = rest else {
        return path.into();
    };
    match (plain(with), rest) {
        ("", "") => "/".into(),
        ("", rest) => rest.into(),
        (with, rest) => format!("{with}{rest}").into(),
    }
}

fn unusable(what: &str) -> Failure {
    let detail = format!("the route rewrites to {what:?}, which no request can have");
    Failure::new(Reason::NoBackend, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(matched: &str, with: &str) -> PathChange {
        PathChange::Prefix {
            matched: matched.into(),
            with: with.into(),
        }
    }

    #[test]
    fn a_prefix_is_replaced_in_whole_segments() {
        for (id, matched, with, path, expected) in [
            ("X54", "/foo", "/xyz", "/foo/bar", "/xyz/bar"),
            ("X54", "/foo", "/xyz/", "/foo/bar", "/xyz/bar"),
            ("X54", "/foo/", "/xyz", "/foo/bar", "/xyz/bar"),
            ("X54", "/foo/", "/xyz/", "/foo/bar", "/xyz/bar"),
            ("X54", "/foo", "/xyz", "/foo", "/xyz"),
            ("X54", "/foo", "/xyz", "/foo/", "/xyz/"),
            ("X54", "/foo", "", "/foo/bar", "/bar"),
            ("X54", "/foo", "", "/foo/", "/"),
            ("X54", "/foo", "", "/foo", "/"),
            ("X54", "/foo", "/", "/foo/", "/"),
            ("X54", "/foo", "/", "/foo", "/"),
            (
                "M14",
                "/original-prefix",
                "/replacement-prefix",
                "/original-prefix/lemon",
                "/replacement-prefix/lemon",
            ),
            ("M17", "/prefix/one", "/one", "/prefix/one/two", "/one/two"),
            ("M17", "/strip-prefix", "/", "/strip-prefix/three", "/three"),
            ("M17", "/strip-prefix", "/", "/strip-prefix", "/"),
            ("the root", "/", "/v2", "/a", "/v2/a"),
            ("the root", "/", "/v2", "/", "/v2/"),
            ("not a segment", "/foo", "/xyz", "/foobar", "/foobar"),
            ("no path at all", "/", "/xyz", "*", "*"),
        ] {
            let change = prefix(matched, with);
            assert_eq!(
                changed(path, &change),
                expected,
                "{id}: {matched} {with} {path}"
            );
        }
    }

    #[test]
    fn the_target_has_the_new_host_and_path_and_its_own_query() {
        let rewritten = |host: Option<&str>, path| {
            let mut uri = Uri::from_static("https://orders.shop:5001/full/one/two?a=%20b&c");
            let host = host.map(str::to_owned);
            apply(&mut uri, &Rewrite { host, path }).map(|()| uri.to_string())
        };
        let full = Some(PathChange::Full("/one".into()));
        for (id, host, path, expected) in [
            (
                "M17",
                None,
                full.clone(),
                "https://orders.shop:5001/one?a=%20b&c",
            ),
            (
                "G29",
                Some("one.example.org"),
                None,
                "https://one.example.org/full/one/two?a=%20b&c",
            ),
            (
                "both",
                Some("one.example.org"),
                full,
                "https://one.example.org/one?a=%20b&c",
            ),
            (
                "neither",
                None,
                None,
                "https://orders.shop:5001/full/one/two?a=%20b&c",
            ),
        ] {
            assert_eq!(rewritten(host, path).as_deref(), Ok(expected), "{id}");
        }
        let refused = rewritten(Some("a b"), None).unwrap_err();
        assert_eq!(refused.reason, Reason::NoBackend);
    }
}
