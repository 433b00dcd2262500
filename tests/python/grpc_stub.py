"""The gRPC application of the tests of routes, and its client.

`grpc_stub.py serve HOST:PORT NAME` answers every call of `pkg.Echo` but EchoThree with JSON: its name, the
method and the metadata that it saw. `grpc_stub.py calls HOST:PORT JSON` makes the calls of a list of
`{"method": ..., "metadata": [[name, value], ...], "count": 1}`, and prints for each how often each outcome
came (the name of the application, or a status code) and what the last answer said. `grpc_stub.py loop HOST:PORT
FILE` calls until FILE exists, and prints how often each outcome came with each revision that answers named and
each x-configured that the application saw.
"""

import json
import os
import sys
from collections import Counter
from concurrent import futures

import grpc


class Handler(grpc.GenericRpcHandler):
    def __init__(self, name):
        self.name = name

    def service(self, details):
        if details.method not in ("/pkg.Echo/Echo", "/pkg.Echo/EchoTwo"):
            return None

        def answer(_request, context):
            metadata = {}
            for name, value in context.invocation_metadata():
                before = metadata.get(name)
                text = value if isinstance(value, str) else value.hex()
                metadata[name] = text if before is None else f"{before},{text}"
            told = {"backend": self.name, "method": details.method, "metadata": metadata}
            return json.dumps(told).encode()

        return grpc.unary_unary_rpc_method_handler(answer)


def serve(address, name):
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8), handlers=[Handler(name)])
    assert server.add_insecure_port(address)
    server.start()
    print("serving", flush=True)
    server.wait_for_termination()


def calls(address, text):
    channel = grpc.insecure_channel(address)
    results = []
    for call in json.loads(text):
        invoke = channel.unary_unary(call["method"])
        outcomes, told = Counter(), None
        metadata = [tuple(pair) for pair in call.get("metadata", [])]
        for _ in range(call.get("count", 1)):
            try:
                told = json.loads(invoke(b"", timeout=20, metadata=metadata))
                outcomes[told["backend"]] += 1
            except grpc.RpcError as error:
                told = {"details": error.details()}
                outcomes[error.code().name] += 1
        results.append({"outcomes": outcomes, "told": told})
    print(json.dumps(results))


def loop(address, file):
    invoke = grpc.insecure_channel(address).unary_unary("/pkg.Echo/Echo")
    outcomes = Counter()
    while not os.path.exists(file):
        try:
            answer, call = invoke.with_call(b"", timeout=20)
            told = json.loads(answer)
            revision = dict(call.initial_metadata()).get("weft-revision")
            outcomes[(revision, told["metadata"].get("x-configured"), told["backend"])] += 1
        except grpc.RpcError as error:
            outcomes[(None, None, f"{error.code().name} {error.details()}")] += 1
    print(json.dumps([[*seen, count] for seen, count in outcomes.items()]))


{"serve": serve, "calls": calls, "loop": loop}[sys.argv[1]](*sys.argv[2:])
