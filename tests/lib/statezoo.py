#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A TCP socket in every state that has a descriptor, and its peers, for tests/bats/ledger.bats.

  statezoo.py server DIR     at 10.77.0.1:4000; DIR/ready when all stand; after DIR/go it ends every connection in order
  statezoo.py peer DIR       10.77.0.2; after DIR/go it reads everything and writes DIR/result: "ok" or what was wrong
"""
import os
import socket
import struct
import sys
import time

ADDR = ("10.77.0.1", 4000)
RAMP = bytes(range(251)) * 4096
# name: what the server does, what the peer does, before the freeze
NAMES = ["est", "full", "close_wait", "fin_wait1", "fin_wait2", "closing", "last_ack", "reset", "idle"]


def await_file(path):
    while not os.path.exists(path):
        time.sleep(0.02)


def mark(path, text=""):
    with open(path + ".tmp", "w") as f:
        f.write(text)
    os.rename(path + ".tmp", path)


def await_state(sock, want):
    for _ in range(500):
        if sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == want:
            return
        time.sleep(0.01)
    sys.exit("statezoo: state %d did not come" % want)


def fill(sock):
    """until nothing more fits, and the window is closed; the length of what went in"""
    sock.setblocking(False)
    n = 0
    for _ in range(3):
        try:
            while True:
                n += sock.send(RAMP[n % 251:n % 251 + 65536])
        except BlockingIOError:
            time.sleep(0.05)
    sock.setblocking(True)
    return n


def server(where):
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(ADDR)
    listener.listen(9)
    mark(where + "/listens")
    s = {name: listener.accept()[0] for name in NAMES}
    s["est"].setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 60000)
    s["est"].setsockopt(socket.IPPROTO_TCP, 25, 4096)   # TCP_NOTSENT_LOWAT
    s["est"].setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0x10)
    s["est"].setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, 3)
    sent = {name: fill(s[name]) for name in ("full", "fin_wait1", "closing", "last_ack")}
    for name in ("fin_wait1", "fin_wait2", "closing"):
        s[name].shutdown(socket.SHUT_WR)
    mark(where + "/filled")
    await_state(s["close_wait"], 8)
    await_state(s["last_ack"], 8)
    s["last_ack"].shutdown(socket.SHUT_WR)
    for name, state in (("fin_wait1", 4), ("fin_wait2", 5), ("closing", 11), ("last_ack", 9), ("reset", 7)):
        await_state(s[name], state)
    connecting = socket.socket()
    connecting.setblocking(False)
    connecting.connect_ex(("10.77.0.9", 9))
    fresh = socket.socket()
    udp = socket.socket(type=socket.SOCK_DGRAM)
    udp.bind(("10.77.0.1", 5000))
    mark(where + "/ready", " ".join("%s=%d" % x for x in sent.items()))
    await_file(where + "/go")
    if s["est"].recv(10000, socket.MSG_WAITALL) != RAMP[:10000]:
        sys.exit("est: wrong bytes")
    if s["close_wait"].recv(100) != b"abc" or s["close_wait"].recv(100) != b"":
        sys.exit("close_wait: wrong bytes")
    for name in ("est", "close_wait", "idle"):
        s[name].sendall(RAMP[:30000])
        s[name].shutdown(socket.SHUT_WR)
    s["full"].shutdown(socket.SHUT_WR)
    if s["fin_wait2"].recv(5000, socket.MSG_WAITALL) != RAMP[:5000]:
        sys.exit("fin_wait2: wrong bytes")
    mark(where + "/served")
    sys.stdin.read()


def peer(where):
    await_file(where + "/listens")
    s = {}
    for name in NAMES:
        s[name] = socket.socket()
        s[name].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        s[name].connect(ADDR)
    s["est"].sendall(RAMP[:9000])
    s["close_wait"].sendall(b"abc")
    await_file(where + "/filled")
    for name in ("close_wait", "closing", "last_ack"):
        s[name].shutdown(socket.SHUT_WR)
    s["reset"].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s["reset"].close()
    await_file(where + "/go")
    with open(where + "/ready") as f:
        want = {k: int(v) for k, v in (x.split("=") for x in f.read().split())}
    want.update(est=30000, close_wait=30000, idle=30000)
    s["est"].sendall(RAMP[9000:10000])
    s["fin_wait2"].sendall(RAMP[:5000])
    for name, n in want.items():
        s[name].settimeout(20)
        got = b""
        try:
            while len(got) <= n:
                part = s[name].recv(1 << 20)
                if not part:
                    break
                got += part
        except OSError as e:
            return mark(where + "/result", "%s: %s after %d of %d bytes" % (name, e, len(got), n))
        if len(got) != n or any(got[i:i + 251] != RAMP[:len(got[i:i + 251])] for i in range(0, len(got), 251)):
            return mark(where + "/result", "%s: wrong bytes (%d of %d)" % (name, len(got), n))
    mark(where + "/result", "ok")


{"server": server, "peer": peer}[sys.argv[1]](sys.argv[2])
