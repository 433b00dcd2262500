//! `weft.dev/v1alpha1` ExternalService: a service outside of the mesh, and how sidecars reach it.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::decode::{At, Decoder, Fields, all_or_none};
use super::label;
use super::schema::{some, up_to, word};
use super::service::{Callers, MutualTls, ServicePort, ServiceSpec, port_number, protocol};
use crate::limits;
use crate::table::{self, AddressRange, PathCase, Protocol, ServiceName, check_subdomain};

/// What an ExternalService says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ExternalServiceSpec {
    /// The DNS names that applications write to reach it, in lower case. No other ExternalService of the mesh
    /// has one of them. Without `addresses` it is one name, which sidecars resolve.
    #[schemars(extend("x-range" = some(limits::EXTERNAL_HOSTS_MAX)))]
    pub hosts: Vec<String>,
    /// Its ports: callers use these numbers, and so does the service.
    #[schemars(extend("x-range" = some(limits::PORTS_PER_SERVICE_MAX)))]
    pub ports: Vec<ExternalPort>,
    /// Its addresses, in place of those that its name resolves to. They are taken as they are written:
    /// private ones, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        with = "Vec<String>",
        extend("x-range" = up_to(limits::EXTERNAL_ADDRESSES_MAX), "x-default" = "those of its host")
    )]
    pub addresses: Vec<IpAddr>,
    /// Ranges that its name may resolve to although they are not public, such as `10.20.0.0/16`. An address
    /// of a private, loopback, link-local or cloud-metadata range that is not listed here is never dialled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        with = "Vec<String>",
        extend("x-range" = up_to(limits::EXTERNAL_RANGES_MAX), "x-default" = "public addresses only")
    )]
    pub allowed_ranges: Vec<AddressRange>,
    /// Whether it tells `/admin` from `/ADMIN`. The sidecar needs to know it to apply the paths of an
    /// AuthorizationPolicy.
    #[serde(default, skip_serializing_if = "PathCase::is_sensitive")]
    #[schemars(extend("x-default" = word(PathCase::default())))]
    pub path_case: PathCase,
    /// A Service of the mesh that its traffic is sent through: the sidecars that serve it decide for all
    /// callers, and send outside. Callers reach them over the mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "the sidecar of each caller sends it outside"))]
    pub via: Option<ViaSpec>,
}

/// The Service that traffic is sent through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ViaSpec {
    /// The name of the Service.
    #[schemars(extend("x-range" = "1 to 63 characters"))]
    pub name: String,
    /// Its namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = "1 to 63 characters", "x-default" = "that of the ExternalService"))]
    pub namespace: Option<String>,
    /// The number of one port of it. Requests are sent through a port of `http` or `grpc`, and bytes of `tcp`
    /// through one of `tcp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = "1 to 65535", "x-default" = "its only port that takes the same"))]
    pub port: Option<u16>,
}

impl ViaSpec {
    /// The Service that is meant from a namespace.
    pub(crate) fn service(&self, own: &str) -> Option<ServiceName> {
        ServiceName::new(self.namespace.as_deref().unwrap_or(own), &self.name).ok()
    }

    /// The port of the Service that a port of the ExternalService is sent through, or those that it could be
    /// sent through.
    pub(crate) fn port_for(&self, protocol: Protocol, of: &ServiceSpec) -> Result<u16, Vec<u16>> {
        let ports = of.ports.iter();
        let fit = ports.filter(|port| port.protocol.has_requests() == protocol.has_requests());
        let fit: Vec<u16> = fit.map(|port| port.port).collect();
        match (self.port, fit.as_slice()) {
            (Some(port), fit) if fit.contains(&port) => Ok(port),
            (None, [only]) => Ok(*only),
            (_, _) => Err(fit),
        }
    }
}

/// One port of an ExternalService.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ExternalPort {
    /// Its number.
    #[schemars(extend("x-range" = "1 to 65535"))]
    pub port: u16,
    /// What is spoken on it, inside of TLS if there is TLS: `http` is sent as HTTP/1.1 and `grpc` as HTTP/2.
    pub protocol: Protocol,
    /// How the sidecar speaks TLS to it; `{}` trusts the roots of the system. Applications speak without TLS
    /// to their sidecar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "no TLS: bytes leave as the application sends them"))]
    pub tls: Option<ExternalTlsSpec>,
}

/// TLS towards a service outside of the mesh: TLS 1.3. Files are those of the host of
/// the sidecar that sends outside: the caller's, or with `via` one of that Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct ExternalTlsSpec {
    /// The name that its certificate must prove, which is also sent as SNI.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = "1 to 253 characters", "x-default" = "the first of `hosts`"))]
    pub server_name: Option<String>,
    /// A file of root certificates (PEM), which is trusted in place of the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = "an absolute path", "x-default" = "the roots of the system"))]
    pub ca_file: Option<String>,
    /// A file with the certificate chain (PEM) that is shown to a server that asks for one. `keyFile` stands
    /// beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = "an absolute path", "x-default" = "no certificate is shown"))]
    pub certificate_file: Option<String>,
    /// The file of its private key (PEM).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = "an absolute path"))]
    pub key_file: Option<String>,
}

