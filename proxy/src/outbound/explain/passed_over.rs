//! Which rule takes what is asked, and why the others do not. Pure.

use http::request::Parts;
use weft_config::table::{Asked, HttpMatch, PathMatch, Port, RouteRule, Router};

use super::{Explanation, PassedOver, Question, authority};

impl Explanation {
    /// The place of the rule that takes the request; notes those before it.
    pub(super) fn by_request(
        &mut self,
        question: &Question<'_>,
        port: &Port,
        router: &Router,
    ) -> Option<usize> {
        let asked = asked(question.head);
        let found = router.find(&asked);
        for rule in port.routes.iter().take(found.unwrap_or(usize::MAX)) {
            if let Some(because) = refusal(rule, &asked) {
                let rule = rule.route.clone();
                self.passed_over.push(PassedOver { rule, because });
            }
        }
        found
    }

    /// The same of a connection of TLS: the host decides, and not the order.
    pub(super) fn by_host(
        &mut self,
        question: &Question<'_>,
        port: &Port,
        router: &Router,
    ) -> Option<usize> {
        let wanted = question.server_name;
        let found = wanted.and_then(|host| router.find_by_host(host));
        for (place, rule) in port.routes.iter().enumerate() {
            if found == Some(place) {
                continue;
            }
            let hosts: Vec<String> = rule.hosts.iter().map(ToString::to_string).collect();
            let hosts = hosts.join(", ");
            let because = match wanted {
                None => format!("the client names no host, and it takes {hosts}"),
                Some(_) => format!("it takes {hosts}"),
            };
            let rule = rule.route.clone();
            self.passed_over.push(PassedOver { rule, because });
        }
        found
    }
}

fn asked(head: &Parts) -> Asked<'_> {
    Asked {
        method: head.method.as_str(),
        path: head.uri.path(),
        query: head.uri.query(),
        authority: authority(head),
        headers: &head.headers,
    }
}

/// The first condition of a rule that does not hold; none if the rule takes the request.
fn refusal(rule: &RouteRule, asked: &Asked<'_>) -> Option<String> {
    if rule.matches(asked) {
        return None;
    }
    // The compiler writes one match a rule.
    let one = rule.matches.first()?;
    let alone = |part: HttpMatch| !part.matches(asked);
    let nothing = HttpMatch::default;
    if let Some(path) = &one.path
        && alone(HttpMatch {
            path: Some(path.clone()),
            ..nothing()
        })
    {
        return Some(match path {
            PathMatch::Exact(path) => format!("the path is not {path}"),
            PathMatch::Prefix(path) => format!("the path is neither {path} nor below it"),
            PathMatch::Pattern(pattern) => format!("the path does not match {pattern}"),
        });
    }
    if let Some(method) = &one.method
        && alone(HttpMatch {
            method: Some(method.clone()),
            ..nothing()
        })
    {
        return Some(format!("the method is not {method}"));
    }
    for header in &one.headers {
        if alone(HttpMatch {
            headers: vec![header.clone()],
            ..nothing()
        }) {
            return Some(format!("the header {} is not {:?}", header.0, header.1));
        }
    }
    for header in &one.header_patterns {
        if alone(HttpMatch {
            header_patterns: vec![header.clone()],
            ..nothing()
        }) {
            return Some(format!(
                "the header {} does not match {}",
                header.0, header.1
            ));
        }
    }
    for query in &one.queries {
        if alone(HttpMatch {
            queries: vec![query.clone()],
            ..nothing()
        }) {
            return Some(format!(
                "the query parameter {} is not {:?}",
                query.0, query.1
            ));
        }
    }
    for query in &one.query_patterns {
        if alone(HttpMatch {
            query_patterns: vec![query.clone()],
            ..nothing()
        }) {
            return Some(format!(
                "the query parameter {} does not match {}",
                query.0, query.1
            ));
        }
    }
    Some("its conditions do not hold together".to_owned())
}
