"""Clients of the CA or the config service that take places and give nothing. Standard library only.

    hostile_ca.py attack ADDRESS [--silent N] [--rate N] [--tls N] [--idle N] [--dribble N] [--tokens N]

holds N connections of each kind, and opens --rate new silent ones a second, until it is killed. A connection
that the server ends is opened again at once. Says "attacking" when all are open, and "tokens done" when --tokens
calls with unknown join tokens were answered.

    hostile_ca.py hold ADDRESS --certificate FILE --key FILE

opens one HTTP/2 connection with a client certificate, answers pings, and prints as JSON for how long the server
kept it.
"""

import argparse
import collections
import json
import os
import resource
import select
import socket
import ssl
import struct
import threading
import time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING = 0x0, 0x1, 0x4, 0x6
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1


def frame(kind, flags, stream, payload=b""):
    return struct.pack("!I", len(payload))[1:] + bytes([kind, flags]) + struct.pack("!I", stream) + payload


def literal(index, value, name=b""):
    """A header field without indexing (RFC 7541 section 6.2.2)."""
    head = bytes([index]) if index < 15 else bytes([15, index - 15])
    if not index:
        head += bytes([len(name)]) + name
    return head + bytes([len(value)]) + value


def head():
    fields = bytes([0x83, 0x87])  # :method POST, :scheme https
    fields += literal(4, b"/weft.ca.v1.CertificateAuthority/Sign")
    fields += literal(1, b"ca.weft") + literal(31, b"application/grpc") + literal(0, b"trailers", b"te")
    return fields


def message(secret):
    """A SignRequest with some bytes for a CSR."""
    body = b"\x0a\x04csr!" + bytes([0x12, len(secret)]) + secret
    return b"\0" + struct.pack("!I", len(body)) + body


def context(certificate=None, key=None):
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    made.set_alpn_protocols(["h2"])
    if certificate:
        made.load_cert_chain(certificate, key)
    return made


class Client:
    def __init__(self, address, tls):
        stream = socket.create_connection(address, timeout=10)
        self.stream = tls.wrap_socket(stream)
        self.buffer = b""

    def fileno(self):
        return self.stream.fileno()

    def close(self):
        self.stream.close()

    def start(self):
        self.stream.sendall(PREFACE + frame(SETTINGS, 0, 0))

    def read_frame(self):
        while len(self.buffer) < 9 or len(self.buffer) < 9 + int.from_bytes(self.buffer[:3], "big"):
            more = self.stream.recv(65536)
            if not more:
                raise ConnectionError("the server ended the connection")
            self.buffer += more
        size = int.from_bytes(self.buffer[:3], "big")
        kind, flags = self.buffer[3], self.buffer[4]
        stream = int.from_bytes(self.buffer[5:9], "big")
        payload, self.buffer = self.buffer[9 : 9 + size], self.buffer[9 + size :]
        if kind in (SETTINGS, PING) and not flags & ACK:
            self.stream.sendall(frame(kind, ACK, 0, payload if kind == PING else b""))
        return kind, flags, stream


def bad_tokens(address, count):
    left = count
    while left:
        try:
            client = Client(address, context())
            client.start()
            for number in range(min(left, 50)):
                stream = 2 * number + 1
                client.stream.sendall(
                    frame(HEADERS, END_HEADERS, stream, head())
                    + frame(DATA, END_STREAM, stream, message(os.urandom(32)))
                )
                answered = False
                while not answered:
                    kind, flags, of = client.read_frame()
                    answered = of == stream and kind == HEADERS and flags & END_STREAM
                left -= 1
            client.close()
        except OSError:
            pass
    print("tokens done", flush=True)


class Kind:
    """Connections of one kind, opened again when the server ends them."""

    def __init__(self, wanted, open_one, stir=None):
        self.wanted, self.open_one, self.stir = wanted, open_one, stir
        self.held = []

    def fill(self):
        while len(self.held) < self.wanted:
            try:
                self.held.append(self.open_one())
            except OSError:
                return

    def look(self):
        kept = []
        ended = poll_ended(self.held)
        for one in self.held:
            if one.fileno() in ended:
                one.close()
                continue
            try:
                if self.stir:
                    self.stir(one)
                kept.append(one)
            except OSError:
                one.close()
        self.held = kept


def poll_ended(held):
    poll = select.poll()
    for one in held:
        poll.register(one.fileno(), select.POLLRDHUP | select.POLLHUP | select.POLLERR)
    return {number for number, _ in poll.poll(0)}


def silent(address):
    stream = socket.socket()
    stream.setblocking(False)
    stream.connect_ex(address)
    return stream


def handshake_only(address, tls):
    return Client(address, tls)


def without_call(address, tls):
    client = Client(address, tls)
    client.start()
    return client


def half_a_call(address, tls):
    client = without_call(address, tls)
    whole = message(os.urandom(32))
    for stream in (1, 3, 5, 7):
        client.stream.sendall(
            frame(HEADERS, END_HEADERS, stream, head()) + frame(DATA, 0, stream, whole[:7])
        )
    client.sent = 7
    client.whole = whole
    return client


def one_byte_more(client):
    if client.sent < len(client.whole) - 1:
        for stream in (1, 3, 5, 7):
            client.stream.sendall(frame(DATA, 0, stream, client.whole[client.sent : client.sent + 1]))
        client.sent += 1


def attack(address, options):
    tls = context()
    kinds = [
        Kind(options.silent, lambda: silent(address)),
        Kind(options.tls, lambda: handshake_only(address, tls)),
        Kind(options.idle, lambda: without_call(address, tls)),
        Kind(options.dribble, lambda: half_a_call(address, tls), one_byte_more),
    ]
    for kind in kinds:
        kind.fill()
    print("attacking", flush=True)
    if options.tokens:
        threading.Thread(target=bad_tokens, args=(address, options.tokens), daemon=True).start()
    newcomers = collections.deque()
    began, opened, looked = time.monotonic(), 0, 0.0
    while True:
        now = time.monotonic()
        while opened < (now - began) * options.rate:
            newcomers.append((now, silent(address)))
            opened += 1
        while newcomers and newcomers[0][0] < now - 2:
            newcomers.popleft()[1].close()
        if now - looked > 0.5:
            looked = now
            for kind in kinds:
                kind.look()
                kind.fill()
        time.sleep(0.005)


def hold(address, options):
    client = Client(address, context(options.certificate, options.key))
    client.stream.settimeout(120)
    began = time.time()
    client.start()
    try:
        while True:
            client.read_frame()
    except OSError as error:
        print(json.dumps({"opened": began, "ended": time.time(), "error": str(error)}))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["attack", "hold"])
    parser.add_argument("address")
    for name in ("silent", "rate", "tls", "idle", "dribble", "tokens"):
        parser.add_argument(f"--{name}", type=int, default=0)
    parser.add_argument("--certificate")
    parser.add_argument("--key")
    options = parser.parse_args()
    host, port = options.address.rsplit(":", 1)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    {"attack": attack, "hold": hold}[options.what]((host, int(port)), options)


main()
