"""A pair of weft sidecars with their CA and config service, brought up as a user would.

One worker each; everything else is the default, with policy, metrics and the access log of
failures on.
"""

import json

from machine import Process, http_ok, wait_until

TRUST_DOMAIN = "bench.test"
# nginx twice: as an HTTP service and as a TCP service; one identity serves both.
MESH = """\
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: { name: web, namespace: bench }
spec:
  ports: [ { port: 80, protocol: http } ]
---
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: { name: web-tcp, namespace: bench }
spec:
  ports: [ { port: 80, protocol: tcp } ]
  identities: ["spiffe://bench.test/ns/bench/sa/web"]
---
apiVersion: weft.dev/v1alpha1
kind: AuthorizationPolicy
metadata: { name: web-callers, namespace: bench }
spec:
  targetRefs: [ { kind: Service, name: web }, { kind: Service, name: web-tcp } ]
  action: Allow
  from: [ { principals: ["spiffe://bench.test/ns/bench/sa/client"] } ]
"""


class WeftPair:
    """Sidecar A beside the client and sidecar B, with the control plane, beside nginx."""

    name = "weft"

    def __init__(self, program, wire, directory, ports, nginx_port, workers=1):
        self.program, self.wire, self.directory, self.workers = program, wire, directory, workers
        (self.http_a, self.tcp_a, self.admin_a, self.mesh_b, self.admin_b, self.ca_port,
         self.config_port) = ports
        self.nginx_port = nginx_port
        self.control, self.processes = [], []

    def url(self, kind):
        return f"http://127.0.0.1:{self.http_a if kind == 'http' else self.tcp_a}"

    def start(self):
        if not self.control:
            self._start_control_plane()
        self.processes = [
            self._sidecar("a", self.wire.client, self._settings_a()),
            self._sidecar("b", self.wire.server, self._settings_b()),
        ]
        for place, admin, process in ((self.wire.client, self.admin_a, self.processes[0]),
                                      (self.wire.server, self.admin_b, self.processes[1])):
            wait_until("weft ready", lambda p=place, a=admin: http_ok(
                p, f"http://127.0.0.1:{a}/ready"), [process])
        for kind in ("http", "tcp"):
            wait_until(f"weft answers {kind}", lambda k=kind: http_ok(
                self.wire.client, self.url(k) + "/"), self.processes)

    def stop(self):
        for process in self.processes:
            process.end()

    def stop_all(self):
        self.stop()
        for process in self.control:
            process.end()

    def _start_control_plane(self):
        self.directory.mkdir(exist_ok=True)
        server, weft = self.wire.server, self.program
        ca_dir, ca = self.directory / "ca", f"{server.address}:{self.ca_port}"
        config = f"{server.address}:{self.config_port}"
        server.run([weft, "ca", "init", "--dir", ca_dir, "--trust-domain", TRUST_DOMAIN,
                    "--address", ca])
        self._serve("ca", "ca", "serve", "--dir", ca_dir, "--listen", ca)
        wait_until("CA socket", (ca_dir / "admin.sock").exists, self.control)

        def token(name, *whose):
            path = self.directory / f"{name}.token"
            path.write_text(server.run([weft, "ca", "token", "--dir", ca_dir, *whose]))
            return path

        token("a", "--identity", "ns/bench/sa/client")
        token("b", "--identity", "ns/bench/sa/web")
        self._serve("config", "config", "serve", "--dir", self.directory / "config",
                    "--listen", config,
                    "--join-token-file", token("config", "--role", "config"))
        operator = token("operator", "--role", "operator", "bench")
        mesh = self.directory / "mesh.yaml"
        mesh.write_text(MESH)
        # The operator's identity goes into this run's directory, not the user's home.
        home = ["env", f"WEFT_HOME={self.directory / 'operator'}"]
        server.run([*home, weft, "login", config, "--join-token-file", operator])
        server.run([*home, weft, "apply", "-f", mesh])

    def _serve(self, name, *arguments):
        self.control.append(Process(self.wire.server, [self.program, *arguments],
                                    self.directory / f"{name}.log"))

    def _sidecar(self, side, place, settings):
        # JSON is YAML.
        path = self.directory / f"{side}.yaml"
        path.write_text(json.dumps(settings, indent=1))
        return Process(place, [self.program, "proxy", "run", "--config", path],
                       self.directory / f"{side}.log")

    def _settings(self, side, admin):
        return {
            "join": {"token_file": f"{side}.token"},
            "config": {"addresses": [f"{self.wire.server.address}:{self.config_port}"]},
            "state_dir": f"state-{side}",
            "workers": self.workers,
            "admin": {"listen": f"127.0.0.1:{admin}"},
        }

    def _settings_a(self):
        return {**self._settings("a", self.admin_a), "outbound": {"listeners": [
            {"listen": f"127.0.0.1:{self.http_a}", "service": "web", "port": 80},
            {"listen": f"127.0.0.1:{self.tcp_a}", "service": "web-tcp", "port": 80},
        ]}}

    def _settings_b(self):
        application = f"127.0.0.1:{self.nginx_port}"
        return {**self._settings("b", self.admin_b), "inbound": {
            "listen": f"{self.wire.server.address}:{self.mesh_b}",
            "services": [
                {"service": "web", "port": 80, "application": application},
                {"service": "web-tcp", "port": 80, "application": application},
            ],
        }}
