"""A plain HTTP/3 client with (or without) an identity of the mesh. Prints one JSON object.

Scenarios: get, post, trailers, connect, goaway, refused, send."""

import asyncio
import hashlib
import json

from mesh_peer import arguments, head, open_connection, text

SIZE = 10 << 20


async def get(options):
    async with open_connection(options) as client:
        exchange = await client.finish(client.request(head(options), end=True))
        certificate = client._quic.tls._peer_certificate
        from cryptography import x509

        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        return {
            "status": exchange.status,
            "headers": text(exchange.headers),
            "interim": [text(interim) for interim in exchange.interim],
            "body": exchange.body.decode(),
            "peer": names.value.get_values_for_type(x509.UniformResourceIdentifier),
        }


async def post(options):
    """10 MiB to an application that sends them back."""
    sent = bytes(n * 7 & 0xFF for n in range(256)) * (SIZE // 256)
    async with open_connection(options) as client:
        length = (b"content-length", str(SIZE).encode())
        stream = client.request(head(options, "POST", None, length))
        await client.send_body(stream, sent)
        exchange = await client.finish(stream, 60)
        same = hashlib.sha256(sent).digest() == hashlib.sha256(exchange.body).digest()
        return {"status": exchange.status, "length": len(exchange.body), "same": same}


async def trailers(options):
    async with open_connection(options) as client:
        # HTTP/1.1 applications get the trailers that were announced.
        extra = [(b"te", b"trailers"), (b"trailer", b"x-sum")]
        stream = client.request(head(options, "POST", None, *extra))
        client.h3.send_data(stream, b"abc", False)
        client.h3.send_headers(stream, [(b"x-sum", b"294")], True)
        client.transmit()
        exchange = await client.finish(stream)
        return {
            "status": exchange.status,
            "body": exchange.body.decode(),
            "trailers": text(exchange.trailers),
        }


async def tunnel(options):
    """CONNECT to an application that echoes; half-close; then one to a service that is none."""
    async with open_connection(options) as client:
        connect_head = [(b":method", b"CONNECT"), (b":authority", options.authority.encode())]
        stream = client.request(connect_head)
        exchange = await client.until(stream, lambda e: e.headers is not None)
        sent = b"0123456789" * 100_000
        await client.send_body(stream, sent, end=True)
        await client.finish(stream)
        result = {
            "status": exchange.status,
            "same": bytes(exchange.body) == sent,
            "ended": exchange.ended,
        }
        other = client.request([(b":method", b"CONNECT"), (b":authority", b"127.0.0.1:22")])
        refused = await client.until(other, lambda e: e.headers is not None or e.over())
        result["elsewhere"] = refused.status
        return result


async def goaway(options):
    """Starts a slow request, says so, and stays until the server said GOAWAY and closed."""
    async with open_connection(options) as client:
        stream = client.request(head(options), end=True)
        await client.until(stream, lambda e: e.headers is not None)
        print("running", flush=True)
        exchange = await client.finish(stream)
        for _ in range(200):
            if client.terminated:
                break
            await asyncio.sleep(0.1)
        return {
            "status": exchange.status,
            "body": exchange.body.decode(),
            "ended": exchange.ended,
            "goaway": client.goaway,
            "closed": client.ending(),
        }


async def refused(options):
    """Tries a request with whatever identity it has, at once: what comes back, if anything."""
    result = {"status": None, "handshake": False, "closed": None}
    try:
        async with open_connection(options) as client:
            result["handshake"] = client.handshaken
            stream = client.request(head(options, "POST"), end=False)
            await client.send_body(stream, b"SECRET" * 1000)
            exchange = await client.until(stream, lambda e: e.headers is not None or e.over(), 5)
            result["status"] = exchange.status
            result["closed"] = client.ending()
    except ConnectionError:
        result["closed"] = {"code": None}
    return result


async def send(options):
    """One request with the method, fields and trailers that the flags name, whatever they are."""

    def pairs(given):
        return [tuple(part.encode() for part in one.split("=", 1)) for one in given]

    async with open_connection(options) as client:
        extra = pairs(options.field)
        trailers = pairs(options.trailer)
        names = b", ".join(name for name, _ in trailers)
        if names:
            extra += [(b"te", b"trailers"), (b"trailer", names)]
        fields = head(options, options.method, None, *extra)
        stream = client.request(fields, end=not trailers)
        if trailers:
            client.h3.send_data(stream, b"abc", False)
            client.h3.send_headers(stream, trailers, True)
            client.transmit()
        exchange = await client.until(stream, lambda e: e.over(), 5)
        return {"status": exchange.status, "body": exchange.body.decode()}


SCENARIOS = {
    "send": send,
    "get": get,
    "post": post,
    "trailers": trailers,
    "connect": tunnel,
    "goaway": goaway,
    "refused": refused,
}

if __name__ == "__main__":
    options = arguments().parse_args()
    print(json.dumps(asyncio.run(SCENARIOS[options.scenario](options))))
