#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""sink.py - one connection, one way: what was sent, and what has arrived, each as a count and a hash

    sink.py serve READY RESULT ADDR PORT [half]    ADDR may be ::, for IPv4 in an IPv6 socket; half: closes its own side first
    sink.py send READY ENOUGH ADDR PORT            some 2 MB/s until the file ENOUGH is there; prints its own count and hash

At SIGUSR1 the server makes an io_uring, with which CRIU cannot dump it. It writes "COUNT HASH" to RESULT when its peer has ended, and waits for SIGTERM.
"""
import ctypes
import hashlib
import os
import signal
import socket
import sys
import time


def note(path, text):
    with open(path + ".new", "w") as f:
        f.write(text)
    os.rename(path + ".new", path)


def serve(ready, result, addr, port, half):
    family = socket.AF_INET6 if ":" in addr else socket.AF_INET
    ls = socket.socket(family)
    ls.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        ls.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    ls.bind((addr, port))
    ls.listen(5)
    note(ready, "%d\n" % os.getpid())
    s = ls.accept()[0]
    digest, n = hashlib.sha256(), 0
    libc, params = ctypes.CDLL(None), ctypes.create_string_buffer(120)
    signal.signal(signal.SIGUSR1, lambda *_: note(ready + ".uring", "%d\n" % libc.syscall(425, 1, params)))
    if half:
        s.shutdown(socket.SHUT_WR)
    while True:
        data = s.recv(65536)
        if not data:
            break
        digest.update(data)
        n += len(data)
    note(result, "%d %s\n" % (n, digest.hexdigest()))
    while True:
        signal.pause()


def send(ready, enough, addr, port):
    s = socket.create_connection((addr, port))
    digest, n = hashlib.sha256(), 0
    while not os.path.exists(enough):
        data = os.urandom(20000 + n % 977)
        s.sendall(data)
        digest.update(data)
        n += len(data)
        if n > 100000 and not os.path.exists(ready):
            note(ready, "%d\n" % os.getpid())
        time.sleep(0.01)
    s.shutdown(socket.SHUT_WR)
    print("%d %s" % (n, digest.hexdigest()))


if sys.argv[1] == "serve":
    serve(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]), sys.argv[6:] == ["half"])
else:
    send(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]))
