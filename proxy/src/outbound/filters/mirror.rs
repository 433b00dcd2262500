//! Copies of requests for other services (Gateway API v1, HTTPRequestMirrorFilter): who gets one is drawn for
//! each request, and its answer is read and forgotten.
//!
//! A copy says what the filters before it made of the request, in the same place: the header fields, the path
//! and the query that the backend gets. It goes to one endpoint, once, with low priority, so that its service
//! sheds it before what callers wait for. The caller is never slower for it nor sees what becomes of it: a
//! copy of a request without a body begins beside the request, one with a body once the body has passed and
//! the answer is there, in a task of its own. All is bounded: how many are under way, how much body is kept,
//! how long an answer may take and how much of it is read.

use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::task::Poll;
use std::time::Instant;

use http::Request;
use http::header::EXPECT;
use http::request::Parts;
use http_body::Body as _;
use rand::RngExt as _;
use tokio::sync::OwnedSemaphorePermit;
use weft_config::table::{MirrorShare, Priority, RequestTraffic, Retry};
use weft_transport::alone::alone;
use weft_transport::locks::lock;

use super::super::attempt::{Answered, Failed};
use super::super::exchange::{Carries, CopyOfBody, Exchange};
use super::super::route::Route;
use super::forward;
use crate::cluster::Cluster;
use crate::cluster::copies::{Dropped, UnderWay};
use crate::cluster::pick::{Criteria, TriedEndpoints};
use crate::failure::Failure;
use crate::http::body::poll_pump;
use crate::http::content::Content;
use crate::http::fields::WEFT_ERROR;
use crate::http::upload::Sending;
use crate::limits;
use crate::record::attempt::Attempt;
use crate::resilience::deadline::Deadline;
use crate::resilience::destination::Event;

/// Those of one request that were drawn and are not sent yet.
#[derive(Clone, Default)]
pub(in super::super) struct Mirrored(Vec<Drawn>);

#[derive(Clone)]
struct Drawn {
    cluster: Arc<Cluster>,
    head: Parts,
}

impl Mirrored {
    /// How many they are.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }
}

/// Draws who gets a copy of the request as it is now.
pub(super) fn draw(
    exchange: &mut Exchange,
    mirrors: &[(MirrorShare, Arc<Cluster>)],
) -> Result<(), Failure> {
    for (share, cluster) in mirrors {
        let is_drawn = {
            let random = &mut *lock(&exchange.worker.random);
            share.denominator > 0 && random.random_range(0..share.denominator) < share.numerator
        };
        if !is_drawn {
            continue;
        }
        let mut head = Request::new(()).into_parts().0;
        head.method = exchange.head.method.clone();
        head.uri = exchange.head.uri.clone();
        head.version = exchange.head.version;
        head.headers = exchange.head.headers.clone();
        // Its body is here when it is sent.
        head.headers.remove(EXPECT);
        forward::apply_to(&exchange.worker, &mut head, &route(exchange, cluster))?;
        let drawn = Drawn {
            cluster: Arc::clone(cluster),
            head,
        };
        exchange.mirrored.get_or_insert_default().0.push(drawn);
    }
    Ok(())
}

/// To whom a copy goes, as a request goes to a backend.
fn route(exchange: &Exchange, cluster: &Arc<Cluster>) -> Route {
    let addressed = exchange.route.parent.as_ref();
    let addressed = addressed.unwrap_or(&exchange.route.cluster);
    Route {
        cluster: Arc::clone(cluster),
        parent: (addressed.label != cluster.label).then(|| Arc::clone(addressed)),
        name: exchange.route.name.clone(),
        traffic: Arc::clone(&TRAFFIC),
        chain: None,
        session: None,
    }
}

/// How copies are treated.
static TRAFFIC: LazyLock<Arc<RequestTraffic>> = LazyLock::new(|| {
    Arc::new(RequestTraffic {
        priority: Priority::Low,
        retry: Retry {
            attempts: 0,
            ..Retry::default()
        },
        ..RequestTraffic::default()
    })
});

/// Sends the copies of a request without a body: before its first attempt, as there is nothing to wait for.
pub(in super::super) fn send_bodiless(exchange: &mut Exchange) {
    if exchange.mirrored.is_some() && matches!(exchange.copy_of_body(), CopyOfBody::None) {
        send(exchange);
    }
}

