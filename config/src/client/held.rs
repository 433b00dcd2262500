//! The tables of a subscription: which one the sidecar should run, and what to answer the config service. A
//! state machine without time or IO; `merge.rs` merges tables.
//!
//! ```text
//!            offer                  settle(Ok)
//!   (none) --------> pending -------------------> good
//!                       |   settle(Err)
//!                       +---------------> dropped: good goes on
//! ```
//! A table that cannot be decoded leaves both tables as they are, and is refused at once. Endpoints go to
//! both, those of a new table and changes of them: the refusal of one revision does not concern the endpoints
//! of others.

use std::sync::Arc;

use weft_transport::identity::TrustDomain;

use super::merge::{self, Changes};
use crate::limits;
use crate::proto;
use crate::table::{Endpoint, Revision, ServiceName, Table};

/// The sidecar's answer to a revision: `Err` says why it does not run it.
pub(super) type Outcome = Result<(), String>;

#[derive(Debug, Default)]
pub(super) struct HeldTables {
    /// The table that the sidecar runs, with all changes since.
    good: Option<Arc<Table>>,
    /// The table that the sidecar should run and has not answered yet, with all changes since.
    pending: Option<Arc<Table>>,
    /// The last revision that the sidecar answered to run.
    in_force: Option<Revision>,
    /// The revision whose answer the config service awaits on the present stream.
    asked: Option<Revision>,
    /// The answer to send to it.
    answer: Option<(Revision, Outcome)>,
}

/// A table that came from the config service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Offered {
    pub(super) revision: Revision,
    /// It is of another store than the one before: the store was restored, or replaced.
    pub(super) instead_of: Option<Revision>,
}

/// A table that is refused before the sidecar sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// Absent if the service does not name it: then there is no revision to answer.
    pub(super) revision: Option<Revision>,
    pub(super) reason: String,
}

impl HeldTables {
    /// With the table of an earlier process.
    pub(super) fn of(saved: Option<Arc<Table>>) -> Self {
        Self {
            good: saved,
            ..Self::default()
        }
    }

    /// The last good table, which is the one on disk.
    pub(super) fn good(&self) -> Option<&Arc<Table>> {
        self.good.as_ref()
    }

    /// The table that the sidecar should run.
    pub(super) fn newest(&self) -> Option<&Arc<Table>> {
        self.pending.as_ref().or(self.good.as_ref())
    }

    /// A stream begins: the config service does not await an answer yet.
    pub(super) fn begin_stream(&mut self) {
        (self.asked, self.answer) = (None, None);
    }

    /// Takes a complete table.
    pub(super) fn offer(
        &mut self,
        message: &proto::Table,
        own: &TrustDomain,
    ) -> Result<Offered, Refused> {
        let table = self.fit(message, own).inspect_err(|refused| {
            if let Some(revision) = &refused.revision {
                self.asked = None;
                self.answer = Some((revision.clone(), Err(refused.reason.clone())));
            }
        })?;
        let table = match self.good.as_deref().filter(|_| message.settling) {
            Some(known) => merge::keep_endpoints(&table, known),
            None => table,
        };
        let revision = table.revision.clone();
        let held = self.good.as_ref().map(|good| good.revision.clone());
        // The sidecar may refuse the revision, and goes on with the last good one, which must not lead to
        // endpoints that are gone.
        if let Some(good) = &mut self.good {
            *good = Arc::new(merge::with_endpoints_of(good, &table));
        }
        let table = Some(Arc::new(table));
        if held.as_ref() == Some(&revision) {
            (self.good, self.pending) = (table, None);
        } else {
            self.pending = table;
        }
        if self.in_force.as_ref() == Some(&revision) {
            // The same revision again, with other endpoints or keys of sessions.
            self.asked = None;
            self.answer = Some((revision.clone(), Ok(())));
        } else {
            (self.asked, self.answer) = (Some(revision.clone()), None);
        }
        let instead_of = held.filter(|held| held.store != revision.store);
        Ok(Offered {
            revision,
            instead_of,
        })
    }

