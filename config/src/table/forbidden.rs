//! The encoding of the services that may not be called. A sidecar without [`super::Feature::Bans`] reads, and
//! a config service from before it writes, a list of names that is always present; all others use a map with
//! reasons.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use weft_transport::identity::TrustDomain;

use super::{Ban, Egress, Forbidden, Revision, Schema, Service, ServiceName, SessionKey, Table};

/// A table as it is written for a sidecar: with its secrets, which [`Table`] itself leaves out.
#[derive(Serialize)]
pub(super) struct Written<'a> {
    schema: Schema,
    revision: &'a Revision,
    trust_domain: &'a TrustDomain,
    services: &'a BTreeMap<ServiceName, Arc<Service>>,
    #[serde(skip_serializing_if = "Names::is_left_out")]
    forbidden: Names<'a>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    session_keys: &'a BTreeMap<String, Vec<SessionKey>>,
    #[serde(skip_serializing_if = "Egress::is_deny")]
    egress: &'a Egress,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    closed_hosts: &'a BTreeSet<String>,
}

/// The services that may not be called.
#[derive(Serialize)]
#[serde(untagged)]
enum Names<'a> {
    /// With reasons.
    Whole(&'a BTreeMap<ServiceName, Forbidden>),
    /// For a sidecar that knows only names.
    Only(BTreeSet<&'a ServiceName>),
}

impl Names<'_> {
    fn is_left_out(&self) -> bool {
        matches!(self, Self::Whole(all) if all.is_empty())
    }
}

impl<'a> Written<'a> {
    pub(super) fn whole(table: &'a Table) -> Self {
        // Each field by its name: one that is added is not forgotten here.
        let Table {
            schema,
            revision,
            trust_domain,
            services,
            forbidden,
            session_keys,
            egress,
            closed_hosts,
        } = table;
        Self {
            schema: *schema,
            revision,
            trust_domain,
            services,
            forbidden: Names::Whole(forbidden),
            session_keys,
            egress,
            closed_hosts,
        }
    }

    pub(super) fn names_only(table: &'a Table) -> Self {
        Self {
            forbidden: Names::Only(table.forbidden.keys().collect()),
            ..Self::whole(table)
        }
    }
}

/// Reads either form.
pub(super) fn read<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<BTreeMap<ServiceName, Forbidden>, D::Error> {
    from.deserialize_any(Either)
}

struct Either;

impl<'de> Visitor<'de> for Either {
    type Value = BTreeMap<ServiceName, Forbidden>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("services that may not be called, as a map or a list of names")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        BTreeMap::deserialize(serde::de::value::MapAccessDeserializer::new(map))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Self::Value, A::Error> {
        let mut all = BTreeMap::new();
        while let Some(name) = names.next_element::<ServiceName>()? {
            let unstated = Forbidden {
                ports: BTreeMap::new(),
                ban: Ban::Unstated,
            };
            all.insert(name, unstated);
        }
        Ok(all)
    }
}
