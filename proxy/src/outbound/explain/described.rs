//! What filters do and conditions ask for, in lines for people. Pure.

use weft_config::table::{Filters, HeaderChanges, HttpMatch, PathMatch, Pattern};

pub(crate) fn described(filters: &Filters) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(cors) = &filters.cors {
        lines.push(format!("CORS: allows {}", cors.origins.join(", ")));
    }
    changes(&mut lines, "request", &filters.request_headers);
    changes(&mut lines, "response", &filters.response_headers);
    if let Some(host) = &filters.rewrite.host {
        lines.push(format!("URLRewrite: the host becomes {host}"));
    }
    if filters.rewrite.path.is_some() {
        lines.push("URLRewrite: the path changes".to_owned());
    }
    for mirror in &filters.mirrors {
        let percent =
            f64::from(mirror.share.numerator) * 100.0 / f64::from(mirror.share.denominator);
        lines.push(format!(
            "RequestMirror: {}:{} gets a copy of {percent} % of the requests",
            mirror.service, mirror.port
        ));
    }
    lines
}

fn changes(lines: &mut Vec<String>, of: &str, changes: &HeaderChanges) {
    for (name, value) in &changes.set {
        lines.push(format!(
            "{of} header {name} is set to {}",
            String::from(value.clone())
        ));
    }
    for (name, value) in &changes.add {
        lines.push(format!(
            "{of} header {name} gets {}",
            String::from(value.clone())
        ));
    }
    for name in &changes.remove {
        lines.push(format!("{of} header {name} is removed"));
    }
}

/// The conditions of a match, all of which must hold.
pub(crate) fn conditions(one: &HttpMatch) -> String {
    let mut parts = Vec::new();
    match &one.path {
        // What a GRPCRoute without rules has: no path is empty.
        Some(PathMatch::Exact(path)) if path.is_empty() => return "nothing".to_owned(),
        Some(PathMatch::Exact(path)) => parts.push(format!("path {path}")),
        Some(PathMatch::Prefix(path)) => parts.push(format!("path {path} and below")),
        Some(PathMatch::Pattern(pattern)) => parts.push(format!("path ~ {pattern}")),
        None => {}
    }
    if let Some(method) = &one.method {
        parts.push(format!("method {method}"));
    }
    let exact = |what: &str, (name, value): &(String, String)| format!("{what} {name}={value}");
    let like =
        |what: &str, (name, pattern): &(String, Pattern)| format!("{what} {name} ~ {pattern}");
    parts.extend(one.headers.iter().map(|one| exact("header", one)));
    parts.extend(one.header_patterns.iter().map(|one| like("header", one)));
    parts.extend(one.queries.iter().map(|one| exact("query", one)));
    parts.extend(one.query_patterns.iter().map(|one| like("query", one)));
    match parts.is_empty() {
        true => "everything".to_owned(),
        false => parts.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_one_line_and_none_is_everything() {
        let one = HttpMatch {
            path: Some(PathMatch::Prefix("/v2".into())),
            method: Some("GET".into()),
            headers: vec![("version".into(), "one".into())],
            query_patterns: vec![("q".into(), "a+".parse().unwrap())],
            ..HttpMatch::default()
        };
        assert_eq!(
            conditions(&one),
            "path /v2 and below, method GET, header version=one, query q ~ a+"
        );
        assert_eq!(conditions(&HttpMatch::default()), "everything");
    }
}
