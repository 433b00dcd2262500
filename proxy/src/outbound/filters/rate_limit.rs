//! Refuses requests over the rate of their route. The buckets are in [`crate::resilience::rate`].

use super::super::exchange::Exchange;
use crate::failure::{Failure, Reason};
use crate::resilience::destination::Event;

pub(super) fn apply(exchange: &Exchange) -> Result<(), Failure> {
    let route = &exchange.route;
    let limits = &route.traffic.rate_limits;
    let Some(name) = route.name.as_ref().filter(|_| !limits.is_empty()) else {
        return Ok(());
    };
    let counts = &route.cluster.destination.counts;
    let verdict = exchange.worker.shared.route_rates.take(name, limits);
    if verdict.observed {
        counts.add(Event::ObservedRate);
    }
    if verdict.refused {
        counts.add(Event::RefusedRate);
        let over = format!("the rate of {name} is over its limit");
        return Err(Failure::new(Reason::RateLimited, over));
    }
    Ok(())
}
