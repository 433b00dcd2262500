//! The generated messages and services of `proto/weft/config/v1`, and their small conversions.

#[allow(
    missing_docs,
    unreachable_pub,
    unnameable_types,
    clippy::all,
    clippy::use_self,
    clippy::wildcard_enum_match_arm,
    reason = "generated"
)]
mod generated {
    tonic::include_proto!("weft.config.v1");
}

pub(crate) use generated::*;

use std::collections::{BTreeMap, HashMap};

use crate::table;

impl From<&table::Revision> for Revision {
    fn from(revision: &table::Revision) -> Self {
        Self {
            store: revision.store.clone(),
            number: revision.number,
        }
    }
}

impl From<Revision> for table::Revision {
    fn from(revision: Revision) -> Self {
        Self {
            store: revision.store,
            number: revision.number,
        }
    }
}

impl From<&table::Withheld> for Withheld {
    fn from(withheld: &table::Withheld) -> Self {
        Self {
            resource: withheld.resource.clone(),
            feature: withheld.feature.clone(),
            instead: withheld.instead.clone(),
        }
    }
}

impl From<Withheld> for table::Withheld {
    fn from(withheld: Withheld) -> Self {
        Self {
            resource: withheld.resource,
            feature: withheld.feature,
            instead: withheld.instead,
        }
    }
}

/// A locality as messages carry it: empty if none is known.
pub(crate) fn locality(text: &str) -> Result<Option<table::Locality>, table::LocalityError> {
    (!text.is_empty()).then(|| text.parse()).transpose()
}

impl From<table::Absence> for Absence {
    fn from(absence: table::Absence) -> Self {
        match absence {
            table::Absence::Never => Self::Never,
            table::Absence::Withdrawn => Self::Withdrawn,
            table::Absence::Lost => Self::Lost,
            table::Absence::Down => Self::Down,
        }
    }
}

impl From<Absence> for table::Absence {
    fn from(absence: Absence) -> Self {
        match absence {
            Absence::Never => Self::Never,
            Absence::Withdrawn => Self::Withdrawn,
            Absence::Lost => Self::Lost,
            Absence::Down => Self::Down,
        }
    }
}

impl From<&table::Endpoint> for Endpoint {
    fn from(endpoint: &table::Endpoint) -> Self {
        Self {
            workload: endpoint.workload.clone(),
            address: endpoint.address.to_string(),
            identity: endpoint.identity.to_string(),
            locality: endpoint
                .locality
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            weight: weight(&endpoint.details),
            metadata: metadata(&endpoint.details),
        }
    }
}

/// A weight as messages carry it: 0 where it is the ordinary one, which older readers take for granted.
pub(crate) fn weight(details: &table::Details) -> u32 {
    match details.weight.is_ordinary() {
        true => 0,
        false => details.weight.into(),
    }
}

/// Labels as messages carry them.
pub(crate) fn metadata(details: &table::Details) -> HashMap<String, String> {
    let labels = details.metadata.iter();
    labels
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// Both, as a message had them.
pub(crate) fn details(
    weight: u32,
    metadata: HashMap<String, String>,
) -> Result<table::Details, table::DetailsError> {
    let weight = match weight {
        0 => table::Weight::default(),
        number => number.try_into()?,
    };
    let metadata: BTreeMap<String, String> = metadata.into_iter().collect();
    Ok(table::Details {
        weight,
        metadata: metadata.try_into()?,
    })
}

impl TryFrom<Endpoint> for table::Endpoint {
    type Error = String;

    fn try_from(endpoint: Endpoint) -> Result<Self, String> {
        Ok(Self {
            workload: endpoint.workload,
            address: endpoint
                .address
                .parse()
                .map_err(|error| format!("endpoint address: {error}"))?,
            identity: endpoint
                .identity
                .parse()
                .map_err(|error| format!("endpoint identity: {error}"))?,
            locality: locality(&endpoint.locality)
                .map_err(|error| format!("endpoint locality: {error}"))?,
            details: details(endpoint.weight, endpoint.metadata)
                .map_err(|error| format!("endpoint: {error}"))?,
        })
    }
}
