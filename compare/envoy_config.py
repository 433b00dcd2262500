"""What a pair of Envoys is told, and the certificates of its two sides. No processes: `envoy.py` beside it starts
them for `weft load compare`, `netem-tests/pairs/envoy.py` for `weft lab`; both get their configuration here.

Mutual TLS 1.3 between the two sides, each of which demands the other's exact SPIFFE ID, like weft's sidecars.
Everything else is at Envoy's defaults, except that nothing limits connections or the time of a request, as in
weft, and that there are no request ids. `between` is what the two sides speak: h2, h3 or tcp.
"""

import shutil
import subprocess
import sys

CLIENT, SERVER = (f"spiffe://pair.test/ns/pair/sa/{name}" for name in ("client", "server"))
# Envoy's QUIC demands that the server's certificate has the name that it asks for, besides the SPIFFE ID.
NAME = "server.pair.test"
# Above every test's connection count, so that no breaker of Envoy trips; its default is 1024.
CONNECTIONS_MAX = 65536


def listener(name, at, network_filter, tls=None, between=None):
    """Takes what comes at `at`, a text of HOST:PORT; from the other side if `between` says how."""
    chain = {"filters": [network_filter]}
    if tls:
        chain["transport_socket"] = tls
    quic = between == "h3"
    made = {"name": name, "address": address(at, "UDP" if quic else "TCP"), "filter_chains": [chain]}
    if quic:
        # Packets that arrive together are taken together, as weft does.
        made["udp_listener_config"] = {"quic_options": {},
                                       "downstream_socket_config": {"prefer_gro": True}}
    return made


def http_manager(name, hosts, between=None):
    router = {"name": "router", "typed_config": kind("extensions.filters.http.router.v3.Router")}
    return {"name": "http", "typed_config": kind(
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=name, codec_type="HTTP3" if between == "h3" else "AUTO",
        generate_request_id=False, route_config={"virtual_hosts": hosts}, http_filters=[router])}


def virtual_host(to_cluster, domains=("*",), **action):
    # Requests wait as long as their callers do, as in weft.
    route = {"cluster": to_cluster, "timeout": "0s", **action}
    return {"name": to_cluster, "domains": list(domains),
            "routes": [{"match": {"prefix": "/"}, "route": route}]}


def tcp_proxy(to_cluster):
    return {"name": "tcp", "typed_config": kind(
        "extensions.filters.network.tcp_proxy.v3.TcpProxy", stat_prefix=to_cluster,
        cluster=to_cluster)}


def cluster(name, at, tls=None, between=None):
    """Where requests or connections go: to the application, or to the other side if `between` says how."""
    endpoint = {"endpoint": {"address": address(at)}}
    made = {
        "name": name, "type": "STATIC", "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "circuit_breakers": {"thresholds": [{
            "max_connections": CONNECTIONS_MAX, "max_pending_requests": CONNECTIONS_MAX,
            "max_requests": CONNECTIONS_MAX}]},
    }
    if tls:
        made["transport_socket"] = tls
    if between in ("h2", "h3"):
        version = {"h2": "http2_protocol_options", "h3": "http3_protocol_options"}[between]
        made["typed_extension_protocol_options"] = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": kind(
                "extensions.upstreams.http.v3.HttpProtocolOptions",
                explicit_http_config={version: {}})}
    return made


def client_tls(directory, between):
    context = {"common_tls_context": common_tls(directory, "client", SERVER, between)}
    if between == "h3":
        context["sni"] = NAME
    return transport_socket("Upstream", context, between)


def server_tls(directory, between):
    context = {"require_client_certificate": True,
               "common_tls_context": common_tls(directory, "server", CLIENT, between)}
    return transport_socket("Downstream", context, between)


def common_tls(directory, own, peer, between):
    common = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3",
                       "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [{"certificate_chain": {"filename": str(directory / f"{own}.crt")},
                              "private_key": {"filename": str(directory / f"{own}.key")}}],
        "validation_context": {
            "trusted_ca": {"filename": str(directory / "root.crt")},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": peer}}]},
    }
    if between in ("h2", "h3"):
        common["alpn_protocols"] = [between]
    return common


def transport_socket(side, context, between):
    if between != "h3":
        return {"name": "envoy.transport_sockets.tls", "typed_config": kind(
            f"extensions.transport_sockets.tls.v3.{side}TlsContext", **context)}
    # Envoy looks for this very name.
    return {"name": "envoy.transport_sockets.quic", "typed_config": kind(
        f"extensions.transport_sockets.quic.v3.Quic{side}Transport",
        **{f"{side.lower()}_tls_context": context})}


def address(at, protocol="TCP"):
    host, port = at.rsplit(":", 1)
    return {"socket_address": {"protocol": protocol, "address": host.strip("[]"),
                               "port_value": int(port)}}


def kind(name, **fields):
    return {"@type": f"type.googleapis.com/envoy.{name}", **fields}


def make_certificates(directory):
    """A root and two ECDSA P-256 leaves with SPIFFE IDs, like those of weft's CA."""
    if not shutil.which("openssl"):
        sys.exit("openssl is missing: apt-get install openssl")

    def openssl(*arguments):
        done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"openssl: {' '.join(done.stderr.split())}")

    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", *curve, "-keyout", directory / "root.key", "-out",
            directory / "root.crt", "-days", "2", "-subj", "/CN=pair root")
    for name, identity in (("client", CLIENT), ("server", SERVER)):
        extensions = directory / f"{name}.ext"
        extensions.write_text(f"subjectAltName=critical,URI:{identity},DNS:{NAME}\n"
                              "keyUsage=critical,digitalSignature\n"
                              "extendedKeyUsage=serverAuth,clientAuth\n"
                              "basicConstraints=critical,CA:FALSE\n")
        openssl("req", *curve, "-keyout", directory / f"{name}.key", "-out",
                directory / f"{name}.csr", "-subj", "/")
        openssl("x509", "-req", "-in", directory / f"{name}.csr", "-CA", directory / "root.crt",
                "-CAkey", directory / "root.key", "-CAcreateserial", "-days", "1", "-extfile",
                extensions, "-out", directory / f"{name}.crt")
