"""What the aioquic scripts share: identities from a sidecar's state directory, and a connection
that keeps what it saw. aioquic knows nothing of weft, so what works here works for any HTTP/3."""

import argparse
import asyncio
import os
import ssl
from collections import defaultdict
from dataclasses import dataclass, field

from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.buffer import Buffer
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import (
    ConnectionTerminated,
    HandshakeCompleted,
    StopSendingReceived,
    StreamDataReceived,
    StreamReset,
)

GOAWAY = 0x7


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("scenario")
    parser.add_argument("address", help="IP:PORT")
    parser.add_argument("--identity", help="directory with identity.crt and identity.key")
    parser.add_argument("--authority", default="orders.shop")
    parser.add_argument("--path", default="/")
    parser.add_argument("--service", help="weft-service")
    parser.add_argument("--method", default="GET")
    parser.add_argument("--field", action="append", default=[], help="NAME=VALUE, sent as it is")
    parser.add_argument("--trailer", action="append", default=[], help="NAME=VALUE, sent as it is")
    return parser


def configuration(identity, is_client):
    made = QuicConfiguration(
        is_client=is_client,
        alpn_protocols=H3_ALPN,
        max_data=64 << 20,
        max_stream_data=16 << 20,
        idle_timeout=30,
        # What aioquic thinks of our names is not the subject; the tests check the certificate.
        verify_mode=ssl.CERT_NONE,
    )
    if identity:
        made.load_cert_chain(
            os.path.join(identity, "identity.crt"), os.path.join(identity, "identity.key")
        )
    return made


@dataclass
class Exchange:
    """One stream, as the client saw it."""

    headers: list = None
    interim: list = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    trailers: list = None
    reset: int = None
    stopped: int = None
    ended: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def status(self):
        return int(dict(self.headers)[b":status"]) if self.headers else None

    def over(self):
        return self.ended or self.reset is not None


class Client(QuicConnectionProtocol):
    """A client connection. `h3` is the HTTP/3 layer; raw scenarios use `_quic` beside it."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.h3 = None
        self.exchanges = defaultdict(Exchange)
        self.terminated = None
        self.handshaken = False
        self.goaway = None
        self.control = b""

    def quic_event_received(self, event):
        if isinstance(event, HandshakeCompleted):
            self.handshaken = True
        elif isinstance(event, ConnectionTerminated):
            self.terminated = event
            for exchange in self.exchanges.values():
                exchange.changed.set()
        elif isinstance(event, StreamReset):
            self.exchanges[event.stream_id].reset = event.error_code
            self.exchanges[event.stream_id].changed.set()
        elif isinstance(event, StopSendingReceived):
            self.exchanges[event.stream_id].stopped = event.error_code
            self.exchanges[event.stream_id].changed.set()
        elif isinstance(event, StreamDataReceived) and event.stream_id % 4 == 3:
            self._look_for_goaway(event)
        if self.h3 is None:
            self.h3 = H3Connection(self._quic)
        for got in self.h3.handle_event(event):
            self._http_event(got)

    def _http_event(self, event):
        exchange = self.exchanges[event.stream_id]
        if isinstance(event, HeadersReceived):
            headers = list(event.headers)
            if exchange.headers is not None:
                exchange.trailers = headers
            elif dict(headers)[b":status"].startswith(b"1"):
                exchange.interim.append(headers)
            else:
                exchange.headers = headers
        elif isinstance(event, DataReceived):
            exchange.body += event.data
        if getattr(event, "stream_ended", False):
            exchange.ended = True
        exchange.changed.set()

    def _look_for_goaway(self, event):
        """aioquic reads GOAWAY and says nothing of it. The first unidirectional stream is control."""
        if event.stream_id != 3:
            return
        self.control += event.data
        buffer = Buffer(data=self.control)
        try:
            buffer.pull_uint_var()
            while not buffer.eof():
                kind, length = buffer.pull_uint_var(), buffer.pull_uint_var()
                payload = buffer.pull_bytes(length)
                if kind == GOAWAY:
                    self.goaway = Buffer(data=payload).pull_uint_var()
        except Exception:  # not all of it is there yet
            pass

    def request(self, headers, end=False):
        """Sends a head, gives the stream's id."""
        stream = self._quic.get_next_available_stream_id()
        self.exchanges[stream]
        self.h3.send_headers(stream, headers, end)
        self.transmit()
        return stream

    async def until(self, stream, holds, patience=15):
        """Waits until `holds(exchange)`, the connection's end, or the end of patience."""
        exchange = self.exchanges[stream]
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience
        while not holds(exchange) and self.terminated is None:
            exchange.changed.clear()
            try:
                await asyncio.wait_for(exchange.changed.wait(), deadline - loop.time())
            except asyncio.TimeoutError:
                break
        return exchange

    async def finish(self, stream, patience=30):
        return await self.until(stream, Exchange.over, patience)

    async def send_body(self, stream, data, end=True):
        """In pieces, so that the peer's windows are kept and answers are seen meanwhile."""
        for at in range(0, len(data), 65536):
            piece = data[at : at + 65536]
            self.h3.send_data(stream, piece, end and at + 65536 >= len(data))
            self.transmit()
            await asyncio.sleep(0)

    def ending(self):
        """How the connection ended, for JSON."""
        end = self.terminated
        return end and {"code": end.error_code, "reason": end.reason_phrase, "frame": end.frame_type}


def open_connection(options, protocol=Client, wait=True):
    host, port = options.address.rsplit(":", 1)
    return connect(
        host,
        int(port),
        configuration=configuration(options.identity, True),
        create_protocol=protocol,
        wait_connected=wait,
    )


def head(options, method="GET", path=None, *extra):
    """The head of a request."""
    fields = [
        (b":method", method.encode()),
        (b":scheme", b"https"),
        (b":authority", options.authority.encode()),
        (b":path", (path or options.path).encode()),
    ]
    if options.service:
        fields.append((b"weft-service", options.service.encode()))
    return fields + list(extra)


def text(fields):
    """Header fields for JSON."""
    return fields and [[name.decode(), value.decode("latin-1")] for name, value in fields]
