"""A pair of Envoys that does what a pair of weft sidecars does: a plug-in of `weft load compare`.

HTTP/1.1 in, HTTP/2 or HTTP/3 over mutual TLS 1.3 between, HTTP/1.1 out; or TCP in, one mutual TLS 1.3
connection for each of the application's, TCP out. Each side demands the other's exact SPIFFE ID. Access log,
request ids and tracing are off; statistics are on, as they always are in Envoy. There is no RBAC filter:
that is in Envoy's favour, because weft's side decides every request by policy.

docs/compare.md says what a plug-in is told (the environment) and what it says (one line of JSON).
Order of reading: main, Pair, then the configuration from the outside in.
"""

import ctypes
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
TRUST_DOMAIN = "compare.test"
# Envoy's QUIC demands that the server's certificate has the name that it asks for, besides the SPIFFE ID.
QUIC_NAME = "web.compare.test"
CLIENT, SERVER = (f"spiffe://{TRUST_DOMAIN}/ns/compare/sa/{name}" for name in ("client", "web"))
# Above every test's connection count, so that no breaker of Envoy trips; its default is 1024.
CONNECTIONS_MAX = 65536
# A proxy that is not ready within this is broken, not slow.
READY_TIMEOUT_S = 30.0
# Nothing runs when it is told to end.
END_TIMEOUT_S = 3.0


class PluginError(Exception):
    """Says in one line why there can be no pair."""


