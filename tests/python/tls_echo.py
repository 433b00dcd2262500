"""A server of bytes over TLS 1.3: `tls_echo.py HOST:PORT CERTIFICATE KEY [CLIENTS]`.

It says in one line who the client is, by the certificate that the client showed (`none` where it asks for none),
and then sends back what comes, until the client ends. With CLIENTS, the roots of clients, it demands one."""

import socket
import ssl
import sys
import threading

at, certificate, key, *clients = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.minimum_version = ssl.TLSVersion.TLSv1_3
context.load_cert_chain(certificate, key)
if clients:
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(clients[0])


def name(peer):
    subject = [pair for part in (peer or {}).get("subject", ()) for pair in part]
    return dict(subject).get("commonName", "none")


def serve(connection):
    try:
        with context.wrap_socket(connection, server_side=True) as stream:
            stream.sendall(name(stream.getpeercert()).encode() + b"\n")
            while data := stream.recv(65536):
                stream.sendall(data)
            stream.unwrap()
    except OSError:
        connection.close()


host, port = at.rsplit(":", 1)
listener = socket.create_server((host, int(port)))
print("serving", flush=True)
while True:
    connection, _ = listener.accept()
    threading.Thread(target=serve, args=(connection,), daemon=True).start()
