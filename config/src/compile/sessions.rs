//! The secrets of the mesh from which the keys of sessions are made, and the keys that a table gets: those of
//! its own rules, so that a sidecar learns of no others. Pure; `store.rs` makes the first secret and keeps
//! them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::hmac;
use serde::{Deserialize, Serialize};
use weft_transport::hex;

use crate::limits;
use crate::table::{Service, ServiceName, SessionKey};

/// Bytes of a secret.
pub(crate) const SECRET_BYTES: usize = 32;

/// A secret of the mesh. It stays in the config service, its store and its backups.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SessionSecret([u8; SECRET_BYTES]);

/// A text that is no secret.
#[derive(Debug, thiserror::Error)]
#[error("a secret has {} hexadecimal digits", 2 * SECRET_BYTES)]
pub struct InvalidSecret;

impl SessionSecret {
    /// A secret of these bytes, which must be random.
    pub fn new(random: [u8; SECRET_BYTES]) -> Self {
        Self(random)
    }

    /// The key of a rule's sessions: a table with it tells nothing of the keys of other rules.
    fn key_of(&self, scope: &str) -> SessionKey {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        let text = format!("weft session key v1\n{scope}");
        let tag = hmac::sign(&secret, text.as_bytes());
        let mut key = [0; SECRET_BYTES];
        // The output of this function has as many bytes as the key.
        key.iter_mut()
            .zip(tag.as_ref())
            .for_each(|(to, from)| *to = *from);
        SessionKey::new(key)
    }
}

impl fmt::Debug for SessionSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionSecret(redacted)")
    }
}

impl TryFrom<String> for SessionSecret {
    type Error = InvalidSecret;

    fn try_from(text: String) -> Result<Self, InvalidSecret> {
        hex::decode(&text).map(Self).ok_or(InvalidSecret)
    }
}

impl From<SessionSecret> for String {
    fn from(secret: SessionSecret) -> Self {
        hex::encode(&secret.0)
    }
}

/// The secrets in force: the present one, the next one, and the one before. The first makes the keys that
/// seal; those of the others only open.
///
/// So no session ends when the secret is rotated. Sidecars learn of that one after the other, and each opens
/// what any other seals: the next secret was in the tables before it seals, and the one before stays there
/// until the rotation after.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionSecrets(Vec<SessionSecret>);

impl SessionSecrets {
    /// These, the one that seals first.
    pub fn new(secrets: Vec<SessionSecret>) -> Self {
        Self(secrets)
    }

    /// The same with a present and a next one: a store of an earlier build has one, and a new store has none.
    #[must_use]
    pub(crate) fn completed(mut self, fresh: [SessionSecret; 2]) -> Self {
        let missing = fresh.len().saturating_sub(self.0.len());
        self.0.extend(fresh.into_iter().take(missing));
        self
    }

