"""An HTTP/3 client with a right identity and bad intentions. Prints one JSON object.

The frames are written by hand on streams of aioquic's QUIC layer."""

import asyncio
import contextlib
import json
import time

import pylsqpack
from aioquic.buffer import encode_uint_var
from aioquic.h3.connection import encode_frame

from mesh_peer import Client, arguments, head, open_connection

HUGE = 1 << 40
GREASE = 0x21 + 0x1F * 7


def varint(value):
    return encode_uint_var(value)


def qpack(fields):
    """A field section by the static table only."""
    encoder = pylsqpack.Encoder()
    return encoder.encode(0, fields)[1]


class Raw(Client):
    """A client whose streams take raw bytes."""

    def open(self, unidirectional=False):
        stream = self._quic.get_next_available_stream_id(is_unidirectional=unidirectional)
        self.exchanges[stream]
        return stream

    def write(self, stream, data, end=False):
        """What is written after the peer said stop goes nowhere, as in any client."""
        exchange = self.exchanges[stream]
        if exchange.stopped is None and not self.terminated:
            self._quic.send_stream_data(stream, data, end)
            self.transmit()

    def accepted(self, stream):
        """Bytes of the stream that the peer acknowledged or at least let us send."""
        found = self._quic._streams.get(stream)
        return found.sender.highest_offset if found else 0

    async def flood(self, stream, total, piece):
        """Writes up to `total` bytes as far as the peer lets us; stops when it refuses."""
        sent = 0
        exchange = self.exchanges[stream]
        idle = 0
        while sent < total and not exchange.over() and exchange.stopped is None and not self.terminated:
            # Not more than a window ahead, so that what counts as sent was taken.
            if sent - self.accepted(stream) > 1 << 20:
                idle += 1
                if idle > 200:
                    break
                await asyncio.sleep(0.01)
                continue
            idle = 0
            self.write(stream, piece)
            sent += len(piece)
            await asyncio.sleep(0)
        return sent

    def verdict(self, stream):
        exchange = self.exchanges[stream]
        return {
            "status": exchange.status,
            "reset": exchange.reset,
            "stopped": exchange.stopped,
            "closed": self.terminated and self.terminated.error_code,
            "taken": self.accepted(stream),
        }


def refused(verdict):
    return any(verdict[key] is not None for key in ("status", "reset", "stopped", "closed"))


async def giant_headers(options):
    """One HEADERS frame of 2^40 bytes, then a hundred at once, then one byte at a time."""
    piece = b"\0" * 65536
    result = {}
    async with open_connection(options, Raw) as client:
        stream = client.open()
        client.write(stream, varint(1) + varint(HUGE))
        await client.flood(stream, 500 << 20, piece)
        await client.until(stream, lambda e: e.over() or e.headers or e.stopped is not None, 12)
        result["one"] = client.verdict(stream)
    async with open_connection(options, Raw) as client:
        streams = [client.open() for _ in range(100)]
        for stream in streams:
            client.write(stream, varint(1) + varint(HUGE) + piece)
        for stream in streams:
            await client.until(stream, lambda e: e.over() or e.headers or e.stopped is not None, 12)
        verdicts = [client.verdict(stream) for stream in streams]
        result["hundred"] = sum(refused(verdict) for verdict in verdicts)
    async with open_connection(options, Raw) as client:
        stream = client.open()
        client.write(stream, varint(1) + varint(HUGE))
        for _ in range(200):
            if client.exchanges[stream].stopped is not None or client.terminated:
                break
            client.write(stream, b"\0")
            await asyncio.sleep(0.001)
        await client.until(stream, lambda e: e.over() or e.headers or e.stopped is not None, 15)
        result["trickled"] = client.verdict(stream)
    return result


