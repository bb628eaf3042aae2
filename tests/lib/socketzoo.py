#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One socket of each kind, for tests/bats/ms_sockets.bats: prints "ready" and waits for standard input to end.

A listener at port 4000 with one connection not accepted, one accepted with 10 bytes unread (and shared with a child), a UDP
socket at 5000, an IPv6 listener at 6000, a UNIX pair, and an orphan: closed with data its peer does not read.
"""
import os
import socket
import sys

keep = []
srv = socket.socket()
srv.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
srv.bind(("127.0.0.1", 4000))
srv.listen(9)
client = socket.create_connection(("127.0.0.1", 4000))
conn, _ = srv.accept()
client.sendall(b"0123456789")
waiting = socket.create_connection(("127.0.0.1", 4000))
udp = socket.socket(type=socket.SOCK_DGRAM)
udp.bind(("127.0.0.1", 5000))
six = socket.socket(socket.AF_INET6)
six.bind(("::1", 6000))
six.listen(1)
pair = socket.socketpair()
conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 4242)

other = socket.socket()
other.bind(("127.0.0.1", 4001))
other.listen(1)
reader = socket.create_connection(("127.0.0.1", 4001))
orphan, _ = other.accept()
orphan.setblocking(False)
try:
    while True:
        orphan.send(bytes(65536))
except BlockingIOError:
    pass
orphan.close()

pipe = os.pipe()
if os.fork() == 0:
    os.close(pipe[1])
    os.read(pipe[0], 1)     # ends with its parent
    os._exit(0)
print("ready", flush=True)
sys.stdin.read()
