//! The pure matching rules of the table's values. Paths are given without their query.

use std::str::FromStr;

use http::HeaderName;
use percent_encoding::percent_decode_str;

use super::asked::{Asked, Texts};
use super::{HttpMatch, PathMatch, PathPattern, PathPatternError, RouteRule, Rule};
use weft_transport::identity::SpiffeId;

impl RouteRule {
    /// Whether this rule takes the request. It is what a rule means; [`Router`](super::Router) finds the
    /// first rule of which this holds without asking each.
    pub fn matches(&self, asked: &Asked<'_>) -> bool {
        self.matches.is_empty() || self.matches.iter().any(|one| one.matches(asked))
    }
}

impl HttpMatch {
    /// Whether all conditions hold.
    pub fn matches(&self, asked: &Asked<'_>) -> bool {
        // A name that no field can have is that of no field.
        let texts =
            |name: &str| HeaderName::try_from(name).map_or(Texts::None, |name| asked.texts(&name));
        let parameter = |name: &str| asked.parameter(name);
        self.path
            .as_ref()
            .is_none_or(|wanted| wanted.matches(asked.path))
            && self
                .method
                .as_ref()
                .is_none_or(|wanted| wanted == asked.method)
            && self
                .headers
                .iter()
                .all(|(name, value)| texts(name).any(|one| one == value.as_bytes()))
            && self
                .header_patterns
                .iter()
                .all(|(name, pattern)| texts(name).any_text(|one| pattern.matches(one)))
            && self
                .queries
                .iter()
                .all(|(name, value)| parameter(name).is_some_and(|one| one == value.as_str()))
            && self
                .query_patterns
                .iter()
                .all(|(name, pattern)| parameter(name).is_some_and(|one| pattern.matches(&one)))
    }
}

impl PathMatch {
    /// Whether `path` satisfies the condition. A prefix counts whole segments, and a trailing `/` of
    /// the prefix is ignored (Gateway API, PathMatchPathPrefix).
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(wanted) => wanted == path,
            Self::Prefix(wanted) => {
                let wanted = wanted.strip_suffix('/').unwrap_or(wanted);
                path.strip_prefix(wanted)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Self::Pattern(pattern) => pattern.matches(path),
        }
    }
}

impl Rule {
    /// Whether the rule matches a call. What cannot be checked matches if the rule denies and does not match
    /// if it allows, so that a rule that cannot be checked never allows a call. That is so
    ///
    /// - for principals where `caller` is `None`: it proved no identity, and may be any of them;
    /// - for methods and paths where `request`, which is these, is `None`: on a TCP service.
    pub fn matches(&self, caller: Option<&SpiffeId>, request: Option<(&str, &str)>) -> bool {
        let denies = self.action == super::Action::Deny;
        if let Some(wanted) = &self.principals
            && !caller.map_or(denies, |caller| wanted.contains(caller))
        {
            return false;
        }
        if self.methods.is_none() && self.paths.is_none() {
            return true;
        }
        let Some((method, path)) = request else {
            return denies;
        };
        self.methods
            .as_ref()
            .is_none_or(|wanted| wanted.iter().any(|one| one == method))
            && self
                .paths
                .as_ref()
                .is_none_or(|wanted| wanted.iter().any(|one| one.matches(path)))
    }
}

/// A path in the form in which case-insensitive applications compare it: decoded, and each letter in one
/// form. Some compare in lower case and some in upper case; letters that are equal in either have one form
/// here, such as both forms of sigma.
pub fn folded(path: &str) -> String {
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    let lower = decoded.chars().flat_map(char::to_lowercase);
    let upper = lower.flat_map(char::to_uppercase);
    upper.flat_map(char::to_lowercase).collect()
}

impl Rule {
    /// Whether the condition on the path would come out the same for an application that ignores case.
    /// `folded` is the path as [`folded`] writes it.
    pub fn ignores_case_of(&self, path: &str, folded: &str) -> bool {
        self.paths.as_ref().is_none_or(|patterns| {
            let exactly = patterns.iter().any(|one| one.matches(path));
            exactly == patterns.iter().any(|one| one.matches_folded(folded))
        })
    }
}

impl PathPattern {
    /// Whether a path that is [`folded`] matches where case is ignored.
    fn matches_folded(&self, path: &str) -> bool {
        // The star of the pattern is in the text: `%2A` is one of the path.
        if self.text.ends_with('*') {
            path.starts_with(&self.folded)
        } else {
            self.folded == path
        }
    }