async def unknown_frames(options):
    """Frames and streams of types that nobody defined."""
    piece = b"\0" * 65536
    result = {}
    async with open_connection(options, Raw) as client:
        stream = client.open()
        client.write(stream, varint(GREASE) + varint(HUGE))
        await client.flood(stream, 16 << 20, piece)
        result["request"] = client.verdict(stream)
    async with open_connection(options, Raw) as client:
        control = client.h3._local_control_stream_id
        client.write(control, varint(GREASE) + varint(HUGE))
        await client.flood(control, 16 << 20, piece)
        result["control"] = client.verdict(control)
    async with open_connection(options, Raw) as client:
        stream = client.open(unidirectional=True)
        client.write(stream, varint(GREASE))
        await client.flood(stream, 16 << 20, piece)
        result["unidirectional"] = client.verdict(stream)
    async with open_connection(options, Raw) as client:
        stream = client.open()
        empty = (varint(GREASE) + varint(0)) * 10_000
        await client.flood(stream, len(empty) * 100, empty)
        result["empty"] = client.verdict(stream)
    async with open_connection(options, Raw) as client:
        for _ in range(10_000):
            client.write(client.open(unidirectional=True), varint(GREASE), end=True)
            if client.terminated:
                break
            await asyncio.sleep(0)
        await asyncio.sleep(1)
        result["streams"] = {"closed": client.terminated and client.terminated.error_code}
    return result


