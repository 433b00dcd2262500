//! Puts tables into force: checks that a table fits, waits until every worker has it, and reports to the
//! config service.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;
use weft_config::table::{ServiceName, Table};
use weft_transport::identity::TrustDomain;

use super::ControlPlane;
use crate::directory::Directory;

/// The snapshot by which each worker decides.
pub(crate) type Snapshots = Vec<watch::Receiver<Arc<Directory>>>;

/// Refuses a table of another mesh, in which the same names mean other services.
///
/// # Errors
/// The reason, for the config service and its operators.
pub(crate) fn check(table: &Table, own: &TrustDomain) -> Result<(), String> {
    if table.trust_domain == *own {
        return Ok(());
    }
    Err(format!(
        "the table is of trust domain {}, this sidecar of {own}",
        table.trust_domain
    ))
}

/// Whether every worker has a table.
pub(crate) fn is_everywhere(snapshots: &Snapshots) -> bool {
    snapshots
        .iter()
        .all(|snapshot| snapshot.borrow().table.is_some())
}

/// The table by which every worker decides; while the workers change to the next, the outgoing one.
pub(crate) fn in_force(snapshots: &Snapshots, newest: Option<Arc<Table>>) -> Option<Arc<Table>> {
    let newest = newest?;
    let mut held = snapshots
        .iter()
        .map(|snapshot| snapshot.borrow().table.clone());
    let older = held.find(|held| held.as_ref().is_none_or(|held| !Arc::ptr_eq(held, &newest)));
    older.unwrap_or(Some(newest))
}

/// How many tables came, for the metrics.
#[derive(Debug, Default)]
pub(crate) struct Updates {
    /// In force on every worker.
    pub(crate) applied: AtomicU64,
    /// Of another mesh.
    pub(crate) refused: AtomicU64,
}

/// Waits until every worker has a table; for ever if one of them has ended.
pub(super) async fn everywhere(mut snapshots: Snapshots) {
    all(&mut snapshots, |_| true).await;
}

/// Waits until every worker can decide about calls to a service that this sidecar serves.
pub(crate) async fn named(snapshots: &mut Snapshots, service: &ServiceName) {
    let has_rules = |table: &Table| {
        let found = table.services.get(service);
        found.is_some_and(|service| service.authorization.is_some())
    };
    all(snapshots, has_rules).await;
}

