"""The TLS application of the conformance cases, and its client.

`tls_stub.py serve HOST:PORT NAME CERTIFICATE KEY` ends the handshake itself and answers a line of JSON: its name
and the host that the client asked for. `tls_stub.py connect HOST:PORT HOST AUTHORITY PIECE` asks for HOST (`-`
for none), trusts AUTHORITY alone, sends its bytes in pieces of that size (0 for all at once), and prints what
the application answered, or that the connection ended.
"""

import json
import socket
import ssl
import sys
import threading
import time


def address(text):
    host, port = text.rsplit(":", 1)
    return host, int(port)


def serve(at, name, certificate, key):
    asked = threading.local()

    def note(_socket, server_name, _context):
        asked.host = server_name

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.sni_callback = note

    def answer(connection):
        asked.host = None
        try:
            with context.wrap_socket(connection, server_side=True) as stream:
                told = {"backend": name, "server_name": asked.host}
                stream.sendall(json.dumps(told).encode() + b"\n")
                stream.recv(1)
        except OSError:
            connection.close()

    listener = socket.create_server(address(at))
    print("serving", flush=True)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=answer, args=(connection,), daemon=True).start()


def connect(at, host, authority, piece):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(authority)
    context.check_hostname = host != "-"
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=None if host == "-" else host)
    print(json.dumps(talk(tls, incoming, outgoing, at, int(piece))))


def talk(tls, incoming, outgoing, at, piece):
    try:
        with socket.create_connection(address(at), timeout=20) as stream:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

            def flush():
                data = outgoing.read()
                for start in range(0, len(data), piece or len(data) or 1):
                    stream.sendall(data[start : start + (piece or len(data))])
                    if piece:
                        time.sleep(0.001)

            def step(what):
                while True:
                    try:
                        done = what()
                        flush()
                        return done
                    except ssl.SSLWantReadError:
                        flush()
                        data = stream.recv(65536)
                        if not data:
                            raise ConnectionError("end of file") from None
                        incoming.write(data)

            step(tls.do_handshake)
            told = b""
            while not told.endswith(b"\n"):
                told += step(lambda: tls.read(4096))
            return json.loads(told)
    except ssl.SSLCertVerificationError as error:
        return {"backend": "unproven", "error": str(error)}
    except OSError as error:
        return {"backend": "ended", "error": str(error)}


{"serve": serve, "connect": connect}[sys.argv[1]](*sys.argv[2:])
