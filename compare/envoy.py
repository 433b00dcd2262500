"""A pair of Envoys that does what a pair of weft sidecars does: a plug-in of `weft load compare`.

HTTP/1.1 in, HTTP/2 or HTTP/3 over mutual TLS 1.3 between, HTTP/1.1 out; or TCP in, one mutual TLS 1.3
connection for each of the application's, TCP out. Access log, request ids and tracing are off; statistics
are on, as they always are in Envoy. There is no RBAC filter: that is in Envoy's favour, because weft's side
decides every request by policy. What Envoy is told in detail is in envoy_config.py.

docs/compare.md says what a plug-in is told (the environment) and what it says (one line of JSON).
Order of reading: main, Pair.
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

import envoy_config as envoy

HERE = pathlib.Path(__file__).resolve().parent
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
        self.application = told["WEFT_COMPARE_SERVER"]
        self.listen, self.admin, self.server_admin, self.mesh = free_ports(4)
        self.program = find_envoy()
        self.processes = {}

    def start(self):
        envoy.make_certificates(self.directory)
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
            "admin": {"address": envoy.address(f"127.0.0.1:{admin}")},
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
        takes = envoy.listener("in", f"127.0.0.1:{self.listen}", self._to("peer"))
        tls = envoy.client_tls(self.directory, self.between)
        peer = f"{self.server_host}:{self.mesh}"
        return {"listeners": [takes], "clusters": [envoy.cluster("peer", peer, tls, self.between)]}

    def _server_side(self):
        takes = envoy.listener("in", f"{self.server_host}:{self.mesh}",
                               self._to("application", self.between),
                               envoy.server_tls(self.directory, self.between), self.between)
        return {"listeners": [takes], "clusters": [envoy.cluster("application", self.application)]}

    def _to(self, cluster, between=None):
        """What passes everything on to a cluster."""
        if self.between == "tcp":
            return envoy.tcp_proxy(cluster)
        return envoy.http_manager(cluster, [envoy.virtual_host(cluster)], between)


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


def is_ready(url):
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return response.status == 200
    except OSError:
        return False


def die_with_parent():
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
