#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""late.py - a server that does not accept for as long as a file is missing, and its clients

  late.py serve ENDPOINT GO READY [BACKLOG [DEFER]]  listens; when GO exists, accepts: each client gets the SHA-256 of all it has sent
  late.py crowd ENDPOINT GO READY N                  N connections, sending various amounts at once, the rest when GO exists
  late.py quiet ENDPOINT GO READY                    one connection that says nothing before GO exists
  late.py newcomers ENDPOINT STOP READY              one connection after the other until STOP exists, as fast as 50 a second; then as crowd
  late.py quitters ENDPOINT QUIT READY N             N connections that say something; when QUIT exists N more do so, and all say more, have it
                                                     acknowledged, and reset; their fates are printed as the server sees such a one:
                                                     a line {"reset": port, "bytes": n, "sha": hex}, in the order of the ports
  late.py itself ENDPOINT GO READY                   listens, connects to itself by ENDPOINT and by 127.0.0.1, talks; the rest when GO exists
  late.py upload ENDPOINT BYTES READY [BACKLOG]      a server that sends BYTES to whom it accepts, and closes at once
  late.py reader ENDPOINT GO READY BYTES             reads a little; when GO exists the rest, to the end

READY is written (with the pid) when it stands. Clients print one object: connections, errors (texts), slowest connect() in ms.
"""
import fcntl
import hashlib
import json
import os
import socket
import struct
import sys
import threading
import time

SIOCOUTQ = 0x5411
SO_SNDBUFFORCE = 32
SIZES = (0, 1, 1448, 13000, 30000)


def pattern(seed, size):
    return bytes((seed * 7 + i) % 251 for i in range(size))


def endpoint(text):
    host, port = text.rsplit(":", 1)
    return host, int(port)


def ready(path):
    with open(path + ".new", "w", encoding="ascii") as f:
        f.write(str(os.getpid()))
    os.rename(path + ".new", path)


def await_file(path):
    while not os.path.exists(path):
        time.sleep(0.02)


def listen(where, backlog):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(endpoint(where))
    s.listen(backlog)
    return s


def serve(where, go, ready_file, backlog="16", defer="0"):
    s = listen(where, int(backlog))
    if int(defer):
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 60)
    ready(ready_file)
    await_file(go)
    while True:
        threading.Thread(target=answer, args=s.accept()).start()


def tell_reset(port, size, digest):
    sys.stdout.write(json.dumps({"reset": port, "bytes": size, "sha": digest.hexdigest()}) + "\n")  # whole: threads say so
    sys.stdout.flush()


def answer(c, peer=None):
    digest, size = hashlib.sha256(), 0
    try:
        while True:
            data = c.recv(65536)
            if not data:
                break
            digest.update(data)
            size += len(data)
        c.sendall(digest.hexdigest().encode())
    except ConnectionResetError as e:
        if peer:
            tell_reset(peer[1], size, digest)
        else:
            print("server:", e, flush=True)
    except OSError as e:
        print("server:", e, flush=True)
    c.close()


class Connection:
    def __init__(self, where, number):
        self.number = number
        self.digest = hashlib.sha256()
        self.size = 0
        self.closed = False
        begun = time.monotonic()
        self.sock = socket.create_connection(endpoint(where), timeout=60)
        self.connect_ms = (time.monotonic() - begun) * 1000

    def say(self, seed, size):
        data = pattern(seed, size)
        self.digest.update(data)
        self.size += size
        self.sock.sendall(data)

    def end(self):
        if not self.closed:
            self.sock.shutdown(socket.SHUT_WR)
            self.closed = True

    def acknowledged(self):
        return not struct.unpack("i", fcntl.ioctl(self.sock, SIOCOUTQ, b"\0\0\0\0"))[0]

    def finish(self):
        self.end()
        have = b""
        while True:
            data = self.sock.recv(4096)
            if not data:
                break
            have += data
        self.sock.close()
        if have.decode() != self.digest.hexdigest():
            raise ValueError("the server's digest is %r" % have.decode())


def finish_all(connections, more):
    errors = []
    for c in connections:
        try:
            if more and not c.closed:
                c.say(c.number + 100, 20000)
            c.finish()
        except (OSError, ValueError) as e:
            errors.append("connection %d: %s" % (c.number, e))
    print(json.dumps({"connections": len(connections), "errors": errors,
                      "slowest_ms": round(max(c.connect_ms for c in connections))}), flush=True)
    return 1 if errors else 0


def crowd(where, go, ready_file, count):
    connections = []
    for i in range(int(count)):
        c = Connection(where, i)
        c.say(i, SIZES[i % len(SIZES)])
        if i % 7 == 6:
            c.end()
        connections.append(c)
    while not all(c.acknowledged() for c in connections):
        time.sleep(0.02)
    ready(ready_file)
    await_file(go)
    return finish_all(connections, True)


def quiet(where, go, ready_file):
    c = Connection(where, 0)
    ready(ready_file)
    await_file(go)
    return finish_all([c], True)


def newcomers(where, stop, ready_file):
    connections = []
    while not os.path.exists(stop):
        try:
            c = Connection(where, len(connections))
            c.say(len(connections), 100)
        except OSError as e:
            print(json.dumps({"errors": ["new connection %d: %s" % (len(connections), e)]}), flush=True)
            return 1
        connections.append(c)
        if len(connections) == 1:
            ready(ready_file)
        time.sleep(0.02)
    return finish_all(connections, True)


def quitters(where, quit_file, ready_file, count):
    def some(first):
        made = [Connection(where, first + i) for i in range(int(count))]
        for c in made:
            c.say(c.number, SIZES[c.number % len(SIZES)])
        return made

    connections = some(0)
    while not all(c.acknowledged() for c in connections):
        time.sleep(0.02)
    ready(ready_file)
    await_file(quit_file)
    connections += some(int(count))
    for c in connections:
        c.say(c.number + 100, 9000)
    while not all(c.acknowledged() for c in connections):
        time.sleep(0.005)
    for c in sorted(connections, key=lambda c: c.sock.getsockname()[1]):
        port = c.sock.getsockname()[1]
        c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        c.sock.close()
        tell_reset(port, c.size, c.digest)


def itself(where, go, ready_file):
    port = endpoint(where)[1]
    s = listen("0.0.0.0:%d" % port, 8)
    connections = []
    for i, host in enumerate((endpoint(where)[0], "127.0.0.1")):
        c = Connection("%s:%d" % (host, port), i)
        c.say(i, 50000)
        connections.append(c)
    ready(ready_file)
    await_file(go)
    for c in connections:
        threading.Thread(target=answer, args=(s.accept()[0],)).start()
    return finish_all(connections, True)


def upload(where, size, ready_file, backlog="8"):
    s = listen(where, int(backlog))
    ready(ready_file)
    data = pattern(3, int(size))
    while True:
        c, _ = s.accept()
        c.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 2 * len(data))
        c.sendall(data)
        c.close()


def reader(where, go, ready_file, size):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 30000)
    s.settimeout(60)
    s.connect(endpoint(where))
    have = s.recv(1000)
    ready(ready_file)
    await_file(go)
    try:
        while True:
            data = s.recv(65536)
            if not data:
                break
            have += data
        errors = [] if have == pattern(3, int(size)) else ["%d bytes, of %s, are other ones" % (len(have), size)]
    except OSError as e:
        errors = ["after %d bytes: %s" % (len(have), e)]
    print(json.dumps({"connections": 1, "errors": errors, "slowest_ms": 0}), flush=True)
    return 1 if errors else 0


MODES = {"serve": serve, "crowd": crowd, "quiet": quiet, "newcomers": newcomers, "quitters": quitters, "itself": itself, "upload": upload, "reader": reader}

if __name__ == "__main__":
    sys.exit(MODES[sys.argv[1]](*sys.argv[2:]))