/// Waits until the tables of all workers are such; for ever if one of them has ended.
async fn all(snapshots: &mut Snapshots, is_such: impl Fn(&Table) -> bool) {
    for snapshot in snapshots {
        let has_one =
            snapshot.wait_for(|directory| directory.table.as_deref().is_some_and(&is_such));
        if has_one.await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Tells the config service of each table when the last worker decides by it, or why none does.
pub(super) async fn acknowledge(
    control: Arc<dyn ControlPlane>,
    mut snapshots: Snapshots,
    own: TrustDomain,
    updates: Arc<Updates>,
) {
    let mut tables = control.tables();
    loop {
        let table = tables.borrow_and_update().clone();
        if let Some(table) = table {
            let outcome = check(&table, &own);
            if outcome.is_ok() {
                tokio::select! {
                    biased;
                    taken = taken(&mut snapshots, &table) => {
                        if !taken {
                            return;
                        }
                    }
                    // Overtaken: workers may skip this table.
                    _ = tables.changed() => continue,
                }
            }
            let count = match &outcome {
                Ok(()) => &updates.applied,
                Err(_) => &updates.refused,
            };
            count.fetch_add(1, Ordering::Relaxed);
            control.acknowledge(&table.revision, outcome);
        }
        if tables.changed().await.is_err() {
            return;
        }
    }
}

/// Waits until every worker has this very table; false if a worker is gone.
async fn taken(snapshots: &mut Snapshots, table: &Arc<Table>) -> bool {
    for snapshot in snapshots {
        let has_it = |directory: &Arc<Directory>| {
            directory
                .table
                .as_ref()
                .is_some_and(|held| Arc::ptr_eq(held, table))
        };
        if snapshot.wait_for(has_it).await.is_err() {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::Mutex;

    use weft_config::client::{Health, Registration};
    use weft_config::table::{Authorization, Default as Decided, Revision};

    use weft_transport::locks::lock;

    use super::*;
    use crate::directory::tests::{after, table};
    use crate::outside::names::Names;
    use crate::worker::follow;

    #[derive(Default)]
    struct Control {
        tables: watch::Sender<Option<Arc<Table>>>,
        acknowledged: Mutex<Vec<(u64, Result<(), String>)>>,
    }

    impl ControlPlane for Control {
        fn tables(&self) -> watch::Receiver<Option<Arc<Table>>> {
            self.tables.subscribe()
        }
        fn set_health(&self, _: &ServiceName, _: u16, _: Health) {}
        fn is_healthy(&self, _: &ServiceName, _: u16) -> bool {
            false
        }
        fn acknowledge(&self, revision: &Revision, outcome: Result<(), String>) {
            lock(&self.acknowledged).push((revision.number, outcome));
        }
        fn refused_unseen(&self) -> u64 {
            0
        }
        fn is_connected(&self) -> bool {
            true
        }
        fn status(&self) -> serde_json::Value {
            serde_json::Value::Null
        }
        fn registration(&self) -> Pin<Box<dyn Future<Output = Registration> + Send + '_>> {
            Box::pin(std::future::ready(Registration::default()))
        }
        fn hand_over(&self) {}
    }

    fn own() -> TrustDomain {
        "demo.test".parse().unwrap()
    }

    /// The table of the tests as that revision of that trust domain.
    fn revision(number: u64, trust_domain: &str) -> Option<Arc<Table>> {
        let mut table = table();
        table.revision.number = number;
        table.trust_domain = trust_domain.parse().unwrap();
        Some(Arc::new(table))
    }

    #[tokio::test]
    async fn a_worker_has_the_table_before_it_follows_and_keeps_it_over_one_of_another_mesh() {
        let (sender, tables) = watch::channel(revision(1, "demo.test"));
        let (directory, keep) = follow(
            tables,
            own(),
            None,
            Arc::default(),
            Names::default().answers(),
        );
        assert!(directory.borrow().table.is_some());
        sender.send_replace(revision(2, "other.test"));
        drop(sender);
        keep.await;
        let number = directory.borrow().table.as_ref().unwrap().revision.number;
        assert_eq!(number, 1);
    }

    #[test]
    fn the_table_in_force_is_the_one_that_every_worker_has() {
        let tables = [1, 2].map(|number| revision(number, "demo.test"));
        let worker = |table: &Option<Arc<Table>>| {
            let mut directory = Directory::default();
            directory.table.clone_from(table);
            watch::channel(Arc::new(directory)).1
        };
        let number = |workers: [&Option<Arc<Table>>; 2]| {
            let workers = workers.into_iter().map(worker).collect();
            in_force(&workers, tables[1].clone()).map(|table| table.revision.number)
        };
        let [old, new] = &tables;
        assert_eq!(number([new, new]), Some(2));
        assert_eq!(number([new, old]), Some(1));
        assert_eq!(number([&None, new]), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_served_service_is_named_once_the_last_worker_has_rules_for_it() {
        let mut table = table();
        let (name, orders) = table.services.iter_mut().next().unwrap();
        let name = name.clone();
        let open = Authorization::new(Decided::Allow, Vec::new());
        Arc::make_mut(orders).authorization = Some(open);
        let table = Arc::new(table);
        let none = Directory::default();
        let (_quick, first) = watch::channel(Arc::new(after(Arc::clone(&table), &none)));
        let (late, second) = watch::channel(Arc::new(Directory::default()));
        let mut snapshots = vec![first, second];
        let mut waiting = std::pin::pin!(named(&mut snapshots, &name));
        let wait = std::time::Duration::from_secs(1);
        assert!(tokio::time::timeout(wait, &mut waiting).await.is_err());
        // A table in which the service is only one that may be called.
        let without = revision(1, "demo.test").unwrap();
        late.send_replace(Arc::new(after(without, &none)));
        assert!(tokio::time::timeout(wait, &mut waiting).await.is_err());
        late.send_replace(Arc::new(after(table, &none)));
        assert!(tokio::time::timeout(wait, &mut waiting).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_table_is_acknowledged_once_the_last_worker_has_it() {
        let control = Arc::new(Control::default());
        control.tables.send_replace(revision(7, "demo.test"));
        let (quick, _) = follow(
            control.tables(),
            own(),
            None,
            Arc::default(),
            Names::default().answers(),
        );
        let (late, slow) = watch::channel(Arc::new(Directory::default()));
        let snapshots = vec![quick, slow];
        assert!(!is_everywhere(&snapshots));
        let updates = Arc::new(Updates::default());
        let dynamic = Arc::clone(&control) as Arc<dyn ControlPlane>;
        let mut work = std::pin::pin!(acknowledge(dynamic, snapshots, own(), Arc::clone(&updates)));
        let wait = std::time::Duration::from_secs(1);
        assert!(tokio::time::timeout(wait, &mut work).await.is_err());
        assert_eq!(*lock(&control.acknowledged), []);

        let table = control.tables.borrow().clone().unwrap();
        late.send_replace(Arc::new(after(table, &Directory::default())));
        assert!(tokio::time::timeout(wait, &mut work).await.is_err());
        assert_eq!(*lock(&control.acknowledged), [(7, Ok(()))]);

        control.tables.send_replace(revision(8, "other.test"));
        assert!(tokio::time::timeout(wait, &mut work).await.is_err());
        assert!(matches!(
            &lock(&control.acknowledged)[1..],
            [(8, Err(reason))] if reason.contains("other.test")
        ));
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        assert_eq!((count(&updates.applied), count(&updates.refused)), (1, 1));
    }
}
