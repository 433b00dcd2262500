//! Turns matches into entries of the router: names and patterns become places.

use std::collections::HashMap;
use std::hash::Hash;

use http::HeaderName;

use super::super::pattern::PatternSet;
use super::super::{HttpMatch, Pattern};
use super::{Entry, Field};

/// By which value an entry is filed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Key<'e> {
    /// It asks for none.
    None,
    /// Of the header field at that place.
    Header(usize, &'e str),
    /// Of the parameter at that place.
    Parameter(usize, &'e str),
}

/// Entries while they are made.
#[derive(Debug, Default)]
pub(super) struct Making {
    pub(super) entries: Vec<Entry>,
    pub(super) headers: Names<HeaderName>,
    pub(super) parameters: Names<Box<str>>,
}

/// Names while they are found, in the order of their places.
#[derive(Debug)]
pub(super) struct Names<N> {
    all: Vec<(N, Vec<Pattern>)>,
    places: HashMap<N, usize>,
    /// How many matches ask for a value.
    asked: HashMap<(usize, Box<str>), usize>,
}

impl Making {
    /// The entry of one match of the rule at that place; none if no request can meet it.
    pub(super) fn entry(&mut self, rule: usize, one: &HttpMatch) -> Option<Entry> {
        let mut headers = Vec::new();
        let mut header_patterns = Vec::new();
        for (name, value) in &one.headers {
            // A name that no field can have.
            let name = HeaderName::try_from(name).ok()?;
            headers.push(self.headers.value(name, value));
        }
        for (name, pattern) in &one.header_patterns {
            let name = HeaderName::try_from(name).ok()?;
            header_patterns.push(self.headers.pattern(name, pattern));
        }
        let parameters = one.queries.iter();
        let parameters = parameters.map(|(name, value)| {
            let name = name.as_str().into();
            self.parameters.value(name, value)
        });
        let parameters = parameters.collect();
        let parameter_patterns = one.query_patterns.iter().map(|(name, pattern)| {
            let name = name.as_str().into();
            self.parameters.pattern(name, pattern)
        });
        Some(Entry {
            rule,
            method: one.method.as_deref().map(Box::from),
            headers: headers.into(),
            header_patterns: header_patterns.into(),
            parameters,
            parameter_patterns: parameter_patterns.collect(),
        })
    }

    /// The value that the fewest others ask for.
    pub(super) fn key<'e>(&self, entry: &'e Entry) -> Key<'e> {
        let headers = entry.headers.iter().map(|(place, value)| {
            let asked = self.headers.asked(*place, value);
            (asked, Key::Header(*place, value))
        });
        let parameters = entry.parameters.iter().map(|(place, value)| {
            let asked = self.parameters.asked(*place, value);
            (asked, Key::Parameter(*place, value))
        });
        let rarest = headers.chain(parameters).min_by_key(|(asked, _)| *asked);
        rarest.map_or(Key::None, |(_, key)| key)
    }
}

impl<N: Clone + Eq + Hash> Names<N> {
    fn place(&mut self, name: N) -> usize {
        let next = self.all.len();
        let place = *self.places.entry(name.clone()).or_insert(next);
        if place == next {
            self.all.push((name, Vec::new()));
        }
        place
    }

    fn value(&mut self, name: N, value: &str) -> (usize, Box<str>) {
        let place = self.place(name);
        *self.asked.entry((place, value.into())).or_default() += 1;
        (place, value.into())
    }

    fn pattern(&mut self, name: N, pattern: &Pattern) -> (usize, usize) {
        let place = self.place(name);
        let patterns = &mut self.all[place].1;
        // Matches that differ in other things often share one.
        let known = patterns.iter().position(|one| one == pattern);
        let at = known.unwrap_or_else(|| {
            patterns.push(pattern.clone());
            patterns.len() - 1
        });
        (place, at)
    }

    fn asked(&self, place: usize, value: &str) -> usize {
        let asked = self.asked.get(&(place, value.into()));
        asked.copied().unwrap_or(0)
    }

    /// By their places.
    pub(super) fn fields(self) -> Vec<Field<N>> {
        let fields = self.all.into_iter();
        let field = |(name, patterns)| Field {
            name,
            patterns: PatternSet::new(patterns),
        };
        fields.map(field).collect()
    }
}

impl<N> Default for Names<N> {
    fn default() -> Self {
        Self {
            all: Vec::new(),
            places: HashMap::new(),
            asked: HashMap::new(),
        }
    }
}