    fn fit(&self, message: &proto::Table, own: &TrustDomain) -> Result<Table, Refused> {
        let table = serde_json::from_slice::<Table>(&message.json).map_err(|error| {
            let named = message.revision.clone().map(Into::into);
            Refused {
                revision: named.or_else(|| revision_in(&message.json)),
                reason: short(format!("the table is not understood: {error}")),
            }
        })?;
        match merge::check(own, &table, self.good.as_deref()) {
            Ok(()) => Ok(table),
            Err(unfit) => Err(Refused {
                revision: Some(table.revision),
                reason: unfit.to_string(),
            }),
        }
    }

    /// Takes the endpoints of some ports; each list is complete.
    pub(super) fn change(&mut self, changes: &Changes, settling: bool) {
        self.update(|table| {
            let next = merge::apply(table, changes);
            if settling {
                merge::keep_endpoints(&next, table)
            } else {
                next
            }
        });
    }

    /// Removes endpoints that withdrew themselves.
    pub(super) fn withdraw(&mut self, withdrawn: &[((ServiceName, u16), Endpoint)]) {
        self.update(|table| merge::without(table, withdrawn));
    }

    fn update(&mut self, update: impl Fn(&Table) -> Table) {
        for held in [&mut self.good, &mut self.pending].into_iter().flatten() {
            *held = Arc::new(update(held));
        }
    }

    /// The sidecar runs a revision, or says why it does not.
    pub(super) fn settle(&mut self, revision: &Revision, outcome: &Outcome) {
        let is_it = |table: &Arc<Table>| table.revision == *revision;
        let pending = self.pending.take_if(|pending| is_it(pending));
        if outcome.is_ok() {
            if pending.is_some() {
                self.good = pending;
            }
            if self.good.as_ref().is_some_and(is_it) {
                self.in_force = Some(revision.clone());
            }
        }
        if self.asked.take_if(|asked| asked == revision).is_some() {
            let outcome = outcome.clone().map_err(short);
            self.answer = Some((revision.clone(), outcome));
        }
    }

    /// The answer to send to the config service, once.
    pub(super) fn take_answer(&mut self) -> Option<(Revision, Outcome)> {
        self.answer.take()
    }
}

/// A reason as long as the config service keeps it. What is wrong with a table may repeat a piece of it of
/// any length, and a message that is too long ends the stream.
fn short(reason: String) -> String {
    match reason.char_indices().nth(limits::REFUSAL_LENGTH_MAX) {
        Some((end, _)) => reason[..end].to_owned(),
        None => reason,
    }
}

/// The revision of a table whose other fields cannot be decoded.
fn revision_in(json: &[u8]) -> Option<Revision> {
    let value: serde_json::Value = serde_json::from_slice(json).ok()?;
    serde_json::from_value(value.get("revision")?.clone()).ok()
}

#[cfg(test)]
mod tests {
    use super::super::merge::tests::{addresses, endpoint, table};
    use super::*;

    fn own() -> TrustDomain {
        "demo.test".parse().unwrap()
    }

    fn message(table: &Table, settling: bool) -> proto::Table {
        proto::Table {
            json: serde_json::to_vec(table).unwrap().into(),
            settling,
            revision: Some((&table.revision).into()),
            withheld: Vec::new(),
        }
    }

    fn revision(number: u64) -> Revision {
        table(number, &[]).revision
    }

    fn garbled(number: u64) -> proto::Table {
        proto::Table {
            json: br#"{"from":"the future"}"#.as_slice().into(),
            settling: false,
            revision: Some((&revision(number)).into()),
            withheld: Vec::new(),
        }
    }

    fn orders(addresses: &[&str]) -> Changes {
        let endpoints: Vec<_> = addresses.iter().map(|one| endpoint(one)).collect();
        Changes::from([(("orders.shop".parse().unwrap(), 80), endpoints.into())])
    }