impl ExternalServiceSpec {
    /// What routes and policies see of it: the same as of a Service that no workload may serve.
    pub(crate) fn as_service(&self) -> ServiceSpec {
        let port = |port: &ExternalPort| ServicePort {
            port: port.port,
            name: None,
            protocol: port.protocol,
            app_protocol: None,
        };
        ServiceSpec {
            ports: self.ports.iter().map(port).collect(),
            identities: Some(Vec::new()),
            callers: Callers::Any,
            path_case: self.path_case,
            mutual_tls: MutualTls::Strict,
        }
    }

    /// How sidecars reach it from a namespace; `service` finds the Service that it is sent through.
    pub(crate) fn compiled<'s>(
        &self,
        own: &str,
        service: impl Fn(&ServiceName) -> Option<&'s ServiceSpec>,
    ) -> table::External {
        let first = self.hosts.first().cloned().unwrap_or_default();
        let tls = self.ports.iter().filter_map(|port| {
            let tls = port.tls.as_ref()?;
            let certificate = tls.certificate_file.clone().zip(tls.key_file.clone());
            let tls = table::ExternalTls {
                server_name: tls.server_name.clone().unwrap_or_else(|| first.clone()),
                roots: tls.ca_file.clone(),
                certificate: certificate
                    .map(|(chain, key)| table::ClientCertificate { chain, key }),
            };
            Some((port.port, tls))
        });
        table::External {
            hosts: self.hosts.clone(),
            addresses: self.addresses.clone(),
            allowed_ranges: self.allowed_ranges.clone(),
            tls: tls.collect(),
            via: self
                .via
                .as_ref()
                .map(|via| self.compiled_via(via, own, service)),
        }
    }

    /// Without ports where the reference leads nowhere, which validation refuses: then no call has a way out.
    fn compiled_via<'s>(
        &self,
        via: &ViaSpec,
        own: &str,
        service: impl Fn(&ServiceName) -> Option<&'s ServiceSpec>,
    ) -> table::Via {
        let name = via.service(own).unwrap_or_else(|| ServiceName {
            namespace: own.to_owned(),
            name: "invalid-name".to_owned(),
        });
        let found = service(&name);
        let through = self.ports.iter().filter_map(|port| {
            let through = via.port_for(port.protocol, found?).ok()?;
            Some((port.port, through))
        });
        table::Via {
            ports: through.collect(),
            service: name,
            here: false,
        }
    }
}

