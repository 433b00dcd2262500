//! Tables that sidecars share: one for all sidecars that see the same part of one state of the mesh, encoded
//! once.
//!
//! A table lives as long as a sidecar has it, its encoding as long as it is being sent. In addition a bounded
//! map from needs to [`Scope`] is kept.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use bytes::Bytes;

use crate::compile::{Endpoints, Fitted, Plan, Scope, Sidecar};
use crate::limits;
use crate::proto;
use crate::table::{Port, Service, Table, Withheld};

/// The tables of one state of the mesh: one plan, one set of endpoints.
#[derive(Debug)]
pub(super) struct Tables {
    plan: Arc<Plan>,
    endpoints: Arc<Endpoints>,
    /// Depends on the plan alone, and so outlives changes of endpoints.
    scopes: Arc<Mutex<BTreeMap<Arc<Sidecar>, Arc<Scope>>>>,
    tables: Mutex<BTreeMap<Arc<Scope>, Weak<SharedTable>>>,
    /// Tables of the same plan with other endpoints: parts that have not changed since are reused.
    before: BTreeMap<Arc<Scope>, Weak<SharedTable>>,
}

/// A table, with everything that its sidecars need of it.
#[derive(Debug)]
pub(super) struct SharedTable {
    fitted: Fitted,
    encoded: Mutex<Weak<Encoded>>,
    /// The changes since an earlier table of its sidecars; kept for the last one that was asked for.
    changes: Mutex<Option<(Weak<Self>, Changed)>>,
}

/// How a table differs from one that a sidecar has.
#[derive(Clone, Debug)]
pub(super) enum Changed {
    /// No part changed.
    Nothing,
    /// Only these endpoints changed.
    Endpoints(Arc<Vec<proto::PortEndpoints>>),
    /// More than the endpoints changed.
    More,
}

#[derive(Debug)]
struct Encoded(Vec<u8>);

impl AsRef<[u8]> for Encoded {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Tables {
    /// For a state of the mesh that follows `before`, if there was one.
    pub(super) fn new(plan: Arc<Plan>, endpoints: Arc<Endpoints>, before: Option<&Self>) -> Self {
        let before = before.filter(|before| Arc::ptr_eq(&before.plan, &plan));
        let alive = |tables: &BTreeMap<Arc<Scope>, Weak<SharedTable>>| {
            let mut tables = tables.clone();
            tables.retain(|_, table| table.strong_count() > 0);
            tables
        };
        Self {
            scopes: before
                .map(|before| Arc::clone(&before.scopes))
                .unwrap_or_default(),
            tables: Mutex::default(),
            before: before
                .map(|before| {
                    // A table that no sidecar asked for in between is still that of the last state.
                    let mut last = alive(&before.before);
                    last.append(&mut alive(&lock(&before.tables)));
                    last
                })
                .unwrap_or_default(),
            plan,
            endpoints,
        }
    }

    /// The plan from which they are compiled.
    pub(super) fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// See [`Self::plan`].
    pub(super) fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// The table of a sidecar.
    pub(super) fn of(&self, sidecar: &Arc<Sidecar>) -> Arc<SharedTable> {
        let scope = self.scope(sidecar);
        let mut tables = lock(&self.tables);
        if let Some(table) = tables.get(&scope).and_then(Weak::upgrade) {
            return table;
        }
        // Made under the lock: when a state is new all sidecars ask at once, and most for the same table.
        let fitted = self.plan.fitted(&scope, &self.endpoints);
        let same = self.before.get(&scope).and_then(Weak::upgrade);
        let shared = match same.filter(|before| before.fitted == fitted) {
            Some(before) => before,
            None => Arc::new(SharedTable::new(fitted)),
        };
        if tables.len() >= limits::SCOPES_MAX {
            tables.retain(|_, table| table.strong_count() > 0);
        }
        tables.insert(scope, Arc::downgrade(&shared));
        shared
    }

