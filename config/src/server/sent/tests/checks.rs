//! What must hold after each event, and once nothing is in flight.

use super::*;

impl World {
    /// Holds at any time.
    pub(super) fn check(&self, when: &str) {
        let runs = self.state.newest().map(|table| &table.revision);
        assert_eq!(runs, self.naive.runs(), "{when}");
        if let Some(saved) = &self.disk {
            assert_eq!(self.fate(&saved.revision), Fate::Runs, "{when}: on disk");
        }
    }

    /// All work under way ends.
    pub(super) fn come_to_rest(&mut self) {
        loop {
            let mut any = self.send_next();
            while !self.wire.is_empty() {
                self.deliver();
                any = true;
            }
            if self.shown.is_some() {
                let before = self.shown.clone();
                self.applying = self.applying.take().or(before.clone());
                self.workers_answer();
                let same = |one: &Arc<Table>, other: &Arc<Table>| Arc::ptr_eq(one, other);
                any |= !before
                    .zip(self.shown.clone())
                    .is_some_and(|(one, other)| same(&one, &other));
            }
            if !any {
                // The table that was shown last is answered.
                self.applying = self.shown.clone();
                self.workers_answer();
                return;
            }
        }
    }

    /// Holds when no message is in flight.
    pub(super) fn check_at_rest(&mut self, when: &str) {
        self.check(when);
        let current = self.view.tables.of(&self.sidecar);
        let current = current.table();
        let fate = self.fate(&current.revision);
        let last = self.answers.last().map(|(revision, _)| revision);
        assert_eq!(last, Some(&current.revision), "{when}: the last answer");
        let Some(runs) = self.state.newest().cloned() else {
            assert_ne!(fate, Fate::Runs, "{when}");
            return;
        };
        match fate {
            Fate::Runs => assert_eq!(runs.revision, current.revision, "{when}"),
            Fate::Refused | Fate::Garbled => {
                assert_eq!(Some(&runs.revision), self.naive.accepted.as_ref(), "{when}");
            }
        }
        if fate == Fate::Runs && self.view.settling.is_none() {
            assert_eq!(*runs, *current, "{when}");
        }
        if fate != Fate::Garbled {
            self.check_endpoints(&runs, current, when);
        }
        self.now += limits::CACHE_RETRY;
        if let Some(table) = self.state.due(self.now) {
            self.state.written(Ok(()), self.now);
            self.disk = Some(table);
        }
        assert_eq!(
            self.disk.as_deref(),
            Some(&*runs),
            "{when}: what a restart would run"
        );
    }

    fn check_endpoints(&self, runs: &Table, current: &Table, when: &str) {
        let addresses = |table: &Table, service: usize| -> Option<BTreeSet<_>> {
            let endpoints = &table
                .services
                .get(&name(service))?
                .ports
                .get(&80)?
                .endpoints;
            Some(endpoints.iter().map(|one| one.address).collect())
        };
        for (service, text) in SERVICES.iter().enumerate() {
            let (Some(has), Some(are)) = (addresses(runs, service), addresses(current, service))
            else {
                continue;
            };
            let Some(withdrawn) = &self.view.settling else {
                assert_eq!(has, are, "{when}: {text}");
                continue;
            };
            assert!(has.is_superset(&are), "{when}: {has:?} of {are:?}");
            let ports = withdrawn.of(runs).into_iter();
            let own = ports.filter(|port| port.service == name(service).to_string());
            for gone in own.flat_map(|port| port.endpoints) {
                let gone = gone.address.parse().unwrap();
                assert!(!has.contains(&gone), "{when}: {gone} withdrew");
            }
        }
    }
}