def main(between):
    """Starts the pair, says where it is, and ends it when stdin closes or SIGTERM comes."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    pair = Pair(between)
    try:
        pair.start()
        print(json.dumps(pair.answer()), flush=True)
        sys.stdin.read()
    except PluginError as error:
        sys.exit(str(error))
    finally:
        pair.stop()


class Pair:
    """Side `caller` beside the load generator and side `server` beside the server."""

    def __init__(self, between):
        told = os.environ
        if told.get("WEFT_COMPARE") != "1":
            sys.exit("this is a plug-in: run `weft load compare` with its path")
        self.between = between
        self.directory = pathlib.Path(told["WEFT_COMPARE_DIRECTORY"])
        self.workers = told["WEFT_COMPARE_WORKERS"]
        self.server_host = told["WEFT_COMPARE_SERVER_HOST"]
        self.server_namespace = told["WEFT_COMPARE_SERVER_NETNS"]
        self.application = split(told["WEFT_COMPARE_SERVER"])
        self.listen, self.admin, self.server_admin, self.mesh = free_ports(4)
        self.program = find_envoy()
        self.processes = {}

    def start(self):
        make_certificates(self.directory)
        self._envoy("server", self.server_admin, self._server_side())
        self._envoy("caller", self.admin, self._caller_side())
        # Only this side's can be asked from here; `weft load compare` calls through both.
        url = f"http://127.0.0.1:{self.admin}/ready"
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not is_ready(url):
            self._require_alive()
            if time.monotonic() > deadline:
                raise PluginError(f"Envoy is not ready within {READY_TIMEOUT_S:.0f} s")
            time.sleep(0.05)
        self._require_alive()

    def answer(self):
        shown = subprocess.run([self.program, "--version"], capture_output=True, text=True)
        # `envoy  version: COMMIT/1.40.0/Clean/RELEASE/BoringSSL`
        version = next((part for part in shown.stdout.split("/") if part[:1].isdigit()), "unknown")
        names = {"h2": "HTTP/2", "h3": "HTTP/3", "tcp": "TLS"}
        return {
            "version": f"Envoy {version}, {names[self.between]} between",
            "tcp" if self.between == "tcp" else "http": f"127.0.0.1:{self.listen}",
            "processes": [{"role": role, "pid": process.pid}
                          for role, process in self.processes.items()],
        }

    def stop(self):
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _envoy(self, role, admin, resources):
        config = self.directory / f"{role}.json"
        config.write_text(json.dumps({
            "admin": {"address": address("127.0.0.1", admin)},
            "static_resources": resources}, indent=1))
        argv = [self.program, "--concurrency", self.workers, "--disable-hot-restart",
                "-l", "warn", "-c", str(config)]
        if role == "server" and self.server_namespace:
            argv = ["ip", "netns", "exec", self.server_namespace, *argv]
        with open(self.directory / f"{role}.log", "wb") as log:
            self.processes[role] = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                preexec_fn=die_with_parent)

    def _require_alive(self):
        for role, process in self.processes.items():
            if process.poll() is not None:
                log = (self.directory / f"{role}.log").read_text(errors="replace")
                said = " ".join(log.split())[-400:]
                raise PluginError(f"Envoy of the {role}'s side: exit {process.returncode}: {said}")

    def _caller_side(self):
        target = (self.server_host, self.mesh)
        if self.between == "tcp":
            filters, upstream = tcp_proxy("peer"), cluster("peer", target, self._client_tls())
        else:
            filters = http_manager("peer")
            upstream = cluster("peer", target, self._client_tls(), self.between)
        return {"listeners": [listener("127.0.0.1", self.listen, filters)], "clusters": [upstream]}

    def _server_side(self):
        if self.between == "tcp":
            filters = tcp_proxy("application")
        else:
            filters = http_manager("application", "HTTP3" if self.between == "h3" else "AUTO")
        accepts = listener(self.server_host, self.mesh, filters, self._server_tls(),
                           quic=self.between == "h3")
        return {"listeners": [accepts], "clusters": [cluster("application", self.application)]}

    def _client_tls(self):
        context = {"common_tls_context": self._common_tls("client", SERVER)}
        if self.between == "h3":
            context["sni"] = QUIC_NAME
        return transport_socket("Upstream", context, self.between == "h3")

    def _server_tls(self):
        context = {"require_client_certificate": True,
                   "common_tls_context": self._common_tls("server", CLIENT)}
        return transport_socket("Downstream", context, self.between == "h3")

    def _common_tls(self, own, peer):
        common = {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3",
                           "tls_maximum_protocol_version": "TLSv1_3"},
            "tls_certificates": [{
                "certificate_chain": {"filename": str(self.directory / f"{own}.crt")},
                "private_key": {"filename": str(self.directory / f"{own}.key")}}],
            "validation_context": {
                "trusted_ca": {"filename": str(self.directory / "root.crt")},
                "match_typed_subject_alt_names": [
                    {"san_type": "URI", "matcher": {"exact": peer}}]},
        }
        if self.between in ("h2", "h3"):
            common["alpn_protocols"] = [self.between]
        return common


def type_of(name):
    return f"type.googleapis.com/envoy.{name}"


def address(host, port, protocol="TCP"):
    return {"socket_address": {"protocol": protocol, "address": host, "port_value": port}}


def listener(host, port, network_filter, tls=None, quic=False):
    chain = {"filters": [network_filter]}
    if tls:
        chain["transport_socket"] = tls
    made = {"name": "in", "address": address(host, port, "UDP" if quic else "TCP"),
            "filter_chains": [chain]}
    if quic:
        # Packets that arrive together are taken together, as weft does.
        made["udp_listener_config"] = {"quic_options": {},
                                       "downstream_socket_config": {"prefer_gro": True}}
    return made


def http_manager(cluster_name, codec="AUTO"):
    router = {"name": "router",
              "typed_config": {"@type": type_of("extensions.filters.http.router.v3.Router")}}
    route = {"match": {"prefix": "/"}, "route": {"cluster": cluster_name, "timeout": "0s"}}
    return {"name": "http", "typed_config": {
        "@type": type_of("extensions.filters.network.http_connection_manager.v3."
                         "HttpConnectionManager"),
        "stat_prefix": cluster_name,
        "codec_type": codec,
        "generate_request_id": False,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [router],
    }}


def tcp_proxy(cluster_name):
    return {"name": "tcp", "typed_config": {
        "@type": type_of("extensions.filters.network.tcp_proxy.v3.TcpProxy"),
        "stat_prefix": cluster_name, "cluster": cluster_name}}


def cluster(name, target, tls=None, version=None):
    endpoint = {"endpoint": {"address": address(*target)}}
    made = {
        "name": name, "type": "STATIC", "connect_timeout": "2s",
        "load_assignment": {"cluster_name": name,
                            "endpoints": [{"lb_endpoints": [endpoint]}]},
        "circuit_breakers": {"thresholds": [{
            "max_connections": CONNECTIONS_MAX, "max_pending_requests": CONNECTIONS_MAX,
            "max_requests": CONNECTIONS_MAX}]},
    }
    if tls:
        made["transport_socket"] = tls
    if version:
        options = {"h2": "http2_protocol_options", "h3": "http3_protocol_options"}[version]
        made["typed_extension_protocol_options"] = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": type_of("extensions.upstreams.http.v3.HttpProtocolOptions"),
                "explicit_http_config": {options: {}}}}
    return made


def transport_socket(side, context, quic):
    kind = type_of(f"extensions.transport_sockets.tls.v3.{side}TlsContext")
    if not quic:
        return {"name": "tls", "typed_config": {"@type": kind, **context}}
    field = "upstream_tls_context" if side == "Upstream" else "downstream_tls_context"
    # Envoy looks for this very name.
    return {"name": "envoy.transport_sockets.quic", "typed_config": {
        "@type": type_of(f"extensions.transport_sockets.quic.v3.Quic{side}Transport"),
        field: context}}


def make_certificates(directory):
    """A root and two ECDSA P-256 leaves with SPIFFE IDs, like those of weft's CA."""
    if not shutil.which("openssl"):
        raise PluginError("openssl is missing: apt-get install openssl")

    def openssl(*arguments):
        done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True)
        if done.returncode != 0:
            raise PluginError(f"openssl: {' '.join(done.stderr.split())}")

    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", *curve, "-keyout", directory / "root.key", "-out",
            directory / "root.crt", "-days", "2", "-subj", "/CN=compare root")
    for name, identity in (("client", CLIENT), ("server", SERVER)):
        extensions = directory / f"{name}.ext"
        extensions.write_text(f"subjectAltName=critical,URI:{identity},DNS:{QUIC_NAME}\n"
                              "keyUsage=critical,digitalSignature\n"
                              "extendedKeyUsage=serverAuth,clientAuth\n"
                              "basicConstraints=critical,CA:FALSE\n")
        openssl("req", *curve, "-keyout", directory / f"{name}.key", "-out",
                directory / f"{name}.csr", "-subj", "/")
        openssl("x509", "-req", "-in", directory / f"{name}.csr", "-CA", directory / "root.crt",
                "-CAkey", directory / "root.key", "-CAcreateserial", "-days", "1", "-extfile",
                extensions, "-out", directory / f"{name}.crt")


def find_envoy():
    """The program that the environment names, the one from requirements.txt, or one on the PATH."""
    own = HERE / ".venv" / "bin" / "envoy"
    named = os.environ.get("WEFT_COMPARE_ENVOY")
    found = named or (str(own) if own.exists() else shutil.which("envoy"))
    if found and os.access(found, os.X_OK):
        return found
    sys.exit(f"no Envoy: python3 -m venv {own.parents[1]} && "
             f"{own.parent}/pip install -r {HERE}/requirements.txt, or set WEFT_COMPARE_ENVOY")


def free_ports(count):
    """Ports that nobody used a moment ago, on this side's loopback."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def split(text):
    host, port = text.rsplit(":", 1)
    return host.strip("[]"), int(port)


def is_ready(url):
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return response.status == 200
    except OSError:
        return False


def die_with_parent():
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