    fn scope(&self, sidecar: &Arc<Sidecar>) -> Arc<Scope> {
        let mut scopes = lock(&self.scopes);
        if let Some(scope) = scopes.get(sidecar) {
            return Arc::clone(scope);
        }
        let scope = Arc::new(self.plan.scope(sidecar));
        // Sidecars with ever new needs must not fill the map one by one.
        if scopes.len() >= limits::SCOPES_MAX {
            scopes.clear();
        }
        scopes.insert(Arc::clone(sidecar), Arc::clone(&scope));
        scope
    }
}

impl SharedTable {
    fn new(fitted: Fitted) -> Self {
        Self {
            fitted,
            encoded: Mutex::default(),
            changes: Mutex::default(),
        }
    }

    /// The table itself.
    pub(super) fn table(&self) -> &Table {
        &self.fitted.table
    }

    /// The missing parts, which its sidecars do not support.
    pub(super) fn withheld(&self) -> &[Withheld] {
        &self.fitted.withheld
    }

    /// The table as JSON.
    pub(super) fn json(&self) -> Result<Bytes, serde_json::Error> {
        let mut encoded = lock(&self.encoded);
        let json = match encoded.upgrade() {
            Some(json) => json,
            None => {
                let json = Arc::new(Encoded(self.fitted.json()?));
                *encoded = Arc::downgrade(&json);
                json
            }
        };
        Ok(Bytes::from_owner(SharedJson(json)))
    }

