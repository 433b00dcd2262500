//! All resources of a mesh at one moment. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::{
    AuthorizationPolicySpec, ExternalServiceSpec, Key, Kind, MeshConfigSpec, ReferenceGrantSpec,
    Resource, Route, ServiceSpec, Spec, TrafficPolicySpec, WorkloadSpec,
};
use crate::table::{self, ServiceName};

/// All resources of a mesh at one moment, in a stable order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// By key.
    pub resources: BTreeMap<Key, Resource>,
}

impl Set {
    /// Adds or replaces.
    pub fn insert(&mut self, resource: Resource) {
        self.resources.insert(resource.key(), resource);
    }

    /// All resources of one kind. Keys of a kind stand together, so the others are not looked at.
    fn all<'a, S: Spec + 'a>(&'a self) -> impl Iterator<Item = (&'a Key, &'a S)> {
        self.resources
            .range(Key::new(S::KIND, "", "")..)
            .map_while(|(key, resource)| Some((key, &S::of(resource)?.spec)))
    }

    /// All Services.
    pub fn services(&self) -> impl Iterator<Item = (ServiceName, &ServiceSpec)> {
        self.all().map(|(key, spec)| {
            let name = ServiceName {
                namespace: key.namespace.clone(),
                name: key.name.clone(),
            };
            (name, spec)
        })
    }

    /// One Service.
    pub fn service(&self, namespace: &str, name: &str) -> Option<&ServiceSpec> {
        let resource = self
            .resources
            .get(&Key::new(Kind::Service, namespace, name))?;
        ServiceSpec::of(resource).map(|object| &object.spec)
    }

    /// All services outside of the mesh.
    pub fn externals(&self) -> impl Iterator<Item = (ServiceName, &ExternalServiceSpec)> {
        self.all().map(|(key, spec)| {
            let name = ServiceName {
                namespace: key.namespace.clone(),
                name: key.name.clone(),
            };
            (name, spec)
        })
    }

    /// One service outside of the mesh.
    pub fn external(&self, namespace: &str, name: &str) -> Option<&ExternalServiceSpec> {
        let key = Key::new(Kind::ExternalService, namespace, name);
        let resource = self.resources.get(&key)?;
        ExternalServiceSpec::of(resource).map(|object| &object.spec)
    }

    /// The Service of that name, or what an ExternalService is to routes and policies, by `kind`.
    pub(crate) fn destination(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
    ) -> Option<Cow<'_, ServiceSpec>> {
        if kind == Kind::ExternalService {
            let external = self.external(namespace, name)?;
            return Some(Cow::Owned(external.as_service()));
        }
        self.service(namespace, name).map(Cow::Borrowed)
    }

    /// All authorization policies.
    pub fn policies(&self) -> impl Iterator<Item = (&Key, &AuthorizationPolicySpec)> {
        self.all()
    }

    /// All traffic policies.
    pub fn traffic_policies(&self) -> impl Iterator<Item = (&Key, &TrafficPolicySpec)> {
        self.all()
    }

    /// All routes of every kind, which stand together.
    pub fn routes(&self) -> impl Iterator<Item = Route<'_>> {
        self.resources
            .range(Key::new(Kind::HttpRoute, "", "")..)
            .map_while(|(key, resource)| Route::of(key, resource))
    }

    /// One route of any kind.
    pub fn route<'a>(&'a self, key: &Key) -> Option<Route<'a>> {
        let (key, resource) = self.resources.get_key_value(key)?;
        Route::of(key, resource)
    }

    /// All grants.
    pub fn grants(&self) -> impl Iterator<Item = (&Key, &ReferenceGrantSpec)> {
        self.all()
    }

    /// All workloads that do not register by themselves.
    pub fn workloads(&self) -> impl Iterator<Item = (&Key, &WorkloadSpec)> {
        self.all()
    }

    /// All mesh configurations; validation allows one.
    pub fn mesh_configs(&self) -> impl Iterator<Item = (&Key, &MeshConfigSpec)> {
        self.all()
    }

    /// What the mesh says about names outside of it.
    pub(crate) fn egress(&self) -> table::Egress {
        let mut mesh = self.mesh_configs();
        mesh.next().map(|(_, spec)| spec.egress).unwrap_or_default()
    }

    /// What the mesh says about Services that no Allow policy targets.
    pub(crate) fn default_authorization(&self) -> table::Default {
        self.mesh_configs()
            .next()
            .map_or(table::Default::Allow, |(_, spec)| {
                spec.default_authorization
            })
    }
}