pub(super) fn decode(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<ExternalServiceSpec> {
    let mut fields = Fields::open(decoder, at)?;
    let hosts_at = fields.require(decoder, "hosts");
    let hosts: Option<Vec<String>> = hosts_at.as_ref().map(|at| {
        let items = decoder.list_of_some(at, limits::EXTERNAL_HOSTS_MAX);
        items
            .iter()
            .filter_map(|item| host(decoder, item))
            .collect()
    });
    let ports = fields.require(decoder, "ports").map(|at| {
        let items = decoder.list_of_some(&at, limits::PORTS_PER_SERVICE_MAX);
        items
            .iter()
            .filter_map(|item| port(decoder, item))
            .collect()
    });
    let addresses: Vec<IpAddr> = fields.take("addresses").map_or_else(Vec::new, |at| {
        let items = decoder.list_of_some(&at, limits::EXTERNAL_ADDRESSES_MAX);
        items
            .iter()
            .filter_map(|item| address(decoder, item))
            .collect()
    });
    let allowed_ranges: Vec<AddressRange> =
        fields.take("allowedRanges").map_or_else(Vec::new, |at| {
            if !addresses.is_empty() {
                let hint = "remove it: addresses are taken as they are written".to_owned();
                decoder.error(&at, "concerns names that are resolved", Some(hint));
            }
            let items = decoder.list_of_some(&at, limits::EXTERNAL_RANGES_MAX);
            items
                .iter()
                .filter_map(|item| decoder.parsed(item, "write ADDRESS/BITS, as 10.20.0.0/16"))
                .collect()
        });
    let cases = [
        ("sensitive", PathCase::Sensitive),
        ("insensitive", PathCase::Insensitive),
    ];
    let path_case = fields
        .take("pathCase")
        .and_then(|at| decoder.choice(&at, &cases));
    let via = fields.take("via").map(|at| via(decoder, &at));
    let has_addresses = fields.has("addresses");
    fields.close(decoder);
    if let (Some(at), Some(hosts)) = (&hosts_at, &hosts)
        && hosts.len() > 1
        && !has_addresses
    {
        let hint = "write an ExternalService for each name, or addresses".to_owned();
        let message = "several names, and no addresses: each name has its own";
        decoder.error(at, message, Some(hint));
    }
    // What could not be read must not mean that each caller's own sidecar sends it.
    let via = all_or_none(via)?;
    Some(ExternalServiceSpec {
        hosts: hosts?,
        ports: ports?,
        addresses,
        allowed_ranges,
        path_case: path_case.unwrap_or_default(),
        via,
    })
}

fn via(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<ViaSpec> {
    let mut fields = Fields::open(decoder, at)?;
    let name = fields.require(decoder, "name");
    let name = name.and_then(|at| label(decoder, &at));
    let namespace = fields.take("namespace").map(|at| label(decoder, &at));
    let port = fields.take("port").map(|at| port_number(decoder, &at));
    fields.close(decoder);
    Some(ViaSpec {
        name: name?,
        namespace: all_or_none(namespace)?,
        port: all_or_none(port)?,
    })
}

/// A DNS name.
fn host(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<String> {
    let text = decoder.text(at)?;
    let is_address = is_address(&text);
    let hint = if text.starts_with("*.") {
        "name each host: what is not listed is refused"
    } else if is_address {
        "write a name here, and the address under addresses"
    } else if text.contains(':') || text.contains('/') {
        "write the name alone: ports stand under ports"
    } else {
        "write a name in lower case, as api.example.com"
    };
    if is_address || check_subdomain(&text).is_err() {
        let message = format!("{text:?} is no DNS name");
        decoder.error(at, message, Some(hint.to_owned()));
        return None;
    }
    Some(text)
}

/// Whether it is an address, or one in brackets as URLs have it.
fn is_address(text: &str) -> bool {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    bare.unwrap_or(text).parse::<IpAddr>().is_ok()
}

fn address(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<IpAddr> {
    let hint = "write an IPv4 or IPv6 address without a port and without brackets";
    let address: IpAddr = decoder.parsed(at, hint)?;
    // An IPv4 address in the form of IPv6 is the same host.
    let address = address.to_canonical();
    if address.is_unspecified() || address.is_multicast() {
        let message = format!("{address} is not the address of one host");
        decoder.error(at, message, None);
        return None;
    }
    Some(address)
}

fn port(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<ExternalPort> {
    let mut fields = Fields::open(decoder, at)?;
    let number = fields
        .require(decoder, "port")
        .and_then(|at| port_number(decoder, &at));
    let protocol = fields
        .require(decoder, "protocol")
        .and_then(|at| protocol(decoder, &at));
    let tls = fields.take("tls").map(|at| tls(decoder, &at));
    fields.refuse(
        decoder,
        "name",
        "a route names the port by its number, as port",
    );
    fields.close(decoder);
    // What could not be read must not mean that there is no TLS.
    Some(ExternalPort {
        port: number?,
        protocol: protocol?,
        tls: all_or_none(tls)?,
    })
}

fn tls(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<ExternalTlsSpec> {
    let mut fields = Fields::open(decoder, at)?;
    let errors = decoder.findings.errors();
    let server_name = fields.take("serverName").and_then(|at| {
        let text = decoder.text(&at)?;
        if text.parse::<IpAddr>().is_err() && check_subdomain(&text).is_err() {
            let hint = "write a DNS name in lower case, or an address".to_owned();
            decoder.error(&at, format!("{text:?} is no name of a server"), Some(hint));
            return None;
        }
        Some(text)
    });
    let mut file = |decoder: &mut Decoder<'_>, name| {
        let at = fields.take(name)?;
        let text = decoder.text(&at)?;
        let is_absolute = text.starts_with('/') && !text.contains('\0');
        if !is_absolute || text.len() > limits::FILE_NAME_LENGTH_MAX {
            let hint = "write an absolute path of the sidecar's host".to_owned();
            decoder.error(&at, format!("{text:?} is no absolute path"), Some(hint));
            return None;
        }
        Some(text)
    };
    let ca_file = file(decoder, "caFile");
    let certificate_file = file(decoder, "certificateFile");
    let key_file = file(decoder, "keyFile");
    fields.refuse(
        decoder,
        "insecureSkipVerify",
        "name the server's own root by caFile",
    );
    fields.close(decoder);
    // A fault anywhere: nothing weaker than what was meant may hold.
    if decoder.findings.errors() > errors {
        return None;
    }
    if certificate_file.is_some() != key_file.is_some() {
        let hint = "write both, or neither".to_owned();
        let message = "certificateFile and keyFile belong together";
        decoder.error(at, message, Some(hint));
        return None;
    }
    Some(ExternalTlsSpec {
        server_name,
        ca_file,
        certificate_file,
        key_file,
    })
}
