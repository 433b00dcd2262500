//! What the rule that took a request does to it, and after that its backend, each in the order of
//! [`weft_config::table::Filters`]: answer a preflight, answer with another URL, change header fields,
//! rewrite, draw copies. And what they do to the answer, in reverse order.

use std::sync::Arc;

use http::HeaderMap;
use http::request::Parts;
use weft_config::table::{Filters, HeaderChanges, Rewrite};

use super::super::exchange::Exchange;
use super::super::instead::Instead;
use super::super::session::Setback;
use super::{Addressed, cors, headers, mirror, redirect, rewrite};
use crate::failure::{Failure, Reason};
use crate::record::Record;
use crate::resilience::destination::Event;
use cors::Grant;

/// Whether the filters answer the request in place of any backend. Those of the rule are asked before a
/// backend is chosen: a rule that answers need not have any.
pub(in super::super) fn answer(
    filters: &Filters,
    head: &Parts,
    addressed: Addressed<'_>,
    route: &Arc<str>,
) -> Result<(), Instead> {
    // It shall not go on as if the filter were not there.
    if let Some(name) = &filters.unresolved {
        let detail = format!("a filter of {route} leads nowhere: {name}");
        return Err(Failure::new(Reason::NoBackend, detail).into());
    }
    if let Some(cors) = &filters.cors
        && let Some(reply) = cors::preflight(cors, head, route)
    {
        return Err(Instead::Reply(Box::new(reply)));
    }
    if let Some(redirect) = &filters.redirect {
        let mut reply = redirect::answer(redirect, head, addressed, route)?;
        if let Some(cors) = &filters.cors {
            Grant::of(cors, &head.headers).write(&mut reply.headers);
        }
        return Err(Instead::Reply(Box::new(reply)));
    }
    Ok(())
}

/// Whether anything is done to it.
pub(super) fn is_set(exchange: &Exchange) -> bool {
    exchange.route.chain.is_some()
}

/// Does to the request what its rule and its backend ask for.
pub(super) fn apply(exchange: &mut Exchange) -> Result<(), Instead> {
    let Some(chain) = exchange.route.chain.clone() else {
        return Ok(());
    };
    for stage in chain.stages() {
        let is_of_backend = chain
            .backend
            .as_ref()
            .is_some_and(|one| Arc::ptr_eq(one, stage));
        if is_of_backend && let Some(name) = exchange.route.name.clone() {
            let label = exchange.addressed();
            let addressed = Addressed {
                authority: exchange.head.uri.authority().map(|one| one.as_str()),
                label: &label,
            };
            let answered = answer(&stage.filters, &exchange.head, addressed, &name);
            answered.inspect_err(|instead| instead.count(&exchange.counts()))?;
        }
        let filters = &*stage.filters;
        if let Some(cors) = &filters.cors {
            let grant = Grant::of(cors, &exchange.head.headers);
            // That of the rule has the last word.
            exchange.grant.get_or_insert_with(|| Box::new(grant));
        }
        headers::of_request(&mut exchange.head.headers, &filters.request_headers);
        rewrite::apply(&mut exchange.head.uri, &filters.rewrite)?;
        if !stage.mirrors.is_empty() {
            mirror::draw(exchange, &stage.mirrors)?;
        }
    }
    Ok(())
}

/// Counts and notes what acts on the request, before any copy of it is sent.
pub(in super::super) fn tell(exchange: &Exchange, record: &mut Record) {
    let route = &exchange.route;
    if let Some(setback) = route.session.as_ref().and_then(|session| session.setback()) {
        let routed = record.routed();
        match setback {
            Setback::Ignored(_) => routed.token = Some(setback.event()),
            Setback::Gone | Setback::Out => routed.session(setback.event()),
        }
    }
    let Some(chain) = &route.chain else {
        return;
    };
    let any = |acts: fn(&Filters) -> bool| chain.stages().any(|stage| acts(&stage.filters));
    let is_rewritten = any(|filters| filters.rewrite != Rewrite::default());
    let changes_request = any(|filters| filters.request_headers != HeaderChanges::default());
    let copies = exchange.mirrored.as_ref().map_or(0, |drawn| drawn.count());
    let has_page = exchange
        .grant
        .as_ref()
        .is_some_and(|grant| grant.has_origin());
    let all = [
        (has_page, Event::FilterCors),
        (changes_request, Event::FilterRequestHeaders),
        (is_rewritten, Event::FilterRewrite),
        (copies > 0, Event::FilterMirror),
    ];
    let counts = exchange.counts();
    for (_, filter) in all.into_iter().filter(|(acts, _)| *acts) {
        counts.add(filter);
        record.routed().filters.push(filter);
    }
    if is_rewritten {
        record.routed().sent_as = Some(exchange.head.uri.clone());
    }
    if copies > 0 {
        record.routed().copies = copies;
    }
}

/// Does to an answer what its rule and its backend ask for. What the mesh says itself (`is_of_mesh`) is not
/// the application's, and keeps its fields. Returns the filter that acted, if that is known of this answer
/// alone.
pub(in super::super) fn apply_to_answer(
    exchange: &Exchange,
    answer: &mut HeaderMap,
    is_of_mesh: bool,
) -> Option<Event> {
    let chain = exchange.route.chain.as_ref()?;
    let mut acted = None;
    if !is_of_mesh {
        for stage in chain.stages().rev() {
            let changes = &stage.filters.response_headers;
            if *changes != HeaderChanges::default() {
                headers::of_response(answer, changes);
                acted = Some(Event::FilterResponseHeaders);
            }
        }
    }
    if let Some(grant) = &exchange.grant {
        grant.write(answer);
    }
    acted.inspect(|acted| exchange.counts().add(*acted))
}