    /// Whether `path` matches. The caller must have refused or resolved dot segments and encoded
    /// slashes first: the path given is the one that the application will see.
    pub fn matches(&self, path: &str) -> bool {
        match self.text.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => self.text == path,
        }
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for PathPattern {
    type Err = PathPatternError;

    fn from_str(text: &str) -> Result<Self, PathPatternError> {
        let Some(segments) = text.strip_prefix('/') else {
            return Err(PathPatternError::NotAbsolute);
        };
        let fixed = segments.strip_suffix('*').unwrap_or(segments);
        if fixed.contains('*')
            || (fixed.len() < segments.len() && !fixed.is_empty() && !fixed.ends_with('/'))
        {
            return Err(PathPatternError::Star);
        }
        check_path(&text[..=fixed.len()])?;
        Ok(Self {
            text: text.to_owned(),
            folded: folded(text.strip_suffix('*').unwrap_or(text)),
        })
    }
}

/// Refuses paths that no accepted request can have.
pub(crate) fn check_path(path: &str) -> Result<(), PathPatternError> {
    let Some(segments) = path.strip_prefix('/') else {
        return Err(PathPatternError::NotAbsolute);
    };
    if segments
        .chars()
        .any(|c| matches!(c, '?' | '#') || c.is_whitespace() || c.is_control())
    {
        return Err(PathPatternError::NeverMatches);
    }
    let inner = segments.strip_suffix('/').unwrap_or(segments);
    if !inner.is_empty() && inner.split('/').any(|one| matches!(one, "" | "." | "..")) {
        return Err(PathPatternError::NeverMatches);
    }
    if inner.is_empty() && !segments.is_empty() {
        return Err(PathPatternError::NeverMatches);
    }
    Ok(())
}

impl TryFrom<String> for PathPattern {
    type Error = PathPatternError;

    fn try_from(text: String) -> Result<Self, PathPatternError> {
        text.parse()
    }
}

impl From<PathPattern> for String {
    fn from(pattern: PathPattern) -> Self {
        pattern.text
    }
}

#[cfg(test)]
mod tests {
    use super::super::Action;
    use super::*;

    #[test]
    fn a_prefix_counts_whole_segments() {
        let v2 = PathMatch::Prefix("/v2".into());
        assert!(v2.matches("/v2") && v2.matches("/v2/") && v2.matches("/v2/a"));
        assert!(!v2.matches("/v2example") && !v2.matches("/v") && !v2.matches("/"));
        assert!(PathMatch::Prefix("/v2/".into()).matches("/v2"));
        assert!(PathMatch::Prefix("/".into()).matches("/anything"));
    }

    #[test]
    fn a_star_matches_below_but_not_the_parent() {
        let below: PathPattern = "/orders/*".parse().unwrap();
        assert!(below.matches("/orders/") && below.matches("/orders/1/items"));
        assert!(!below.matches("/orders") && !below.matches("/ordersx"));
        assert!("/*".parse::<PathPattern>().unwrap().matches("/"));
    }

    #[test]
    fn a_rule_that_names_principals_never_allows_a_caller_without_identity_and_denies_it() {
        let principal: SpiffeId = "spiffe://demo.test/ns/shop/sa/a".parse().unwrap();
        let rule = |action, principals: Option<Vec<SpiffeId>>, methods| Rule {
            policy: "p".into(),
            action,
            principals,
            methods,
            paths: None,
        };
        let get = Some(("GET", "/"));
        for (action, matches) in [
            (Action::Allow, false),
            (Action::Deny, true),
            (Action::Audit, false),
        ] {
            let named = rule(action, Some(vec![principal.clone()]), None);
            assert_eq!(named.matches(None, get), matches, "{action:?}");
            assert_eq!(named.matches(None, None), matches, "{action:?}");
            assert!(named.matches(Some(&principal), get));
            assert!(rule(action, None, None).matches(None, get), "{action:?}");
        }
        let delete = || Some(vec!["DELETE".to_owned()]);
        let deny = rule(Action::Deny, Some(vec![principal]), delete());
        assert!(!deny.matches(None, get) && deny.matches(None, Some(("DELETE", "/"))));
    }

    #[test]
    fn a_path_that_differs_in_case_alone_is_distinguished_from_one_that_differs() {
        let rule = |pattern: &str| Rule {
            policy: "p".into(),
            action: Action::Deny,
            principals: None,
            methods: None,
            paths: Some(vec![pattern.parse().unwrap()]),
        };
        for (pattern, path, same) in [
            ("/admin/*", "/admin/x", true),
            ("/admin/*", "/Admin/x", false),
            ("/caf%C3%A9", "/caf%C3%89", false),
            // Sigma within a word and at its end: one letter in upper case.
            ("/%CF%83", "/%CF%82", false),
            ("/%CE%BF%CE%A3/*", "/%CE%BF%CF%83/x", false),
            ("/a%2A", "/abc", true),
            ("/a%2A", "/A%2a", false),
        ] {
            let ignores = rule(pattern).ignores_case_of(path, &folded(path));
            assert_eq!(ignores, same, "{pattern} {path}");
        }
    }

    #[test]
    fn patterns_that_could_never_match_are_refused() {
        for bad in [
            "", "orders", "/a*", "/a/*/b", "/**", "/a?b", "/a b", "/a/../b", "/a//b", "/./*",
        ] {
            assert!(bad.parse::<PathPattern>().is_err(), "{bad}");
        }
        for good in ["/", "/*", "/a", "/a/", "/a/*", "/a.b/%2e"] {
            assert!(good.parse::<PathPattern>().is_ok(), "{good}");
        }
    }

    #[test]
    fn a_request_rule_on_tcp_denies_but_never_allows() {
        let caller: SpiffeId = "spiffe://demo.test/ns/shop/sa/frontend".parse().unwrap();
        let rule = |action| Rule {
            policy: "p".into(),
            action,
            principals: None,
            methods: Some(vec!["GET".into()]),
            paths: None,
        };
        assert!(!rule(Action::Allow).matches(Some(&caller), None));
        assert!(rule(Action::Deny).matches(Some(&caller), None));
        assert!(rule(Action::Allow).matches(Some(&caller), Some(("GET", "/"))));
    }
}