    /// The secrets after a rotation: the next one seals, and `fresh` is the next.
    #[must_use]
    pub(crate) fn rotated(&self, fresh: SessionSecret) -> Self {
        match self.0.as_slice() {
            [present, next, ..] => Self(vec![next.clone(), fresh, present.clone()]),
            // Of secrets that are not completed, which no store has.
            few => Self(few.iter().cloned().chain([fresh]).collect()),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys of all rules of these services, by what tells them apart.
    pub(super) fn keys_of(
        &self,
        services: &BTreeMap<ServiceName, Arc<Service>>,
    ) -> BTreeMap<String, Vec<SessionKey>> {
        let ports = services.values().flat_map(|service| service.ports.values());
        let rules = ports.flat_map(|port| &port.routes);
        let mut keys = BTreeMap::new();
        if self.is_empty() {
            return keys;
        }
        for session in rules.filter_map(|rule| rule.session.as_ref()) {
            keys.entry(session.scope.clone()).or_insert_with(|| {
                let secrets = self.0.iter().take(limits::SESSION_KEYS_MAX);
                secrets.map(|one| one.key_of(&session.scope)).collect()
            });
        }
        keys
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::compile::tests::set;
    use crate::compile::{Endpoints, Plan, Sidecar};
    use crate::table::{Feature, Features, Revision, Table};

    const MESH: &str = r#"
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: { name: front, namespace: shop }
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
  from: [ { principals: ["spiffe://demo.test/ns/shop/sa/admin"] } ]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: r, namespace: shop }
spec:
  parentRefs: [ { group: "", kind: Service, name: front } ]
  rules:
    - matches: [ { path: { value: /a } }, { path: { value: /b } } ]
      sessionPersistence: { absoluteTimeout: 1h }
      backendRefs: [ { name: front, port: 80 } ]
    - name: named
      sessionPersistence: { type: Header, sessionName: x-s }
      backendRefs: [ { name: front, port: 80 } ]
    - matches: [ { path: { value: /plain } } ]
      backendRefs: [ { name: front, port: 80 } ]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: hidden, namespace: shop }
spec:
  parentRefs: [ { group: "", kind: Service, name: secret } ]
  rules: [ { sessionPersistence: {}, backendRefs: [ { name: secret, port: 80 } ] } ]
"#;

    fn secret(number: u8) -> SessionSecret {
        SessionSecret::new([number; SECRET_BYTES])
    }

    fn table(secrets: &[u8], features: Features) -> Table {
        let revision = Revision {
            store: "s".into(),
            number: 1,
        };
        let secrets = secrets.iter().copied().map(secret).collect();
        let plan = Plan::new(revision, "demo.test".parse().unwrap(), &set(MESH));
        let plan = plan.with_session_secrets(SessionSecrets::new(secrets));
        let sidecar = Sidecar {
            identity: "spiffe://demo.test/ns/shop/sa/caller".parse().unwrap(),
            listens_for: [].into(),
            serves: [].into(),
            features,
        };
        plan.table(&sidecar, &Endpoints::new())
    }

    #[test]
    fn a_table_has_the_keys_of_its_own_rules_and_each_rule_has_another_key() {
        let table = table(&[1], Features::all());
        let scopes: Vec<&str> = table.session_keys.keys().map(String::as_str).collect();
        assert_eq!(scopes, ["HTTPRoute/shop/r#0", "HTTPRoute/shop/r/named"]);
        let keys: BTreeSet<&[u8; 32]> = table
            .session_keys
            .values()
            .map(|keys| keys[0].bytes())
            .collect();
        assert_eq!(keys.len(), 2);
    }

    #[test]
    fn keys_depend_on_the_secret_alone_and_while_it_changes_there_are_two() {
        let (one, again) = (table(&[1], Features::all()), table(&[1], Features::all()));
        assert_eq!(one, again);
        let both = table(&[2, 1], Features::all());
        for (scope, keys) in &one.session_keys {
            assert_eq!(both.session_keys[scope][1..], keys[..]);
            assert_ne!(both.session_keys[scope][0], keys[0]);
        }
        assert!(table(&[], Features::all()).session_keys.is_empty());
    }

    #[test]
    fn around_a_rotation_any_sidecar_opens_what_any_other_seals() {
        let before = SessionSecrets::default().completed([secret(1), secret(2)]);
        let first = before.rotated(secret(3));
        assert_eq!(first, SessionSecrets(vec![secret(2), secret(3), secret(1)]));
        let second = first.rotated(secret(4));
        for (one, other) in [(&before, &first), (&first, &second)] {
            for (seals, opens) in [(one, other), (other, one)] {
                assert!(opens.0.contains(&seals.0[0]), "{one:?} {other:?}");
            }
        }
        // The second rotation gives up what sealed before the first.
        assert!(!second.0.contains(&secret(1)));
        assert!(second.0.len() <= limits::SESSION_KEYS_MAX);
        // One of an earlier build goes on, and what is complete stays.
        let old = SessionSecrets::new(vec![secret(1)]).completed([secret(8), secret(9)]);
        assert_eq!(old, SessionSecrets(vec![secret(1), secret(8)]));
        assert_eq!(second.clone().completed([secret(8), secret(9)]), second);
    }

    #[test]
    fn keys_are_written_for_sidecars_and_their_disks_and_nowhere_else() {
        let table = table(&[1], Features::all());
        let key = String::from(table.session_keys["HTTPRoute/shop/r#0"][0].clone());
        let sent = String::from_utf8(table.write_for(Features::all()).unwrap()).unwrap();
        assert!(sent.contains(&key));
        assert_eq!(serde_json::from_str::<Table>(&sent).unwrap(), table);
        let mut kept = Vec::new();
        table.write_whole(&mut kept).unwrap();
        assert_eq!(serde_json::from_slice::<Table>(&kept).unwrap(), table);
        for shown in [serde_json::to_string(&table).unwrap(), format!("{table:?}")] {
            assert!(!shown.contains(&key[..16]), "{shown}");
        }
        assert_eq!(format!("{:?}", secret(1)), "SessionSecret(redacted)");
    }

    #[test]
    fn a_sidecar_that_knows_no_sessions_gets_no_key_and_its_rule_leads_nowhere() {
        let others = Feature::ALL
            .into_iter()
            .filter(|one| *one != Feature::Sessions);
        let features = Features::from_iter(others);
        let table = table(&[1], features);
        assert!(table.session_keys.is_empty());
        let front = &table.services[&"front.shop".parse().unwrap()];
        for rule in &front.ports[&80].routes {
            assert_eq!(rule.session, None);
            assert_eq!(
                rule.backends.is_empty(),
                rule.route != "HTTPRoute/shop/r/2",
                "{}",
                rule.route
            );
        }
        let sent = String::from_utf8(table.write_for(features).unwrap()).unwrap();
        assert!(!sent.contains("session"), "{sent}");
    }
}
