//! The order of the heads of one response, on any wire. Pure.

use http::Method;
use http::response::Parts;

use crate::error::ReceiveError;
use crate::limits::INFORMATIONAL_RESPONSES;

/// The heads that have come, and the request that they answer.
#[derive(Debug)]
pub(crate) struct ResponseHeads {
    method: Method,
    informational: u8,
}

/// What may follow a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Follows {
    /// Another head.
    Head,
    /// The content, if the response has any.
    Body,
    /// The bytes of a tunnel.
    Tunnel,
}

impl ResponseHeads {
    /// Of the response to a request with that method.
    pub(crate) fn new(method: Method) -> Self {
        Self {
            method,
            informational: 0,
        }
    }

    /// The method of the request.
    pub(crate) fn method(&self) -> &Method {
        &self.method
    }

    /// A head has come.
    ///
    /// # Errors
    /// There are too many interim ones.
    pub(crate) fn came(&mut self, head: &Parts) -> Result<Follows, ReceiveError> {
        if head.status.is_informational() {
            self.informational += 1;
            if self.informational > INFORMATIONAL_RESPONSES {
                return Err(ReceiveError::TooLarge("interim responses"));
            }
            return Ok(Follows::Head);
        }
        if self.method == Method::CONNECT && head.status.is_success() {
            return Ok(Follows::Tunnel);
        }
        Ok(Follows::Body)
    }

    /// Classifies an error by the heads that came before it.
    pub(crate) fn judged(&self, error: ReceiveError) -> ReceiveError {
        //= https://www.rfc-editor.org/rfc/rfc9114#section-4.1.1
        //# H3_REQUEST_REJECTED ... indicate that the request was not processed ... the server MUST NOT use
        //# this error code for requests that were partially or fully processed.
        if self.informational > 0 && error.is_unprocessed() {
            return ReceiveError::Malformed("refused as unprocessed after an interim response");
        }
        error
    }
}

#[cfg(test)]
mod tests {
    use http::{Response, StatusCode};

    use super::*;
    use crate::error::Unprocessed;

    fn head(status: u16) -> Parts {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response.into_parts().0
    }

    #[test]
    fn only_an_accepted_connect_is_followed_by_a_tunnel() {
        for (method, status, expected) in [
            (Method::CONNECT, 200, Follows::Tunnel),
            (Method::CONNECT, 403, Follows::Body),
            (Method::GET, 200, Follows::Body),
            (Method::GET, 103, Follows::Head),
        ] {
            let mut heads = ResponseHeads::new(method);
            assert_eq!(heads.came(&head(status)), Ok(expected));
        }
    }

    #[test]
    fn a_flood_of_interim_heads_is_too_much() {
        let mut heads = ResponseHeads::new(Method::GET);
        for _ in 0..INFORMATIONAL_RESPONSES {
            assert_eq!(heads.came(&head(103)), Ok(Follows::Head));
        }
        assert!(matches!(
            heads.came(&head(103)),
            Err(ReceiveError::TooLarge(_))
        ));
    }

    #[test]
    fn a_peer_that_has_answered_in_part_cannot_claim_that_nothing_was_processed() {
        let refused = ReceiveError::Unprocessed(Unprocessed::Refused);
        let mut heads = ResponseHeads::new(Method::GET);
        assert_eq!(heads.judged(refused.clone()), refused);
        heads.came(&head(103)).unwrap();
        assert!(matches!(heads.judged(refused), ReceiveError::Malformed(_)));
    }
}
