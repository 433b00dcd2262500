"""An ASGI application behind hypercorn, over HTTP/1.1 and HTTP/2 with prior knowledge. It answers with the method and
the content that it read, in the way that the path names: /sized, /streamed, /no-content."""

import asyncio
import sys

from hypercorn.asyncio import serve
from hypercorn.config import Config


async def application(scope, receive, send):
    if scope["type"] != "http":
        return
    content = b""
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            return
        content += event.get("body", b"")
        if not event.get("more_body", False):
            break
    answer = scope["method"].encode() + b" " + content
    path = scope["path"]
    headers = [(b"content-length", str(len(answer)).encode())] if path == "/sized" else []
    status = 204 if path == "/no-content" else 200
    await send({"type": "http.response.start", "status": status, "headers": headers})
    pieces = [] if status == 204 or scope["method"] == "HEAD" else [answer[:2], answer[2:]]
    for piece in pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


config = Config()
config.bind = [sys.argv[1]]
asyncio.run(serve(application, config))
