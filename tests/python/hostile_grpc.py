"""A member of the mesh that speaks gRPC to the config service as it should not. Needs nothing but Python.

`hostile_grpc.py SCENARIO HOST:PORT STATE_DIR SECONDS` has the identity of a sidecar's state directory, and
prints one JSON object at its end. The HTTP/2 frames (RFC 9113) are written by hand; what they answer is
only looked at as far as flow control and the ends of streams go.
"""

import json
import os
import select
import socket
import ssl
import struct
import sys
import time

DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
APPLY = "/weft.config.v1.Operator/Apply"
SUBSCRIBE = "/weft.config.v1.Discovery/Subscribe"
LARGE = 17 * 1024 * 1024 - 1


def field(number, value):
    """A protobuf field that holds bytes or a number."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value):
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def message(content):
    return b"\0" + struct.pack(">I", len(content)) + content


def hello(instance):
    return message(field(1, field(1, b"0.1.0") + field(2, instance.encode())))


def report(service=None, leaving=False):
    content = b""
    if service:
        content += field(1, field(1, service.encode()) + field(2, 80) + field(3, 1))
    if leaving:
        content += field(2, 1)
    return message(field(2, content))


def head(path):
    """A field section of literals without indexing (RFC 7541 section 6.2.2)."""
    fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "config.weft"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]
    text = lambda value: bytes([len(value)]) + value.encode()
    return b"".join(b"\0" + text(name) + text(value) for name, value in fields)


class Connection:
    """An HTTP/2 connection; `streams` has those that are open, with the window that each has left."""

    def __init__(self, address, state, window=65_535):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        context.load_cert_chain(os.path.join(state, "identity.crt"), os.path.join(state, "identity.key"))
        host, port = address.rsplit(":", 1)
        plain = socket.create_connection((host, int(port)), timeout=10)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = context.wrap_socket(plain)
        self.streams, self.next, self.room, self.initial = {}, 1, 65_535, 65_535
        self.ended, self.bytes_in, self.closed, self.buffer = 0, 0, False, b""
        settings = struct.pack(">HI", 4, window)
        self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + self.frame(SETTINGS, 0, 0, settings))

    @staticmethod
    def frame(kind, flags, stream, payload=b""):
        return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload

    def send(self, data):
        try:
            self.socket.settimeout(10)
            self.socket.sendall(data)
        except (OSError, ssl.SSLError):
            self.closed = True

    def open(self, path):
        stream, self.next = self.next, self.next + 2
        self.streams[stream] = self.initial
        self.send(self.frame(HEADERS, END_HEADERS, stream, head(path)))
        return stream

    def data(self, stream, content, end=False):
        self.room -= len(content)
        self.streams[stream] -= len(content)
        self.send(self.frame(DATA, END_STREAM if end else 0, stream, content))

    def listen(self, seconds):
        """Takes what comes within that time."""
        deadline = time.monotonic() + seconds
        while not self.closed:
            left = deadline - time.monotonic()
            if not self.socket.pending() and not select.select([self.socket], [], [], max(left, 0))[0]:
                return
            try:
                self.socket.settimeout(1)
                got = self.socket.recv(65_536)
            except (OSError, ssl.SSLError):
                got = b""
            if not got:
                self.closed = True
                return
            self.buffer += got
            while len(self.buffer) >= 9:
                length = int.from_bytes(self.buffer[:3], "big")
                if len(self.buffer) < 9 + length:
                    break
                kind, flags, stream = struct.unpack(">BBI", self.buffer[3:9])
                payload, self.buffer = self.buffer[9 : 9 + length], self.buffer[9 + length :]
                self.take(kind, flags, stream, payload)
            if left <= 0:
                return

    def take(self, kind, flags, stream, payload):
        if kind == SETTINGS and not flags & ACK:
            for at in range(0, len(payload), 6):
                setting, value = struct.unpack(">HI", payload[at : at + 6])
                if setting == 4:
                    for one in self.streams:
                        self.streams[one] += value - self.initial
                    self.initial = value
            self.send(self.frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            self.send(self.frame(PING, ACK, 0, payload))
        elif kind == WINDOW:
            more = struct.unpack(">I", payload)[0]
            if stream == 0:
                self.room += more
            elif stream in self.streams:
                self.streams[stream] += more
        elif kind == GOAWAY:
            self.closed = True
        elif kind == DATA:
            self.bytes_in += len(payload)
        if kind == RESET or kind in (DATA, HEADERS) and flags & END_STREAM:
            if self.streams.pop(stream, None) is not None:
                self.ended += 1


def applies(address, state, seconds):
    """Two connections full of calls of Apply, each with as much of 17 MiB as the service takes."""
    deadline = time.monotonic() + seconds
    connections, sent, ended = [], 0, 0
    piece = bytes(16_384)
    while time.monotonic() < deadline:
        ended += sum(one.ended for one in connections if one.closed)
        connections = [one for one in connections if not one.closed]
        while len(connections) < 2:
            connections.append(Connection(address, state))
        for one in connections:
            one.listen(0.005)
            while len(one.streams) < 32 and not one.closed and one.room > 5:
                stream = one.open(APPLY)
                one.data(stream, b"\0" + struct.pack(">I", LARGE))
            for stream, room in list(one.streams.items()):
                if min(room, one.room) >= len(piece) and not one.closed:
                    one.data(stream, piece)
                    sent += len(piece)
    return {"sent": sent, "ended": ended + sum(one.ended for one in connections)}


def subscriptions(address, state, seconds):
    """Four hundred subscriptions of one instance that take nothing of what they are sent."""
    connections = []
    for _ in range(50):
        one = Connection(address, state, window=0)
        connections.append(one)
        for _ in range(8):
            stream = one.open(SUBSCRIBE)
            one.data(stream, hello("one") + report())
        one.listen(0.005)
    print("subscribed", flush=True)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for one in connections:
            one.listen(0.002)
    return {"ended": sum(one.ended for one in connections), "closed": sum(one.closed for one in connections)}


def registrations(address, state, seconds):
    """What a sidecar should do: says hello, registers, and gets its table; how long that took, each time."""
    took = []
    for n in range(20):
        begun = time.monotonic()
        one = Connection(address, state)
        stream = one.open(SUBSCRIBE)
        one.data(stream, hello(f"good{n}") + report("good.shop"))
        # More than what is said of the registration: the table.
        while one.bytes_in < 150 and not one.closed and time.monotonic() - begun < seconds:
            one.listen(0.005)
        took.append(time.monotonic() - begun if one.bytes_in >= 150 else seconds)
        one.data(stream, report(leaving=True), end=True)
        one.listen(0.05)
    return {"took": took}


def main():
    scenario, address, state, seconds = sys.argv[1:]
    scenarios = {"applies": applies, "subscriptions": subscriptions, "registrations": registrations}
    print(json.dumps(scenarios[scenario](address, state, float(seconds))), flush=True)


if __name__ == "__main__":
    main()
