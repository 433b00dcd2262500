"""Clients that begin QUIC handshakes and never end them. Prints one JSON object.

    hostile_handshake.py silent ADDRESS --count N --rate PER_SECOND
    hostile_handshake.py amplified ADDRESS --seconds S
"""

import argparse
import json
import select
import socket
import time

from aioquic.quic.connection import QuicConnection

from mesh_peer import configuration

LONG = 0x80
RETRY = 0xF0


def hello(address):
    """A connection that has said hello, and the datagrams of that."""
    connection = QuicConnection(configuration=configuration(None, True))
    connection.connect(address, now=time.monotonic())
    return connection, [data for data, _ in connection.datagrams_to_send(now=time.monotonic())]


def is_retry(data):
    return data[0] & RETRY == RETRY


def silent(options):
    """Answers each Retry, so that its address is validated, and nothing else."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.setblocking(False)
    made = [hello(options.address) for _ in range(options.count)]
    by_id = {connection.host_cid: connection for connection, _ in made}
    retries = 0
    print("READY", flush=True)
    begin = time.monotonic()
    for number, (_, datagrams) in enumerate(made):
        for data in datagrams:
            udp.sendto(data, options.address)
        due = begin + number / options.rate
        while True:
            left = due - time.monotonic()
            if not select.select([udp], [], [], max(left, 0))[0]:
                break
            data = udp.recv(2048)
            connection = by_id.get(data[6 : 6 + data[5]])
            if is_retry(data) and connection:
                retries += 1
                connection.receive_datagram(data, options.address, now=time.monotonic())
                for answer, _ in connection.datagrams_to_send(now=time.monotonic()):
                    udp.sendto(answer, options.address)
    return {"begun": len(made), "retries": retries, "seconds": time.monotonic() - begin}


def amplified(options):
    """Says hello once and counts what comes back to an address that never showed that it hears."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    _, datagrams = hello(options.address)
    sent = sum(udp.sendto(data, options.address) for data in datagrams)
    received = []
    until = time.monotonic() + options.seconds
    while (left := until - time.monotonic()) > 0:
        if select.select([udp], [], [], left)[0]:
            received.append(len(udp.recv(65536)))
    return {"sent": sent, "received": received}


def address(text):
    host, port = text.rsplit(":", 1)
    return host, int(port)


parser = argparse.ArgumentParser()
parser.add_argument("scenario", choices=["silent", "amplified"])
parser.add_argument("address", type=address, help="IP:PORT")
parser.add_argument("--count", type=int, default=1)
parser.add_argument("--rate", type=float, default=1.0)
parser.add_argument("--seconds", type=float, default=5.0)
options = parser.parse_args()
print(json.dumps({"silent": silent, "amplified": amplified}[options.scenario](options)))
