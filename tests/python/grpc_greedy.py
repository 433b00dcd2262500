"""gRPC where one caller takes what it can.

Usage:
  grpc_greedy.py serve ADDRESS       an application that allows 100 streams on a connection
  grpc_greedy.py hold ADDRESS COUNT  keeps COUNT calls open; prints "holding" once no more of them begin
  grpc_greedy.py unread ADDRESS COUNT  the same, with large answers that it does not read
  grpc_greedy.py ask ADDRESS COUNT   makes COUNT calls one after the other; prints how many were answered in a second"""

import asyncio
import sys

import grpc

PIECE = b"x" * 65536


async def hold(requests, context):
    yield b"begun"
    await asyncio.sleep(60)


async def large(request, context):
    yield b"begun"
    for _ in range(400):
        yield PIECE


async def echo(request, context):
    return request


class Application(grpc.GenericRpcHandler):
    def service(self, details):
        return {
            "/a.B/Hold": grpc.stream_stream_rpc_method_handler(hold),
            "/a.B/Large": grpc.unary_stream_rpc_method_handler(large),
            "/a.B/Echo": grpc.unary_unary_rpc_method_handler(echo),
        }.get(details.method)


async def serve(address):
    server = grpc.aio.server(
        handlers=[Application()], options=[("grpc.max_concurrent_streams", 100)]
    )
    server.add_insecure_port(address)
    await server.start()
    print("serving", flush=True)
    await server.wait_for_termination()


def channel(address, number):
    """Each has a connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1), ("number", number)]
    return grpc.aio.insecure_channel(address, options=options)


async def keep(address, count, begin):
    channels = [channel(address, number) for number in range(8)]
    calls = [begin(channels[number % len(channels)]) for number in range(count)]
    begun = [asyncio.create_task(call.read()) for call in calls]
    while True:
        done, _ = await asyncio.wait(begun, timeout=1, return_when=asyncio.FIRST_COMPLETED)
        begun = [one for one in begun if one not in done]
        if not done or not begun:
            break
    print("holding", flush=True)
    await asyncio.sleep(60)


async def ask(address, count):
    answered = 0
    for number in range(count):
        async with channel(address, number) as one:
            try:
                answered += await one.unary_unary("/a.B/Echo")(b"hello", timeout=1) == b"hello"
            except grpc.aio.AioRpcError as error:
                print(error.code(), error.details(), file=sys.stderr)
    print(answered)


if __name__ == "__main__":
    mode, address, *rest = sys.argv[1:]
    if mode == "serve":
        asyncio.run(serve(address))
    elif mode == "hold":
        asyncio.run(keep(address, int(rest[0]), lambda one: one.stream_stream("/a.B/Hold")()))
    elif mode == "unread":
        asyncio.run(keep(address, int(rest[0]), lambda one: one.unary_stream("/a.B/Large")(b"")))
    else:
        asyncio.run(ask(address, int(rest[0])))
