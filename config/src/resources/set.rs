//! All resources of a mesh at one moment. Pure.

use std::collections::BTreeMap;

use super::{
    AuthorizationPolicySpec, HttpRouteSpec, Key, Kind, MeshConfigSpec, Resource, ServiceSpec,
    TrafficPolicySpec,
};
use crate::table::ServiceName;

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

    /// All Services.
    pub fn services(&self) -> impl Iterator<Item = (ServiceName, &ServiceSpec)> {
        self.resources
            .iter()
            .filter_map(|(key, resource)| match resource {
                Resource::Service(object) => {
                    let name = ServiceName {
                        namespace: key.namespace.clone(),
                        name: key.name.clone(),
                    };
                    Some((name, &object.spec))
                }
                Resource::AuthorizationPolicy(_)
                | Resource::TrafficPolicy(_)
                | Resource::HttpRoute(_)
                | Resource::MeshConfig(_) => None,
            })
    }

    /// One Service.
    pub fn service(&self, namespace: &str, name: &str) -> Option<&ServiceSpec> {
        let key = Key {
            kind: Kind::Service,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        match self.resources.get(&key)? {
            Resource::Service(object) => Some(&object.spec),
            Resource::AuthorizationPolicy(_)
            | Resource::TrafficPolicy(_)
            | Resource::HttpRoute(_)
            | Resource::MeshConfig(_) => None,
        }
    }

    /// All authorization policies.
    pub fn policies(&self) -> impl Iterator<Item = (&Key, &AuthorizationPolicySpec)> {
        self.resources
            .iter()
            .filter_map(|(key, resource)| match resource {
                Resource::AuthorizationPolicy(object) => Some((key, &object.spec)),
                Resource::Service(_)
                | Resource::TrafficPolicy(_)
                | Resource::HttpRoute(_)
                | Resource::MeshConfig(_) => None,
            })
    }

    /// All traffic policies.
    pub fn traffic_policies(&self) -> impl Iterator<Item = (&Key, &TrafficPolicySpec)> {
        self.resources
            .iter()
            .filter_map(|(key, resource)| match resource {
                Resource::TrafficPolicy(object) => Some((key, &object.spec)),
                Resource::Service(_)
                | Resource::AuthorizationPolicy(_)
                | Resource::HttpRoute(_)
                | Resource::MeshConfig(_) => None,
            })
    }

    /// All routes.
    pub fn routes(&self) -> impl Iterator<Item = (&Key, &HttpRouteSpec)> {
        self.resources
            .iter()
            .filter_map(|(key, resource)| match resource {
                Resource::HttpRoute(object) => Some((key, &object.spec)),
                Resource::Service(_)
                | Resource::AuthorizationPolicy(_)
                | Resource::TrafficPolicy(_)
                | Resource::MeshConfig(_) => None,
            })
    }

    /// All mesh configurations; validation allows one.
    pub fn mesh_configs(&self) -> impl Iterator<Item = (&Key, &MeshConfigSpec)> {
        self.resources
            .iter()
            .filter_map(|(key, resource)| match resource {
                Resource::MeshConfig(object) => Some((key, &object.spec)),
                Resource::Service(_)
                | Resource::AuthorizationPolicy(_)
                | Resource::TrafficPolicy(_)
                | Resource::HttpRoute(_) => None,
            })
    }
}