async def exhaustion(options):
    """All streams that the peer grants: half of them with a part of a head, half with nothing."""
    async with open_connection(options, Raw) as client:
        whole = encode_frame(1, qpack(head(options)))
        streams = []
        for n in range(2000):
            stream = client.open()
            client.write(stream, whole[: len(whole) // 2] if n % 2 else whole[:1])
            streams.append(stream)
        loop = asyncio.get_running_loop()
        begin = loop.time()
        print("open", flush=True)
        ended = 0
        while loop.time() - begin < 25 and not client.terminated:
            states = [client.exchanges[stream] for stream in streams]
            ended = sum(e.over() or e.stopped is not None or e.headers is not None for e in states)
            if ended >= 200:
                break
            await asyncio.sleep(0.1)
        return {
            "ended": ended,
            "after": loop.time() - begin,
            "closed": client.terminated and client.terminated.error_code,
        }


class Stopped(Raw):
    """Grants no credit for answers, ever."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._quic._local_max_stream_data_bidi_local = 1


async def stopped_reader(options):
    """A hundred downloads of which not even the head can be sent back."""
    async with open_connection(options, Stopped) as client:
        client._quic._write_stream_limits = lambda *args, **kwargs: None
        for _ in range(100):
            client.request(head(options), end=True)
            await asyncio.sleep(0)
        print("stopped", flush=True)
        await asyncio.sleep(8)
        return {"closed": client.terminated and client.terminated.error_code}


async def unacknowledged(options):
    """Twenty connections that ask for much, take all of it, and acknowledge none."""
    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(open_connection(options, Client)) for _ in range(20)
        ]
        for client in clients:
            client._quic._write_ack_frame = lambda *args, **kwargs: None
            for _ in range(3):
                client.request(head(options), end=True)
        begin = time.monotonic()
        print("asked", flush=True)
        # Packets all the while, so that no idle timeout ends it.
        while time.monotonic() - begin < 12 and not all(client.terminated for client in clients):
            for client in clients:
                if not client.terminated:
                    client._quic.send_ping(uid=0)
                    client.transmit()
            await asyncio.sleep(0.5)
        taken = sum(len(e.body) for client in clients for e in client.exchanges.values())
        closed = [client.terminated.error_code for client in clients if client.terminated]
        return {"taken": taken, "closed": closed, "seconds": time.monotonic() - begin}


async def many(options, open_stream):
    """Sixteen connections with eight streams each, and 2 MiB on each stream as far as the peer lets them."""
    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(open_connection(options, Raw)) for _ in range(16)
        ]
        for client in clients:
            for _ in range(8):
                open_stream(client)
            client.transmit()
            await asyncio.sleep(0)
        await asyncio.sleep(8)
        return {"closed": [c.terminated.error_code for c in clients if c.terminated]}


async def without_beginnings(options):
    """Streams whose first byte never comes, so that nothing of them can be read."""

    def open_stream(client):
        stream = client.open()
        client._quic.send_stream_data(stream, b"\0" * (2 << 20))
        client._quic._streams[stream].sender._pending.subtract(0, 1)

    return await many(options, open_stream)


async def unread(options):
    """Tunnels to an application that reads nothing."""
    connect = qpack([(b":method", b"CONNECT"), (b":authority", b"store.shop:7000")])
    size = 2 << 20
    data = encode_frame(1, connect) + varint(0) + varint(size) + b"\0" * size

    def open_stream(client):
        client._quic.send_stream_data(client.open(), data)

    return await many(options, open_stream)


async def bad_connect(options):
    """CONNECT in every form that RFC 9114 and RFC 9220 do not allow, or that weft does not serve."""
    forms = {
        "path": [(b":method", b"CONNECT"), (b":authority", b"store.shop:7000"), (b":path", b"/")],
        "scheme": [
            (b":method", b"CONNECT"),
            (b":scheme", b"https"),
            (b":authority", b"store.shop:7000"),
        ],
        "no authority": [(b":method", b"CONNECT")],
        "empty authority": [(b":method", b"CONNECT"), (b":authority", b"")],
        "no port": [(b":method", b"CONNECT"), (b":authority", b"store.shop")],
        "bad port": [(b":method", b"CONNECT"), (b":authority", b"store.shop:99999")],
        "user": [(b":method", b"CONNECT"), (b":authority", b"a@store.shop:7000")],
        "address": [(b":method", b"CONNECT"), (b":authority", b"169.254.169.254:80")],
        "loopback": [(b":method", b"CONNECT"), (b":authority", b"127.0.0.1:22")],
        "ipv6 zone": [(b":method", b"CONNECT"), (b":authority", b"[fe80::1%25lo]:80")],
        "unknown protocol": [
            (b":method", b"CONNECT"),
            (b":protocol", b"teleport"),
            (b":scheme", b"https"),
            (b":authority", b"store.shop:7000"),
            (b":path", b"/"),
        ],
        "udp": [
            (b":method", b"CONNECT"),
            (b":protocol", b"connect-udp"),
            (b":scheme", b"https"),
            (b":authority", b"store.shop:7000"),
            (b":path", b"/.well-known/masque/udp/%2e%2e%2fstore/7000/"),
            (b"capsule-protocol", b"?1"),
        ],
        "length": [
            (b":method", b"CONNECT"),
            (b":authority", b"elsewhere.shop:7000"),
            (b"content-length", b"5"),
        ],
    }
    result = {}
    for name, fields in forms.items():
        async with open_connection(options, Raw) as client:
            stream = client.open()
            client.write(stream, encode_frame(1, qpack(fields)))
            client.write(stream, encode_frame(0, b"SECRET"))
            await client.until(stream, lambda e: e.over() or e.headers is not None, 5)
            result[name] = client.verdict(stream)
    return result


async def malformed(options):
    """Requests that RFC 9114 section 4.1.2 calls malformed, among others."""
    plain = head(options, "POST")
    forms = {
        "upper case": plain + [(b"X-Upper", b"a")],
        "connection": plain + [(b"connection", b"close")],
        "transfer-encoding": plain + [(b"transfer-encoding", b"chunked")],
        "te": plain + [(b"te", b"gzip")],
        "newline": plain + [(b"x-a", b"a\r\nevil: 1")],
        "nul": plain + [(b"x-a", b"a\0b")],
        "status": plain + [(b":status", b"200")],
        "late pseudo": plain[:2] + [(b"x-a", b"a")] + plain[2:],
        "twice": plain + [(b":path", b"/other")],
        "no method": plain[1:],
        "no path": plain[:3],
        "empty path": plain[:3] + [(b":path", b"")],
        "other host": plain + [(b"host", b"evil.example")],
        "space in method": [(b":method", b"GET /evil HTTP/1.1\r\nx:")] + plain[1:],
        "space in path": plain[:3] + [(b":path", b"/a b")],
        "length too long": plain + [(b"content-length", b"9")],
        "length of none": plain + [(b"content-length", b"0")],
        "length too short": plain + [(b"content-length", b"1")],
        "two lengths": plain + [(b"content-length", b"3"), (b"content-length", b"4")],
    }
    result = {}
    for name, fields in forms.items():
        async with open_connection(options, Raw) as client:
            stream = client.open()
            data = encode_frame(1, qpack(fields)) + encode_frame(0, b"abc")
            client.write(stream, data, end=True)
            await client.until(stream, lambda e: e.over() or e.headers is not None, 5)
            result[name] = client.verdict(stream)
    return result


async def cancel(options):
    """Two hundred exchanges given up in the middle: of the upload, of the download, of both."""
    async with open_connection(options, Raw) as client:
        for n in range(200):
            stream = client.open()
            fields = head(options, "POST", None, (b"content-length", b"1000000"))
            client.write(stream, encode_frame(1, qpack(fields)) + encode_frame(0, b"x" * (n * 50)))
            await asyncio.sleep(0.005)
            if n % 3 != 0:
                client._quic.reset_stream(stream, 0x10C)
            if n % 3 != 1:
                client._quic.stop_stream(stream, 0x10C)
            client.transmit()
        await asyncio.sleep(0.5)
        # What the connection is still good for.
        after = client.request(head(options), end=True)
        exchange = await client.finish(after, 10)
        return {
            "status": exchange.status,
            "cancelled": n + 1,
            "closed": client.terminated and client.terminated.error_code,
        }


async def impatient(options):
    """Six hundred requests with a PRIORITY_UPDATE each (RFC 9218), given up soon after; no hostility in it."""
    async with open_connection(options, Raw) as client:
        control = client.h3._local_control_stream_id
        given_up = 0
        while given_up < 600 and not client.terminated:
            streams = []
            for _ in range(20):
                stream = client.open()
                client.write(control, encode_frame(0xF0700, varint(stream) + b"u=1"))
                fields = head(options, "POST", None, (b"content-length", b"5"))
                client.write(stream, encode_frame(1, qpack(fields)))
                streams.append(stream)
            await asyncio.sleep(0.04)
            for stream in streams:
                client._quic.reset_stream(stream, 0x10C)
                client._quic.stop_stream(stream, 0x10C)
            client.transmit()
            given_up += len(streams)
        exchange = await client.finish(client.request(head(options), end=True), 10)
        return {
            "status": exchange.status,
            "given_up": given_up,
            "closed": client.terminated and client.terminated.error_code,
        }


async def early_answer(options):
    """A request whose answer does not wait for its body."""
    async with open_connection(options, Raw) as client:
        stream = client.open()
        fields = head(options, "POST", "/early", (b"content-length", b"1000000"))
        client.write(stream, encode_frame(1, qpack(fields)) + varint(0) + varint(1000000) + b"x" * 1000)
        await client.until(stream, lambda e: e.over() and e.stopped is not None, 10)
        return client.verdict(stream)


SCENARIOS = {
    "giant-headers": giant_headers,
    "unknown-frames": unknown_frames,
    "exhaustion": exhaustion,
    "stopped-reader": stopped_reader,
    "unacknowledged": unacknowledged,
    "without-beginnings": without_beginnings,
    "unread": unread,
    "bad-connect": bad_connect,
    "malformed": malformed,
    "cancel": cancel,
    "impatient": impatient,
    "early-answer": early_answer,
}

if __name__ == "__main__":
    options = arguments().parse_args()
    print(json.dumps(asyncio.run(SCENARIOS[options.scenario](options))))
