//! Places for operators' calls: a few at once, and of those few each operator may have some. Who finds none
//! waits in turn.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::portions::Portions;
use crate::limits;

/// All places.
#[derive(Debug)]
pub(super) struct Desk {
    all: Arc<Semaphore>,
    operators: Portions<String>,
}

/// One place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _own: Option<OwnedSemaphorePermit>,
    _any: Option<OwnedSemaphorePermit>,
}

impl Default for Desk {
    fn default() -> Self {
        Self {
            all: Arc::new(Semaphore::new(limits::OPERATOR_CALLS_MAX)),
            operators: Portions::new(limits::CALLS_PER_OPERATOR_MAX),
        }
    }
}

impl Desk {
    /// Waits for a place. An operator whose own places are taken does not stand in the way of others.
    pub(super) async fn enter(&self, operator: &str) -> Place {
        let own = self.operators.of(&operator.to_owned());
        // Neither semaphore is ever closed.
        Place {
            _own: own.acquire_owned().await.ok(),
            _any: Arc::clone(&self.all).acquire_owned().await.ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_operator_at_its_share_waits_for_itself_and_not_others_for_it() {
        let desk = Desk::default();
        let mut held = Vec::new();
        for _ in 0..limits::CALLS_PER_OPERATOR_MAX {
            held.push(desk.enter("anna").await);
        }
        let third = desk.enter("anna");
        tokio::pin!(third);
        tokio::select! {
            biased;
            _ = &mut third => panic!("it has no place"),
            _ = desk.enter("ben") => {}
        }
        held.pop();
        third.await;
    }
}
