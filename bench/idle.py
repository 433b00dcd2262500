"""Holds idle HTTP/1.1 keep-alive connections: HOST PORT COUNT.

Each connection carries one request first, so that everything behind it exists. Prints `open` when
all are, and ends when its standard input does.
"""

import socket
import sys

host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
request = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n"
held = []
for _ in range(count):
    connection = socket.create_connection((host, port), timeout=10)
    connection.sendall(request)
    answer = b""
    while not answer.endswith(b"\n"):
        data = connection.recv(4096)
        if not data:
            sys.exit("closed before the answer")
        answer += data
    if b" 200 " not in answer.split(b"\r\n")[0]:
        sys.exit(f"answer: {answer[:60]!r}")
    held.append(connection)
print("open", flush=True)
sys.stdin.read()