/// Sends the copies that are left, with the body as far as it was kept: before that is forgotten.
pub(in super::super) fn send(exchange: &mut Exchange) {
    let Some(mirrored) = exchange.mirrored.take() else {
        return;
    };
    for one in mirrored.0 {
        let counts = &one.cluster.destination.counts;
        let body = match exchange.copy_of_body() {
            CopyOfBody::None => None,
            CopyOfBody::Whole(body) => Some(body),
            CopyOfBody::NotHere => {
                counts.add(Event::MirrorBody);
                continue;
            }
        };
        let worker = &exchange.worker;
        let now = Instant::now();
        let place = Arc::clone(&worker.mirrors).try_acquire_owned();
        let place = place.map_err(|_| Dropped::Crowded);
        let both = place.and_then(|place| Ok((place, UnderWay::begin(&one.cluster.lasting, now)?)));
        let (place, under_way) = match both {
            Ok(both) => both,
            Err(dropped) => {
                counts.add(match dropped {
                    Dropped::Crowded => Event::MirrorCrowded,
                    Dropped::Failing => Event::MirrorFailing,
                });
                continue;
            }
        };
        let copy = copy(exchange, one, now);
        let finish = worker.finish.clone();
        let sending = async move {
            tokio::select! {
                () = carry(copy, body, (place, under_way)) => {}
                // No drain waits for it.
                () = finish.cancelled() => {}
            }
        };
        worker.tasks.spawn(alone("a mirrored request", sending));
    }
}

fn copy(exchange: &Exchange, one: Drawn, now: Instant) -> Exchange {
    Exchange {
        worker: Arc::clone(&exchange.worker),
        route: route(exchange, &one.cluster),
        head: one.head,
        criteria: Criteria {
            preferred: None,
            tried: TriedEndpoints::default(),
            key: exchange.criteria.key,
            repeatable: false,
        },
        carries: Carries::Request {
            body: None,
            grpc: exchange.is_grpc(),
        },
        deadline: Deadline::of_request(Some(now + limits::MIRROR_TIME_MAX), None),
        trace: None,
        grant: None,
        mirrored: None,
    }
}

/// Carries one copy to its end.
async fn carry(
    mut copy: Exchange,
    body: Option<Sending<Content>>,
    (place, under_way): (OwnedSemaphorePermit, UnderWay),
) {
    let counts = Arc::clone(&copy.route.cluster.destination.counts);
    let whole = Box::pin(async move {
        let answered = ask(&mut copy, body).await.ok()?;
        // What the far sidecar says in its application's place is no answer of that.
        let is_of_mesh = answered.response.headers().contains_key(WEFT_ERROR);
        forget(answered).await.filter(|()| !is_of_mesh)
    });
    let answered = tokio::time::timeout(limits::MIRROR_TIME_MAX, whole).await;
    counts.add(match answered {
        Ok(Some(())) => {
            under_way.answered();
            Event::MirrorAnswered
        }
        Ok(None) | Err(_) => {
            under_way.failed(Instant::now());
            Event::MirrorFailed
        }
    });
    drop(place);
}

async fn ask(copy: &mut Exchange, body: Option<Sending<Content>>) -> Result<Answered, Failed> {
    let now = Instant::now();
    copy.tell_deadline(now);
    let clock = copy.deadline.attempt(now, None);
    let picked = copy.pick(now)?;
    copy.attempt(body, picked, &clock, &mut Attempt::begin(now))
        .await
}

/// Reads the answer and drops it; of one that has no end, or that breaks off, nothing more is wanted. None
/// where it broke off.
async fn forget(answered: Answered) -> Option<()> {
    let Answered {
        mut body,
        upward,
        flight: _flight,
        ..
    } = answered;
    let mut pump = upward.into_pump();
    let mut read = 0;
    while read < limits::MIRROR_ANSWER_BYTES_MAX {
        let frame = std::future::poll_fn(|cx| {
            if poll_pump(&mut pump, cx).is_err() {
                return Poll::Ready(Err(()));
            }
            pin!(&mut body).poll_frame(cx).map(|frame| match frame {
                None => Ok(None),
                Some(Ok(frame)) => Ok(Some(frame.data_ref().map_or(0, bytes::Bytes::len))),
                Some(Err(_)) => Err(()),
            })
        });
        match frame.await {
            Ok(Some(bytes)) => read += bytes,
            Ok(None) => return Some(()),
            Err(()) => return None,
        }
    }
    Some(())
}
