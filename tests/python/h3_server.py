"""An HTTP/3 server at the address where a sidecar says it is: `h3_server.py serve IP:PORT
--identity DIR`. It asks for a client certificate as the mesh does. Prints one JSON line per event.

It answers GET with a description, POST with the body, tunnels with an echo; a request of /trailers
with trailers, /goaway with GOAWAY, /hang with a head and no end."""

import asyncio
import json

from aioquic.asyncio import QuicConnectionProtocol, serve
from aioquic.buffer import encode_uint_var
from aioquic.h3.connection import H3Connection, encode_frame
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted, StreamDataReceived
from cryptography import x509

from mesh_peer import GOAWAY, arguments, configuration, text

connections = 0


def say(event, **details):
    print(json.dumps({"event": event, **details}), flush=True)


class Server(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        global connections
        connections += 1
        self.number = connections
        self.h3 = None
        self.requests = {}
        self.heard = set()
        self.last = 0

    def quic_event_received(self, event):
        if isinstance(event, HandshakeCompleted):
            say("handshake", connection=self.number, peer=self.peer())
        elif isinstance(event, ConnectionTerminated):
            say("terminated", connection=self.number, code=event.error_code, reason=event.reason_phrase)
        elif isinstance(event, StreamDataReceived) and event.stream_id % 4 == 0:
            if event.stream_id not in self.heard:
                self.heard.add(event.stream_id)
                say("bytes", connection=self.number, stream=event.stream_id)
        if self.h3 is None:
            self.h3 = H3Connection(self._quic)
        for got in self.h3.handle_event(event):
            self.http_event(got)
        self.transmit()

    def peer(self):
        certificate = self._quic.tls._peer_certificate
        if certificate is None:
            return None
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        return names.value.get_values_for_type(x509.UniformResourceIdentifier)[0]

    def http_event(self, event):
        stream = event.stream_id
        if isinstance(event, HeadersReceived):
            if stream in self.requests:
                self.requests[stream]["trailers"] = text(event.headers)
            else:
                self.begin(stream, event.headers)
        request = self.requests.get(stream)
        if request is None:
            return
        if isinstance(event, DataReceived):
            if request["method"] == b"CONNECT":
                self.h3.send_data(stream, event.data, event.stream_ended)
                return
            request["body"] += event.data
        if event.stream_ended and request["method"] != b"CONNECT":
            self.answer(stream, request)

    def begin(self, stream, headers):
        fields = dict(headers)
        self.last = max(self.last, stream)
        self.requests[stream] = {
            "method": fields[b":method"],
            "path": fields.get(b":path", b""),
            "body": bytearray(),
            "trailers": None,
            "headers": headers,
        }
        say("request", connection=self.number, headers=text(headers))
        if fields[b":method"] == b"CONNECT":
            self.h3.send_headers(stream, [(b":status", b"200")])

    def answer(self, stream, request):
        path = request["path"]
        number = (b"x-connection", str(self.number).encode())
        head = [(b":status", b"200"), number]
        if path == b"/hang":
            self.h3.send_headers(stream, head)
            self.h3.send_data(stream, b"begun", False)
            return
        if path == b"/trailers":
            self.h3.send_headers(stream, head + [(b"trailer", b"x-sum")])
            self.h3.send_data(stream, b"ok", False)
            seen = dict(map(tuple, request["trailers"] or [])).get("x-sum", "none")
            self.h3.send_headers(stream, [(b"x-sum", seen.encode())], True)
            return
        if path == b"/interim":
            self.h3.send_headers(stream, [(b":status", b"103"), (b"link", b"</a>")])
        body = bytes(request["body"]) or b"from aioquic"
        self.h3.send_headers(stream, head + [(b"content-length", str(len(body)).encode())])
        self.h3.send_data(stream, body, True)
        if path == b"/goaway":
            control = self.h3._local_control_stream_id
            next_stream = encode_uint_var(self.last + 4)
            self._quic.send_stream_data(control, encode_frame(GOAWAY, next_stream))


def ask_for_certificates():
    """aioquic can ask a client for its certificate, but has no setting for it."""
    initialize = QuicConnection._initialize

    def asking(self, peer_cid):
        initialize(self, peer_cid)
        if not self._is_client:
            self.tls._request_client_certificate = True

    QuicConnection._initialize = asking


async def main(options):
    host, port = options.address.rsplit(":", 1)
    ask_for_certificates()
    await serve(
        host,
        int(port),
        configuration=configuration(options.identity, False),
        create_protocol=Server,
    )
    say("serving")
    await asyncio.Future()


if __name__ == "__main__":
    asyncio.run(main(arguments().parse_args()))