    /// A sidecar that runs revision 1.
    fn running() -> HeldTables {
        let mut held = HeldTables::default();
        held.offer(&message(&table(1, &["10.0.0.1:1"]), false), &own())
            .unwrap();
        held.settle(&revision(1), &Ok(()));
        assert_eq!(held.take_answer(), Some((revision(1), Ok(()))));
        held
    }

    fn newest(held: &HeldTables) -> (u64, Vec<String>) {
        let table = held.newest().unwrap();
        (table.revision.number, addresses(table))
    }

    #[test]
    fn a_change_before_the_answer_to_a_revision_after_a_refused_one_leads_to_no_older_policy() {
        let mut held = running();
        held.offer(&message(&table(2, &["10.0.0.1:1"]), false), &own())
            .unwrap();
        held.settle(&revision(2), &Err("no".into()));
        assert_eq!(held.take_answer(), Some((revision(2), Err("no".into()))));
        assert_eq!(newest(&held).0, 1);
        held.offer(&message(&table(3, &["10.0.0.1:1"]), false), &own())
            .unwrap();
        held.change(&orders(&["10.0.0.2:1"]), false);
        assert_eq!(newest(&held), (3, vec!["10.0.0.2:1".to_owned()]));
        held.settle(&revision(3), &Ok(()));
        assert_eq!(held.take_answer(), Some((revision(3), Ok(()))));
        assert_eq!(held.good().unwrap().revision.number, 3);
    }

    #[test]
    fn the_last_good_table_has_the_endpoints_that_came_with_a_revision_that_is_refused() {
        let mut held = running();
        held.offer(&message(&table(2, &["10.0.0.2:1"]), false), &own())
            .unwrap();
        held.settle(&revision(2), &Err("no".into()));
        assert_eq!(newest(&held), (1, vec!["10.0.0.2:1".to_owned()]));
    }

    #[test]
    fn a_table_that_is_not_understood_is_answered_at_once_by_the_revision_of_its_message() {
        let mut held = running();
        let refused = held.offer(&garbled(2), &own()).unwrap_err();
        assert_eq!(refused.revision, Some(revision(2)));
        let (number, outcome) = held.take_answer().unwrap();
        assert_eq!(number, revision(2));
        assert!(outcome.unwrap_err().contains("not understood"));
        assert_eq!(held.take_answer(), None, "once");
        held.change(&orders(&["10.0.0.2:1"]), false);
        assert_eq!(newest(&held), (1, vec!["10.0.0.2:1".to_owned()]));
        // The workers' answer for revision 1 with other endpoints sends no new answer.
        held.settle(&revision(1), &Ok(()));
        assert_eq!(held.take_answer(), None);
    }

    #[test]
    fn a_reason_that_repeats_a_long_piece_of_a_table_is_cut_short() {
        let mut held = running();
        let mut unknown = garbled(2);
        let long = "\u{e9}".repeat(1 << 20);
        unknown.json = format!("{{\"{long}\":1}}").into();
        let refused = held.offer(&unknown, &own()).unwrap_err();
        assert_eq!(refused.reason.chars().count(), limits::REFUSAL_LENGTH_MAX);
        assert_eq!(held.take_answer(), Some((revision(2), Err(refused.reason))));
        let next = message(&table(3, &["10.0.0.1:1"]), false);
        held.offer(&next, &own()).unwrap();
        held.settle(&revision(3), &Err(long));
        let (_, outcome) = held.take_answer().unwrap();
        assert_eq!(
            outcome.unwrap_err().chars().count(),
            limits::REFUSAL_LENGTH_MAX
        );
    }

    #[test]
    fn an_older_service_that_names_no_revision_is_answered_by_that_in_the_table() {
        let mut held = running();
        let mut message = garbled(2);
        message.revision = None;
        message.json = br#"{"revision":{"store":"s","number":2},"new":1}"#.as_slice().into();
        assert!(held.offer(&message, &own()).is_err());
        assert_eq!(held.take_answer().unwrap().0, revision(2));
    }

