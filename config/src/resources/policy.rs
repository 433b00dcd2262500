//! `weft.dev/v1alpha1` AuthorizationPolicy: who may call a Service, and how.

use serde::{Deserialize, Serialize};
use weft_transport::identity::SpiffeId;

use super::decode::{At, Decoder, Fields};
use crate::limits;
use crate::table::{Action, PathPattern};

/// What an AuthorizationPolicy says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct AuthorizationPolicySpec {
    /// The Services that it protects, in its own namespace; at least one.
    pub target_refs: Vec<TargetRef>,
    /// What it does to calls that it matches.
    pub action: Action,
    /// Callers; absent means any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Vec<Source>>,
    /// Requests; absent means any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Vec<Operation>>,
}

/// A Service of the policy's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TargetRef {
    /// Always `Service`.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// Callers by identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Source {
    /// Any of these.
    pub principals: Vec<SpiffeId>,
}

/// Requests by method and path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Operation {
    /// Any of these; absent means any method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub methods: Option<Vec<String>>,
    /// Any of these; absent means any path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<Vec<PathPattern>>,
}

pub(super) fn decode(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<AuthorizationPolicySpec> {
    let mut fields = Fields::open(decoder, at)?;
    let target_refs = fields.require(decoder, "targetRefs").map(|at| {
        let items = decoder.list_of_some(&at, limits::POLICY_TERMS_MAX);
        items
            .iter()
            .filter_map(|item| target(decoder, item))
            .collect()
    });
    let actions = [
        ("Allow", Action::Allow),
        ("Deny", Action::Deny),
        ("Audit", Action::Audit),
    ];
    let action = fields
        .require(decoder, "action")
        .and_then(|at| decoder.choice(&at, &actions));
    let from = fields.take("from").map(|at| {
        let items = decoder.list_of_some(&at, limits::POLICY_TERMS_MAX);
        items
            .iter()
            .filter_map(|item| source(decoder, item))
            .collect()
    });
    let to = fields.take("to").map(|at| {
        let items = decoder.list_of_some(&at, limits::POLICY_TERMS_MAX);
        items
            .iter()
            .filter_map(|item| operation(decoder, item))
            .collect()
    });
    fields.close(decoder);
    Some(AuthorizationPolicySpec {
        target_refs: target_refs?,
        action: action?,
        from,
        to,
    })
}

fn target(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<TargetRef> {
    let mut fields = Fields::open(decoder, at)?;
    let kind = fields
        .require(decoder, "kind")
        .and_then(|at| decoder.choice(&at, &[("Service", "Service")]));
    let name = fields
        .require(decoder, "name")
        .and_then(|at| super::label(decoder, &at));
    if let Some(at) = fields.take("group") {
        decoder.choice(&at, &[("", ()), ("weft.dev", ())]);
    }
    fields.refuse(
        decoder,
        "namespace",
        "put the policy into the namespace of the Service",
    );
    fields.refuse(
        decoder,
        "sectionName",
        "a policy covers all ports of a Service",
    );
    fields.close(decoder);
    Some(TargetRef {
        kind: kind?.to_owned(),
        name: name?,
    })
}

fn source(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<Source> {
    let mut fields = Fields::open(decoder, at)?;
    let principals = fields.require(decoder, "principals").map(|at| {
        let items = decoder.list_of_some(&at, limits::POLICY_TERMS_MAX);
        let example = "write spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT";
        items
            .iter()
            .filter_map(|item| decoder.parsed(item, example))
            .collect()
    });
    fields.refuse(decoder, "namespaces", "list the principals");
    fields.close(decoder);
    Some(Source {
        principals: principals?,
    })
}

fn operation(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<Operation> {
    let mut fields = Fields::open(decoder, at)?;
    let methods = fields.take("methods").map(|at| {
        let items = decoder.list_of_some(&at, limits::POLICY_TERMS_MAX);
        items
            .iter()
            .filter_map(|item| super::method(decoder, item))
            .collect()
    });
    let paths = fields.take("paths").map(|at| {
        let items = decoder.list_of_some(&at, limits::POLICY_TERMS_MAX);
        items
            .iter()
            .filter_map(|item| decoder.parsed::<PathPattern>(item, ""))
            .collect()
    });
    if methods.is_none() && paths.is_none() {
        let hint = "give methods, paths or both, or leave out to".to_owned();
        decoder.error(at, "an entry without conditions", Some(hint));
    }
    fields.close(decoder);
    Some(Operation { methods, paths })
}
