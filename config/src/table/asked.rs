//! A request as the rules of routes see it, and what its fields and parameters say. Pure.
//!
//! Which rule takes it is in [`super::router`]; what a condition means is in [`super::matching`].

use std::borrow::Cow;

use http::HeaderMap;
use http::header::{COOKIE, HOST, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;

/// What rules of routes may ask of a request.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Its method, such as `GET`.
    pub method: &'a str,
    /// Its path without the query.
    pub path: &'a str,
    /// Its query without the `?`, if it has one.
    pub query: Option<&'a str>,
    /// Whom it is for as the client wrote it, in `Host` or in `:authority`; it is what conditions on `host`
    /// see.
    pub authority: Option<&'a str>,
    /// Its header fields.
    pub headers: &'a HeaderMap,
}

/// What a condition on a header field is compared with: each line, and all of them joined.
#[derive(Debug)]
pub(super) enum Texts<'a> {
    /// It has no such field.
    None,
    /// One line.
    One(&'a [u8]),
    /// Several, and then the whole.
    Several(Vec<Cow<'a, [u8]>>),
}

impl<'a> Asked<'a> {
    /// What a header field of that lower-case name says.
    ///
    /// Several lines of one name mean what they mean joined by commas (RFC 9110 section 5.3); a cookie, which
    /// clients of HTTP/2 cut into several, by semicolons (RFC 9113 section 8.2.3). A condition holds for a
    /// line, too, as applications are used to see lists in both forms.
    pub(super) fn texts(&self, name: &HeaderName) -> Texts<'a> {
        if *name == HOST {
            return self
                .authority
                .map_or(Texts::None, |text| Texts::One(text.as_bytes()));
        }
        let mut lines = self.headers.get_all(name).iter().map(HeaderValue::as_bytes);
        match (lines.next(), lines.next()) {
            (None, _) => Texts::None,
            (Some(one), None) => Texts::One(one),
            (Some(first), Some(second)) => {
                let mut all: Vec<&[u8]> = vec![first, second];
                all.extend(lines);
                let glue: &[u8] = if *name == COOKIE { b"; " } else { b"," };
                let whole = all.join(glue);
                let lines = all.into_iter().map(Cow::Borrowed);
                Texts::Several(lines.chain([Cow::Owned(whole)]).collect())
            }
        }
    }

    /// The parameters of the query in their order.
    pub(super) fn parameters(&self) -> impl Iterator<Item = (Cow<'a, str>, &'a str)> {
        let pairs = self.query.unwrap_or_default().split('&');
        pairs.filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), value)
        })
    }

    /// The value of the first parameter of that name.
    pub(super) fn parameter(&self, name: &str) -> Option<Cow<'a, str>> {
        let mut parameters = self.parameters();
        let (_, value) = parameters.find(|(one, _)| one == name)?;
        Some(decoded(value))
    }
}

impl Texts<'_> {
    /// Whether the condition holds for a line, or for all of them joined.
    pub(super) fn any(&self, holds: impl Fn(&[u8]) -> bool) -> bool {
        match self {
            Self::None => false,
            Self::One(text) => holds(text),
            Self::Several(texts) => texts.iter().any(|text| holds(text)),
        }
    }

    /// As [`Self::any`] for a condition on text: what is no UTF-8 meets none.
    pub(super) fn any_text(&self, holds: impl Fn(&str) -> bool) -> bool {
        self.any(|bytes| std::str::from_utf8(bytes).is_ok_and(&holds))
    }

    /// Shows each of those that are text.
    pub(super) fn each_text(&self, mut show: impl FnMut(&str)) {
        let mut show = |bytes| {
            if let Ok(text) = std::str::from_utf8(bytes) {
                show(text);
            }
        };
        match self {
            Self::None => {}
            Self::One(text) => show(text),
            Self::Several(texts) => texts.iter().for_each(|text| show(text)),
        }
    }
}

/// What a form wrote (WHATWG URL standard, application/x-www-form-urlencoded): `+` is a space, bytes that are
/// no UTF-8 become U+FFFD, and a `%` without two digits stands for itself.
pub(super) fn decoded(text: &str) -> Cow<'_, str> {
    let spaced: Cow<'_, str> = match text.contains('+') {
        true => text.replace('+', " ").into(),
        false => text.into(),
    };
    if !spaced.contains('%') {
        return spaced;
    }
    percent_decode_str(&spaced)
        .decode_utf8_lossy()
        .into_owned()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        headers
    }

    fn asked<'a>(query: &'a str, headers: &'a HeaderMap) -> Asked<'a> {
        Asked {
            method: "GET",
            path: "/",
            query: Some(query),
            authority: Some("Orders.shop:80"),
            headers,
        }
    }

    #[test]
    fn the_first_parameter_of_a_name_counts_and_is_decoded() {
        let none = HeaderMap::new();
        let value = |query: &str, name: &str| {
            let value = asked(query, &none).parameter(name);
            value.map(Cow::into_owned)
        };
        for (case, query, name, expected) in [
            ("X11", "a=1&a=2", "a", Some("1")),
            ("X12", "b=a=x", "a", None),
            ("X12", "b=a=x", "b", Some("a=x")),
            ("X12", "A=x", "a", None),
            ("plus and percent", "a+b=c%20d+e%2B", "a b", Some("c d e+")),
            ("an encoded name", "%61=1", "a", Some("1")),
            ("no value", "x&a", "a", Some("")),
            ("no UTF-8", "a=%ff", "a", Some("\u{fffd}")),
            ("no digits", "a=%zz%4", "a", Some("%zz%4")),
            ("empty pairs", "&&a=1&", "a", Some("1")),
            ("no query", "", "", None),
        ] {
            assert_eq!(value(query, name).as_deref(), expected, "{case}: {query}");
        }
    }

    #[test]
    fn a_field_is_each_of_its_lines_and_all_of_them_joined() {
        let fields = headers(&[
            ("a", "1"),
            ("b", "1"),
            ("b", "2"),
            ("cookie", "x=1"),
            ("cookie", "y=2"),
            ("host", "else"),
        ]);
        let asked = asked("", &fields);
        let is = |name, text: &str| {
            let texts = asked.texts(&HeaderName::from_static(name));
            texts.any(|one| one == text.as_bytes())
        };
        assert!(is("a", "1") && !is("a", "1,1") && !is("c", ""));
        assert!(is("b", "1") && is("b", "2") && is("b", "1,2") && !is("b", "2,1"));
        assert!(is("cookie", "x=1; y=2") && !is("cookie", "x=1,y=2"));
        // Case X47: the text itself, port and case and all.
        assert!(is("host", "Orders.shop:80") && !is("host", "orders.shop") && !is("host", "else"));
    }
}