    /// The bytes of a message from a service of the time before features: it has only the table.
    fn of_an_older_service(json: &str) -> proto::Table {
        let field = |content: &[u8]| {
            let mut field = vec![0x0a];
            prost::encoding::encode_varint(content.len() as u64, &mut field);
            field.extend_from_slice(content);
            field
        };
        let bytes = field(&field(json.as_bytes()));
        let message = <proto::ServiceMessage as prost::Message>::decode(bytes.as_slice()).unwrap();
        match message.kind {
            Some(proto::service_message::Kind::Table(table)) => table,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_table_of_an_older_service_is_run_and_acknowledged() {
        let saved = include_str!("../../tests/service/older/table.json");
        let json = saved.split_once('\n').unwrap().1;
        let mut held = HeldTables::default();
        let offered = held.offer(&of_an_older_service(json), &own()).unwrap();
        held.settle(&offered.revision, &Ok(()));
        assert_eq!(held.take_answer(), Some((offered.revision, Ok(()))));
        let table = held.good().unwrap();
        assert_eq!(table.forbidden.len(), 1);
        assert_eq!(addresses_of(table, "orders.shop"), ["127.9.1.4:6143"]);
    }

    fn addresses_of(table: &Table, service: &str) -> Vec<String> {
        let ports = table.services[&service.parse().unwrap()].ports.values();
        let endpoints = ports.flat_map(|port| &port.endpoints);
        endpoints.map(|one| one.address.to_string()).collect()
    }

    #[test]
    fn a_table_that_is_not_understood_leaves_one_that_is_being_put_into_force() {
        let mut held = running();
        held.offer(&message(&table(2, &[]), false), &own()).unwrap();
        held.offer(&garbled(3), &own()).unwrap_err();
        assert_eq!(newest(&held).0, 2);
        held.settle(&revision(2), &Ok(()));
        assert_eq!(held.good().unwrap().revision.number, 2);
        let (number, outcome) = held.take_answer().unwrap();
        assert!(number == revision(3) && outcome.is_err());
    }

    #[test]
    fn each_stream_is_answered_for_what_it_brought_and_for_nothing_else() {
        let mut held = running();
        held.offer(&message(&table(2, &[]), false), &own()).unwrap();
        held.begin_stream();
        held.settle(&revision(2), &Ok(()));
        assert_eq!(held.take_answer(), None, "nothing was asked on it");
        held.offer(&message(&table(2, &["10.0.0.3:1"]), false), &own())
            .unwrap();
        assert_eq!(held.take_answer(), Some((revision(2), Ok(()))));
        assert_eq!(newest(&held), (2, vec!["10.0.0.3:1".to_owned()]));
    }

    #[test]
    fn a_saved_table_that_is_offered_again_is_answered_when_the_sidecar_runs_it() {
        let mut held = HeldTables::of(Some(Arc::new(table(4, &["10.0.0.1:1"]))));
        let offered = held.offer(&message(&table(4, &[]), true), &own()).unwrap();
        assert_eq!(offered.instead_of, None);
        assert_eq!(newest(&held), (4, vec!["10.0.0.1:1".to_owned()]));
        assert_eq!(held.take_answer(), None);
        held.settle(&revision(4), &Ok(()));
        assert_eq!(held.take_answer(), Some((revision(4), Ok(()))));
    }

    #[test]
    fn an_endpoint_that_was_withdrawn_does_not_come_back_while_the_service_settles() {
        let mut held = running();
        held.withdraw(&[(("orders.shop".parse().unwrap(), 80), endpoint("10.0.0.1:1"))]);
        assert_eq!(newest(&held).1, Vec::<String>::new());
        held.offer(&message(&table(1, &["10.0.0.2:1"]), true), &own())
            .unwrap();
        assert_eq!(newest(&held).1, ["10.0.0.2:1"]);
    }
}
