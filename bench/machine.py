"""The machine under the comparison: places to run in, processes, their CPU and memory.

Not here: what runs (envoy.py, weft.py) and what is measured (compare.py).
"""

import ctypes
import os
import pathlib
import platform
import resource
import shutil
import signal
import socket
import subprocess
import time

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")
# A program that does not get ready within this is broken, not slow.
READY_TIMEOUT_S = 30.0
# Drains of the sidecars end within 25 s; here nothing runs when they are told to end.
END_TIMEOUT_S = 10.0
# Sidecars, nginx and the holder of idle connections each need a descriptor per connection.
OPEN_FILES = 16384


class BenchError(Exception):
    """Says in one line why there can be no result."""


class Place:
    """Where a process runs: a network namespace, or this host's loopback."""

    def __init__(self, namespace, address):
        self.namespace = namespace
        self.address = address

    def command(self, argv):
        argv = [str(word) for word in argv]
        return ["ip", "netns", "exec", self.namespace, *argv] if self.namespace else argv

    def run(self, argv, timeout=120):
        """Runs a command to its end and returns its output; its failure is ours."""
        done = subprocess.run(self.command(argv), capture_output=True, text=True, timeout=timeout)
        if done.returncode != 0:
            tail = (done.stderr or done.stdout).strip()[-2000:]
            raise BenchError(f"{' '.join(map(str, argv))}: exit {done.returncode}: {tail}")
        return done.stdout


class Wire:
    """Two hosts: namespaces joined by a veth pair of MTU 1500 when root, else loopback."""

    def __init__(self, loopback):
        self.names = []
        self.description = "loopback of one host"
        self.client = self.server = Place(None, "127.0.0.1")
        if loopback or os.geteuid() != 0 or not shutil.which("ip"):
            return
        client, server = f"bench-client-{os.getpid()}", f"bench-server-{os.getpid()}"
        self.description = "two network namespaces, veth, MTU 1500"
        self.client, self.server = Place(client, "10.231.0.1"), Place(server, "10.231.0.2")
        for name in (client, server):
            subprocess.run(["ip", "netns", "add", name], check=True)
            self.names.append(name)
        ends = f"ip link add veth0 netns {client} type veth peer name veth0 netns {server}"
        subprocess.run(ends.split(), check=True)
        for place in (self.client, self.server):
            place.run(f"ip address add {place.address}/24 dev veth0".split())
            place.run("ip link set veth0 up".split())
            place.run("ip link set lo up".split())

    def remove(self):
        for name in self.names:
            subprocess.run(["ip", "netns", "delete", name], check=False)


class Process:
    """A server under observation. It ends when it is told to, or with this program."""

    def __init__(self, place, argv, log, cwd=None, environment=None):
        self.argv = [str(word) for word in argv]
        self.log = pathlib.Path(log)
        with open(self.log, "wb") as output:
            self.popen = subprocess.Popen(
                place.command(argv), stdout=output, stderr=subprocess.STDOUT, cwd=cwd,
                env={**os.environ, **(environment or {})}, preexec_fn=_die_with_parent)
        self.pid = self.popen.pid

    def require_alive(self):
        if self.popen.poll() is not None:
            tail = self.log.read_text(errors="replace").strip()[-2000:]
            raise BenchError(f"{' '.join(self.argv)}: exit {self.popen.returncode}: {tail}")

    def cpu_seconds(self):
        """User and system time of the process and the children it has now or had."""
        own = _cpu_seconds(self.pid)
        return own + sum(_cpu_seconds(child) for child in _children(self.pid))

    def rss_bytes(self, shared=False):
        """Resident memory; `shared`: only what is mapped from files, mostly program text."""
        fields = pathlib.Path(f"/proc/{self.pid}/statm").read_text().split()
        return int(fields[2 if shared else 1]) * PAGE_SIZE

    def end(self):
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
            try:
                self.popen.wait(END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()


def wait_until(what, condition, processes=()):
    """Polls until the condition holds; a process that ended meanwhile is the better message."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not condition():
        for process in processes:
            process.require_alive()
        if time.monotonic() > deadline:
            raise BenchError(f"{what}: not within {READY_TIMEOUT_S:.0f} s")
        time.sleep(0.05)


def http_ok(place, url):
    """Whether a GET is answered with a 2xx."""
    argv = ["curl", "-s", "-o", "/dev/null", "-m", "2", "-w", "%{http_code}", url]
    done = subprocess.run(place.command(argv), capture_output=True, text=True)
    return done.stdout.startswith("2")


def raise_open_files():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class MachineCpu:
    """CPU of the whole machine between two points in time, to see the neighbours."""

    def __init__(self, server):
        self.server = server
        self.busy, self.steal = _machine_cpu()
        self.ours = self._ours()
        self.start = time.monotonic()

    def since(self, sidecars_seconds):
        """Shares of all cores: what others used, and what the hypervisor withheld."""
        busy, steal = _machine_cpu()
        elapsed = (time.monotonic() - self.start) * os.cpu_count()
        ours = sidecars_seconds + self._ours() - self.ours
        return {
            "neighbours": round(max(0.0, busy - self.busy - ours) / elapsed, 3),
            "steal": round((steal - self.steal) / elapsed, 3),
        }

    def _ours(self):
        """The server behind the sidecars, and load generators that have ended."""
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return self.server.cpu_seconds() + usage.ru_utime + usage.ru_stime


def describe(wire):
    """What a reader needs to judge the figures."""
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo")
                if line.startswith("model name")), "unknown")
    memory = next(line.split()[1] for line in open("/proc/meminfo") if line.startswith("MemTotal"))
    congestion = pathlib.Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    return {
        "cpu": cpu, "cores": os.cpu_count(), "memory_mib": int(memory) // 1024,
        "kernel": platform.release(), "tcp_congestion_control": congestion,
        "wire": wire.description, "load_average_at_start": os.getloadavg()[0],
    }


def version(argv, line=0):
    done = subprocess.run(argv, capture_output=True, text=True)
    lines = [text.strip() for text in (done.stdout + done.stderr).splitlines() if text.strip()]
    return lines[line] if lines else "unknown"


def free_ports(count):
    """Ports that nobody used a moment ago, on this host's loopback."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _cpu_seconds(pid):
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    # Fields 14 to 17 of proc(5): utime, stime, and those of waited-for children.
    fields = stat.rsplit(")", 1)[1].split()
    return sum(int(fields[index]) for index in range(11, 15)) / TICKS_PER_SECOND


def _children(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _machine_cpu():
    user, nice, system, _idle, _wait, irq, softirq, steal = map(
        int, open("/proc/stat").readline().split()[1:9])
    busy = user + nice + system + irq + softirq
    return busy / TICKS_PER_SECOND, steal / TICKS_PER_SECOND


def _die_with_parent():
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
