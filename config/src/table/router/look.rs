//! One request's way through the files of a router. What it says is read when a match asks for it, and once.

use std::borrow::Cow;

use super::super::asked::{Asked, Texts, decoded};
use super::{Entry, File, Router};

pub(super) struct Look<'r> {
    router: &'r Router,
    asked: &'r Asked<'r>,
    /// The first entry that holds, as far as was looked.
    found: Option<u32>,
    /// By place; empty until one is asked for.
    headers: Vec<Option<Header<'r>>>,
    /// The same; all are read together, as finding one means to go through the query.
    parameters: Vec<Option<Parameter<'r>>>,
    has_parameters: bool,
}

struct Header<'a> {
    texts: Texts<'a>,
    /// Which patterns match; none until one is asked for.
    matched: Option<Vec<bool>>,
}

struct Parameter<'a> {
    value: Cow<'a, str>,
    matched: Option<Vec<bool>>,
}

impl<'r> Look<'r> {
    pub(super) fn new(router: &'r Router, asked: &'r Asked<'r>) -> Self {
        Self {
            router,
            asked,
            found: None,
            headers: Vec::new(),
            parameters: Vec::new(),
            has_parameters: false,
        }
    }

    /// The first entry that holds.
    pub(super) fn found(&self) -> Option<u32> {
        self.found
    }

    /// Looks for a better entry in the file.
    pub(super) fn in_file(&mut self, file: &'r File) {
        if file.first.is_none_or(|first| !self.is_better(first)) {
            return;
        }
        for (place, values) in &file.by_header {
            match &self.header(*place).texts {
                Texts::None => {}
                Texts::One(text) => {
                    let list = values.get(*text);
                    self.in_list(list.map_or(&[], Vec::as_slice));
                }
                Texts::Several(texts) => {
                    let lists: Vec<_> = texts.iter().filter_map(|one| values.get(&**one)).collect();
                    lists.into_iter().for_each(|list| self.in_list(list));
                }
            }
        }
        for (place, values) in &file.by_parameter {
            let list = match self.parameter(*place) {
                Some(parameter) => values.get(&*parameter.value),
                None => None,
            };
            self.in_list(list.map_or(&[], Vec::as_slice));
        }
        self.in_list(&file.rest);
    }

    /// Looks for a better entry among those whose pattern the path matches.
    pub(super) fn in_patterns(&mut self) {
        let (patterns, entries) = (&self.router.patterns, &self.router.of_patterns);
        if entries.first().is_none_or(|first| !self.is_better(*first)) {
            return;
        }
        let mut matched = patterns.unmatched();
        patterns.note(self.asked.path, &mut matched);
        for (number, _) in entries.iter().zip(matched).filter(|(_, one)| *one) {
            if self.try_entry(*number) {
                return;
            }
        }
    }

    fn in_list(&mut self, list: &[u32]) {
        for number in list {
            if self.try_entry(*number) {
                return;
            }
        }
    }

    /// Returns whether later ones of the same list need not be tried.
    fn try_entry(&mut self, number: u32) -> bool {
        if !self.is_better(number) {
            return true;
        }
        let router = self.router;
        let place = usize::try_from(number).unwrap_or(usize::MAX);
        let holds = match router.entries.get(place) {
            Some(entry) => self.holds(entry),
            None => false,
        };
        if holds {
            self.found = Some(number);
        }
        holds
    }

    fn is_better(&self, number: u32) -> bool {
        self.found.is_none_or(|found| number < found)
    }

    /// Whether all that the match asks for beside the path is there. What costs most comes last.
    fn holds(&mut self, entry: &Entry) -> bool {
        entry
            .method
            .as_deref()
            .is_none_or(|method| method == self.asked.method)
            && entry.headers.iter().all(|(place, value)| {
                let texts = &self.header(*place).texts;
                texts.any(|text| text == value.as_bytes())
            })
            && entry.parameters.iter().all(|(place, value)| {
                let parameter = self.parameter(*place);
                parameter.is_some_and(|parameter| parameter.value == **value)
            })
            && entry
                .header_patterns
                .iter()
                .all(|(place, pattern)| self.header_matches(*place, *pattern))
            && entry
                .parameter_patterns
                .iter()
                .all(|(place, pattern)| self.parameter_matches(*place, *pattern))
    }

    fn header(&mut self, place: usize) -> &mut Header<'r> {
        if self.headers.is_empty() {
            self.headers.resize_with(self.router.headers.len(), || None);
        }
        let name = &self.router.headers[place].name;
        let asked = self.asked;
        self.headers[place].get_or_insert_with(|| Header {
            texts: asked.texts(name),
            matched: None,
        })
    }

    fn header_matches(&mut self, place: usize, pattern: usize) -> bool {
        let patterns = &self.router.headers[place].patterns;
        let header = self.header(place);
        let matched = header.matched.get_or_insert_with(|| {
            let mut matched = patterns.unmatched();
            // One text after another: each adds what it matches.
            header
                .texts
                .each_text(|text| patterns.note(text, &mut matched));
            matched
        });
        matched[pattern]
    }

    fn parameter(&mut self, place: usize) -> Option<&mut Parameter<'r>> {
        if !std::mem::replace(&mut self.has_parameters, true) {
            self.read_parameters();
        }
        self.parameters.get_mut(place)?.as_mut()
    }

    fn parameter_matches(&mut self, place: usize, pattern: usize) -> bool {
        let patterns = &self.router.parameters[place].patterns;
        let Some(parameter) = self.parameter(place) else {
            return false;
        };
        let value = &parameter.value;
        let matched = parameter.matched.get_or_insert_with(|| {
            let mut matched = patterns.unmatched();
            patterns.note(value, &mut matched);
            matched
        });
        matched[pattern]
    }

    /// Takes the first of each name that any match asks for.
    fn read_parameters(&mut self) {
        let router = self.router;
        self.parameters
            .resize_with(router.parameters.len(), || None);
        for (name, value) in self.asked.parameters() {
            let place = router.parameter_places.get(&*name);
            let parameter = place.and_then(|place| self.parameters.get_mut(*place));
            if let Some(parameter) = parameter {
                parameter.get_or_insert_with(|| Parameter {
                    value: decoded(value),
                    matched: None,
                });
            }
        }
    }
}
