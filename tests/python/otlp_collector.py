"""A collector of spans, made of OpenTelemetry's own messages: it judges what sidecars send.

`otlp_collector.py grpc|http HOST:PORT FILE [CHAIN KEY]` takes exports by OTLP/gRPC (grpcio) or by OTLP/HTTP (the HTTP server of
Python), over TLS where it has a certificate, and writes each span to FILE as one line of JSON, with the resource and the scope that it came with.
"""

import json
import ssl
import sys
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2


def value(any_value):
    kind = any_value.WhichOneof("value")
    if kind == "array_value":
        return [value(one) for one in any_value.array_value.values]
    return getattr(any_value, kind)


def attributes(pairs):
    found = {pair.key: value(pair.value) for pair in pairs}
    assert len(found) == len(pairs), "an attribute twice"
    return found


class Sink:
    def __init__(self, path):
        self.file = open(path, "a", encoding="utf-8", buffering=1)

    def take(self, request):
        lines = []
        for of_resource in request.resource_spans:
            resource = attributes(of_resource.resource.attributes)
            for of_scope in of_resource.scope_spans:
                for span in of_scope.spans:
                    assert len(span.trace_id) == 16 and len(span.span_id) == 8, span
                    assert len(span.parent_span_id) in (0, 8), span
                    lines.append(
                        {
                            "resource": resource,
                            "scope": of_scope.scope.name,
                            "trace": span.trace_id.hex(),
                            "span": span.span_id.hex(),
                            "parent": span.parent_span_id.hex(),
                            "state": span.trace_state,
                            "name": span.name,
                            "kind": trace_pb2.Span.SpanKind.Name(span.kind),
                            "start": span.start_time_unix_nano,
                            "end": span.end_time_unix_nano,
                            "status": trace_pb2.Status.StatusCode.Name(span.status.code),
                            "flags": span.flags,
                            "attributes": attributes(span.attributes),
                        }
                    )
        self.file.write("".join(json.dumps(line) + "\n" for line in lines))


class Service(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, sink):
        self.sink = sink

    def Export(self, request, context):
        self.sink.take(request)
        return trace_service_pb2.ExportTraceServiceResponse()


def serve_grpc(address, sink, files):
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Service(sink), server)
    if files:
        chain, key = (open(file, "rb").read() for file in files)
        assert server.add_secure_port(address, grpc.ssl_server_credentials([(key, chain)]))
    else:
        assert server.add_insecure_port(address)
    server.start()
    print("serving", flush=True)
    server.wait_for_termination()


def serve_http(address, sink, files):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            good = self.path == "/v1/traces" and self.headers["content-type"] == "application/x-protobuf"
            if good:
                sink.take(trace_service_pb2.ExportTraceServiceRequest.FromString(body))
            answer = trace_service_pb2.ExportTraceServiceResponse().SerializeToString()
            self.send_response(200 if good else 400)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    host, port = address.rsplit(":", 1)
    server = ThreadingHTTPServer((host, int(port)), Handler)
    if files:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*files)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    print("serving", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    {"grpc": serve_grpc, "http": serve_http}[sys.argv[1]](sys.argv[2], Sink(sys.argv[3]), sys.argv[4:])