    /// The missing parts that are new to a sidecar that has `before`.
    pub(super) fn since(&self, before: &Arc<Self>) -> Changed {
        if std::ptr::eq(self, Arc::as_ptr(before)) {
            return Changed::Nothing;
        }
        let mut changes = lock(&self.changes);
        let known = changes
            .as_ref()
            .filter(|(of, _)| std::ptr::eq(of.as_ptr(), Arc::as_ptr(before)));
        if let Some((_, changed)) = known {
            return changed.clone();
        }
        let (old, new) = (before.table(), self.table());
        let changed = if old == new {
            Changed::Nothing
        } else if same_but_endpoints(old, new) {
            Changed::Endpoints(Arc::new(changed_ports(old, new)))
        } else {
            Changed::More
        };
        *changes = Some((Arc::downgrade(before), changed.clone()));
        changed
    }
}

/// Keeps the encoding alive while bytes of it are.
struct SharedJson(Arc<Encoded>);

impl AsRef<[u8]> for SharedJson {
    fn as_ref(&self) -> &[u8] {
        &self.0.0
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // All values kept here can be made again; no code under the lock leaves them half-changed.
    weft_transport::locks::lock(mutex)
}

/// Whether only endpoints differ.
fn same_but_endpoints(a: &Table, b: &Table) -> bool {
    let same_service = |a: &Service, b: &Service| {
        a.authorization == b.authorization
            && a.ports.len() == b.ports.len()
            && a.ports
                .iter()
                .zip(&b.ports)
                .all(|((a_number, a), (b_number, b))| {
                    a_number == b_number
                        && a.protocol == b.protocol
                        && a.routes == b.routes
                        && a.traffic == b.traffic
                })
    };
    a.revision == b.revision
        && a.trust_domain == b.trust_domain
        && a.forbidden == b.forbidden
        && a.session_keys == b.session_keys
        && a.services.len() == b.services.len()
        && a.services
            .iter()
            .zip(&b.services)
            .all(|((a_name, a), (b_name, b))| a_name == b_name && same_service(a, b))
}

fn changed_ports(before: &Table, after: &Table) -> Vec<proto::PortEndpoints> {
    let mut changed = Vec::new();
    for (name, service) in &after.services {
        for (number, port) in &service.ports {
            let old = before
                .services
                .get(name)
                .and_then(|service| service.ports.get(number));
            let same = |old: &Port| old.endpoints == port.endpoints && old.absence == port.absence;
            if !old.is_some_and(same) {
                changed.push(proto::PortEndpoints {
                    service: name.to_string(),
                    port: (*number).into(),
                    endpoints: port.endpoints.iter().map(Into::into).collect(),
                    absence: proto::Absence::from(port.absence).into(),
                });
            }
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::resources::{Set, SourceFile, parse};
    use crate::table::{Details, Endpoint, Features, Revision, ServiceName};

    const MESH: &str = "\
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: { name: orders, namespace: shop }
spec: { ports: [ { port: 80, protocol: http } ] }
---
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: { name: secret, namespace: shop }
spec: { ports: [ { port: 80, protocol: http } ] }
---
apiVersion: weft.dev/v1alpha1
kind: AuthorizationPolicy
metadata: { name: secret, namespace: shop }
spec:
  targetRefs: [ { kind: Service, name: secret } ]
  action: Allow
  from: [ { principals: [\"spiffe://demo.test/ns/shop/sa/admin\"] } ]
";

    fn plan() -> Arc<Plan> {
        let parsed = parse(&[SourceFile {
            name: "mesh.yaml".into(),
            text: MESH.into(),
        }]);
        let mut set = Set::default();
        parsed.resources.into_iter().for_each(|one| set.insert(one));
        let revision = Revision {
            store: "s".into(),
            number: 1,
        };
        Arc::new(Plan::new(revision, "demo.test".parse().unwrap(), &set))
    }

    fn sidecar(account: &str, listens_for: &[&str]) -> Arc<Sidecar> {
        let name = |text: &&str| text.parse::<ServiceName>().unwrap();
        Arc::new(Sidecar {
            identity: format!("spiffe://demo.test/ns/shop/sa/{account}")
                .parse()
                .unwrap(),
            listens_for: listens_for.iter().map(name).collect(),
            serves: BTreeSet::new(),
            features: Features::all(),
        })
    }

    fn endpoints() -> Arc<Endpoints> {
        let endpoint = Endpoint {
            workload: "w1".into(),
            address: "10.0.0.1:6143".parse().unwrap(),
            identity: "spiffe://demo.test/ns/shop/sa/orders".parse().unwrap(),
            locality: None,
            details: Details::default(),
        };
        Arc::new(Endpoints::from([(
            ("orders.shop".parse().unwrap(), 80),
            vec![endpoint].into(),
        )]))
    }

    #[test]
    fn sidecars_that_see_the_same_share_one_table_and_its_encoding() {
        let tables = Tables::new(plan(), Arc::default(), None);
        let first = tables.of(&sidecar("frontend", &["orders.shop"]));
        let other = tables.of(&sidecar("batch", &[]));
        assert!(Arc::ptr_eq(&first, &other));
        assert!(!Arc::ptr_eq(&first, &tables.of(&sidecar("admin", &[]))));
        let asked = tables.of(&sidecar("batch", &["secret.shop"]));
        assert!(!Arc::ptr_eq(&first, &asked), "it is told of a refusal");
        let (one, two) = (first.json().unwrap(), first.json().unwrap());
        assert_eq!(one.as_ptr(), two.as_ptr());
        drop((one, two));
        assert!(lock(&first.encoded).upgrade().is_none());
    }

    #[test]
    fn other_endpoints_are_a_change_and_a_table_without_them_stays_the_same_one() {
        let plan = plan();
        let before = Tables::new(Arc::clone(&plan), Arc::default(), None);
        let old = before.of(&sidecar("frontend", &[]));
        let after = Tables::new(Arc::clone(&plan), endpoints(), Some(&before));
        let new = after.of(&sidecar("frontend", &[]));
        assert!(matches!(new.since(&old), Changed::Endpoints(ports) if ports.len() == 1));
        assert!(matches!(new.since(&new), Changed::Nothing));
        let later = Tables::new(plan, endpoints(), Some(&after));
        assert!(Arc::ptr_eq(&new, &later.of(&sidecar("frontend", &[]))));
    }

    #[test]
    fn needs_that_no_sidecar_has_any_more_are_forgotten() {
        let tables = Tables::new(plan(), Arc::default(), None);
        for n in 0..limits::SCOPES_MAX + 10 {
            tables.of(&sidecar(&format!("w{n}"), &[]));
        }
        assert!(lock(&tables.scopes).len() <= limits::SCOPES_MAX);
        assert!(lock(&tables.tables).len() <= limits::SCOPES_MAX);
    }
}
