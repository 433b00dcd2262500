//! What the application gets in place of an answer of its destination: the failure of its request, or what a
//! route answers by itself.

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::response_body::ResponseBody;
use crate::failure::Failure;
use crate::http::answer::{self, PROXY_STATUS};
use crate::http::fields::X_REQUEST_ID;
use crate::record::{Record, Reply as Kind};
use crate::resilience::destination::{Counts, Event};

/// See the module.
#[derive(Debug)]
pub(crate) enum Instead {
    /// The mesh could not, or was not allowed to.
    Failure(Failure),
    /// A route answers, as it was told to. Boxed, as most requests need no room for it.
    Reply(Box<Reply>),
}

/// The answer of a route.
#[derive(Debug)]
pub(crate) struct Reply {
    /// Which filter answers.
    pub(super) kind: Kind,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// The rule.
    pub(super) route: Arc<str>,
}

impl From<Failure> for Instead {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl Instead {
    /// Counts the filter that answers, if one does.
    pub(super) fn count(&self, counts: &Counts) {
        match self {
            Self::Failure(_) => {}
            Self::Reply(reply) => counts.add(match reply.kind {
                Kind::Redirect => Event::FilterRedirect,
                Kind::Preflight => Event::FilterCors,
            }),
        }
    }

    /// The response, and what is to be known of it.
    pub(crate) fn respond(self, mut record: Record, grpc: bool) -> Response<ResponseBody> {
        match self {
            Self::Failure(failure) => {
                let to_head = record.method == http::Method::HEAD;
                let id = record.request_id.as_ref();
                let (response, text) = answer::answer(&failure, grpc, to_head, id);
                record.status = response.status().as_u16();
                record.failure = Some(failure);
                response.map(|()| ResponseBody::whole(text, record))
            }
            Self::Reply(reply) => {
                let mut response = Response::new(());
                *response.status_mut() = reply.status;
                let status = answer::proxy_status_of_reply(reply.kind.as_str(), &reply.route);
                let headers = response.headers_mut();
                *headers = reply.headers;
                headers.insert(PROXY_STATUS, status);
                if let Some(id) = &record.request_id {
                    headers.insert(X_REQUEST_ID, id.clone());
                }
                //= https://www.rfc-editor.org/rfc/rfc9110#section-8.6
                //# A server MUST NOT send a Content-Length header field in any response with a status code of
                //# 1xx (Informational) or 204 (No Content).
                if reply.status != StatusCode::NO_CONTENT {
                    headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
                }
                record.status = reply.status.as_u16();
                record.reply = Some(reply.kind);
                response.map(|()| ResponseBody::whole(Bytes::new(), record))
            }
        }
    }
}
