//! `weft.dev/v1alpha1` AuthorizationPolicy: which identities may call a Service, and how.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use weft_transport::identity::SpiffeId;

use super::Kind;
use super::decode::{At, Decoder, Fields};
use super::schema::{Identity, some};
use crate::limits;
use crate::table::{Action, PathPattern};

/// What an AuthorizationPolicy says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct AuthorizationPolicySpec {
    /// The Services and ExternalServices that it protects, in its own namespace. It holds for all ports of
    /// each.
    #[schemars(extend("x-range" = some(limits::POLICY_TERMS_MAX)))]
    pub target_refs: Vec<TargetRef>,
    /// What it does to a call that it matches. A call matches if an entry of `from` and an entry of `to`
    /// hold.
    pub action: Action,
    /// Which callers it matches: those that any entry names. A caller without mutual TLS proved no identity:
    /// `Allow` does not match it, and `Deny` does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = some(limits::POLICY_TERMS_MAX), "x-default" = "every caller"))]
    pub from: Option<Vec<Source>>,
    /// Which requests it matches: those that any entry names. Only for Services without a `tcp` port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = some(limits::POLICY_TERMS_MAX), "x-default" = "every request"))]
    pub to: Option<Vec<Operation>>,
}

/// A Service, or an ExternalService, of the policy's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TargetRef {
    /// The kind of the target. `group` may stand beside it, empty or `weft.dev`.
    #[schemars(extend("x-range" = "`Service`, `ExternalService`"))]
    pub kind: String,
    /// Its name, in the policy's namespace.
    pub name: String,
}

impl TargetRef {
    /// The kind that it names.
    pub(crate) fn target_kind(&self) -> Kind {
        match self.kind.as_str() {
            "ExternalService" => Kind::ExternalService,
            _ => Kind::Service,
        }
    }
}

/// Callers by identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Source {
    /// The proven identities of callers, each written in full. Principals, methods and paths of one policy
    /// are at most 1024 together.
    #[schemars(with = "Vec<Identity>", extend("x-range" = some(limits::POLICY_TERMS_MAX)))]
    pub principals: Vec<SpiffeId>,
}

/// Requests by method and path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Operation {
    /// The methods, in upper case. An entry has `methods`, `paths` or both; if both, both must hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = some(limits::POLICY_TERMS_MAX), "x-default" = "every method"))]
    pub methods: Option<Vec<String>>,
    /// The paths, without query. `/orders/*` holds for `/orders/` and all below it, not for `/orders`. Any
    /// other is compared as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = some(limits::POLICY_TERMS_MAX), "x-default" = "every path"))]
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
    let kind = fields.require(decoder, "kind").and_then(|at| {
        let kinds = ["Service", "ExternalService"];
        decoder.choice(&at, &kinds.map(|kind| (kind, kind)))
    });
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
