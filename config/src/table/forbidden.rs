//! The encoding of the services that may not be called. A sidecar without [`super::Feature::Bans`] reads, and
//! a config service from before it writes, a list of names that is always present; all others use a map with
//! reasons.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use weft_transport::identity::TrustDomain;

use super::{Ban, Forbidden, Revision, Schema, Service, ServiceName, Table};

/// A table as it is written for a sidecar that knows only names.
#[derive(Serialize)]
pub(super) struct NamesOnly<'a> {
    schema: Schema,
    revision: &'a Revision,
    trust_domain: &'a TrustDomain,
    services: &'a BTreeMap<ServiceName, Arc<Service>>,
    forbidden: BTreeSet<&'a ServiceName>,
}

impl<'a> NamesOnly<'a> {
    pub(super) fn of(table: &'a Table) -> Self {
        Self {
            schema: table.schema,
            revision: &table.revision,
            trust_domain: &table.trust_domain,
            services: &table.services,
            forbidden: table.forbidden.keys().collect(),
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
