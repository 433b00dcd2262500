"""A gRPC server and the client that tries every kind of call, with bytes as messages.

`grpc_peer.py serve HOST:PORT [CERTIFICATE KEY]` serves until it is killed, over TLS with a certificate;
`grpc_peer.py call HOST:PORT` runs every check and prints a JSON object of check -> what was seen.
"""

import json
import sys
import threading
import time
from concurrent import futures

import grpc

SERVICE = "weft.test.Echo"


class Handler(grpc.GenericRpcHandler):
    def service(self, details):
        method = details.method.rsplit("/", 1)[-1]
        return {
            "Unary": grpc.unary_unary_rpc_method_handler(unary),
            "Collect": grpc.stream_unary_rpc_method_handler(collect),
            "Count": grpc.unary_stream_rpc_method_handler(count),
            "Talk": grpc.stream_stream_rpc_method_handler(talk),
            "Fail": grpc.unary_unary_rpc_method_handler(fail),
            "FailLate": grpc.unary_stream_rpc_method_handler(fail_late),
            "Sleep": grpc.unary_unary_rpc_method_handler(sleep),
        }.get(method)


def unary(request, context):
    metadata = dict(context.invocation_metadata())
    context.send_initial_metadata([("x-initial", "first"), ("x-binary-bin", b"\x00\x01\xff")])
    context.set_trailing_metadata([("x-trailer", "last"), ("x-seen", metadata.get("x-ask", ""))])
    return request


def collect(requests, context):
    return b"%d" % sum(len(request) for request in requests)


def count(request, context):
    for n in range(int(request)):
        yield b"%d" % n


def talk(requests, context):
    for request in requests:
        yield b"heard " + request


def fail(request, context):
    context.set_trailing_metadata([("x-why", "because")])
    context.abort(list(grpc.StatusCode)[int(request)], "message with space and ü")


def fail_late(request, context):
    yield b"one"
    yield b"two"
    context.abort(grpc.StatusCode.DATA_LOSS, "after two")


def sleep(request, context):
    time.sleep(float(request))
    return b"slept"


def serve(address, certificate=None, key=None):
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=32),
        handlers=[Handler()],
        options=[("grpc.max_receive_message_length", -1)],
    )
    if certificate:
        pair = tuple(open(name, "rb").read() for name in (key, certificate))
        assert server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
    else:
        assert server.add_insecure_port(address)
    server.start()
    print("serving", flush=True)
    server.wait_for_termination()


def call(address):
    channel = grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)])
    path = f"/{SERVICE}/"
    seen = {}

    unary = channel.unary_unary(path + "Unary")
    response, rpc = unary.with_call(b"hello", timeout=20, metadata=[("x-ask", "answer")])
    initial = dict(rpc.initial_metadata())
    seen["unary"] = response.decode()
    seen["initial"] = [initial["x-initial"], initial["x-binary-bin"].hex()]
    trailing = dict(rpc.trailing_metadata())
    seen["trailing"] = [trailing["x-trailer"], trailing["x-seen"]]
    seen["empty"] = len(unary(b"", timeout=20))
    large = bytes(range(256)) * 40_000
    seen["large"] = unary(large, timeout=60) == large

    collect = channel.stream_unary(path + "Collect")
    seen["client_stream"] = int(collect((b"x" * n for n in range(1000)), timeout=30))
    count = channel.unary_stream(path + "Count")
    seen["server_stream"] = [int(item) for item in count(b"500", timeout=30)] == list(range(500))
    seen["bidirectional"] = ping_pong(channel.stream_stream(path + "Talk"))

    seen["codes"] = {}
    for index, code in enumerate(grpc.StatusCode):
        if code is grpc.StatusCode.OK:
            continue
        try:
            channel.unary_unary(path + "Fail")(b"%d" % index, timeout=20)
        except grpc.RpcError as error:
            why = dict(error.trailing_metadata()).get("x-why")
            seen["codes"][code.name] = [error.code().name, error.details(), why]

    items = channel.unary_stream(path + "FailLate")(b"", timeout=20)
    got = []
    try:
        for item in items:
            got.append(item.decode())
    except grpc.RpcError as error:
        got.append(error.code().name)
    seen["late_error"] = got

    try:
        channel.unary_unary(path + "Sleep")(b"20", timeout=1)
    except grpc.RpcError as error:
        seen["deadline"] = error.code().name
    try:
        channel.unary_unary(path + "Missing")(b"", timeout=20)
    except grpc.RpcError as error:
        seen["unimplemented"] = error.code().name
        seen["unimplemented_details"] = error.debug_error_string()

    with futures.ThreadPoolExecutor(max_workers=32) as pool:
        answers = pool.map(lambda n: unary(b"%d" % n, timeout=30), range(500))
        seen["concurrent"] = [int(answer) for answer in answers] == list(range(500))
    print(json.dumps(seen))


def ping_pong(talk):
    """Each message is sent only after the answer to the one before: nothing may be held back."""
    turn = threading.Semaphore(1)

    def requests():
        for n in range(50):
            turn.acquire(timeout=20)
            yield b"%d" % n

    answers = 0
    for answer in talk(requests(), timeout=30):
        assert answer == b"heard %d" % answers
        answers += 1
        turn.release()
    return answers


def status(address):
    """One call, and the code that it ends with."""
    channel = grpc.insecure_channel(address)
    try:
        channel.unary_unary(f"/{SERVICE}/Unary")(b"x", timeout=10)
        print(json.dumps({"code": "OK"}))
    except grpc.RpcError as error:
        print(json.dumps({"code": error.code().name, "details": error.details()}))


{"serve": serve, "call": call, "status": status}[sys.argv[1]](*sys.argv[2:])
