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

# level, option, value: what CRIU loses and what it keeps, told apart by ledger.bats; SO_PRIORITY behind IP_TOS, which changes it
TCP, IP, V6, SOL, UDP = 6, 0, 41, 1, 17
COMMON = [(SOL, 9, 1), (SOL, 8, 50000), (SOL, 7, 60000), (SOL, 20, struct.pack("ll", 2, 500000)),
          (SOL, 21, struct.pack("ll", 3, 0)), (SOL, 46, 50), (SOL, 29, 1), (IP, 1, 0x10), (IP, 2, 77), (IP, 11, 1), (IP, 15, 1),
          (IP, 19, 1), (SOL, 12, 3)]
OPTIONS = {
    "tcp": COMMON + [(SOL, 13, struct.pack("ii", 1, 9)), (SOL, 18, 5), (SOL, 10, 1), (SOL, 47, struct.pack("Q", 1234567)),
                     (IP, 10, 2), (IP, 24, 1), (TCP, 1, 1), (TCP, 4, 33), (TCP, 5, 7), (TCP, 6, 4), (TCP, 7, 3), (TCP, 8, 11),
                     (TCP, 9, 7), (TCP, 10, 40000), (TCP, 18, 60000), (TCP, 25, 4096), (TCP, 36, 1), (TCP, 16, 1),
                     (TCP, 13, b"reno")],
    "udp": COMMON + [(SOL, 6, 1), (IP, 8, 1), (IP, 13, 1), (IP, 12, 1), (IP, 33, 5), (IP, 34, 0), (UDP, 104, 1), (UDP, 103, 1000)],
    "v6": [(V6, 67, 0x20), (V6, 16, 44), (V6, 23, 2), (V6, 49, 1)],
}


def options_set(sock, *sets):
    for name in sets:
        for level, opt, value in OPTIONS[name]:
            sock.setsockopt(level, opt, value)


def options_read(sock, *sets):
    return [(name, level, opt, sock.getsockopt(level, opt, 16)) for name in sets for level, opt, _ in OPTIONS[name]]


def await_file(path):
    while not os.path.exists(path):
        time.sleep(0.02)


def mark(path, text=""):
    with open(path + ".tmp", "w") as f:
        f.write(text)
    os.rename(path + ".tmp", path)


def await_state(sock, want):
    for _ in range(6000):
        if sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == want:
            return
        time.sleep(0.01)
    sys.exit("statezoo: state %d did not come" % want)


def fill(sock):
    """until nothing more fits, and the window is closed; the length of what went in"""
    sock.setblocking(False)
    n, still = 0, 0
    while still < 4:
        before = n
        try:
            while True:
                n += sock.send(RAMP[n % 251:n % 251 + 65536])
        except BlockingIOError:
            still = still + 1 if n == before else 0
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
    lis, lis6, udp, udp6 = socket.socket(), socket.socket(socket.AF_INET6), socket.socket(type=socket.SOCK_DGRAM), \
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    many = [(s["est"], "tcp"), (lis, "tcp"), (lis6, "tcp", "v6"), (udp, "udp"), (udp6, "udp", "v6")]
    for who in many:
        options_set(*who)
    for sock, addr in ((lis, ("10.77.0.1", 4100)), (lis6, ("::", 4101)), (udp, ("10.77.0.1", 5000)), (udp6, ("::", 5001))):
        sock.bind(addr)
    lis.listen(3)
    lis6.listen(3)
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
    before = [options_read(*who) for who in many]
    mark(where + "/ready", " ".join("%s=%d" % x for x in sent.items()))
    await_file(where + "/go")
    for was, who in zip(before, many):
        for a, b in zip(was, options_read(*who)):
            # the window clamp of a connection is tuned by the kernel as data comes
            if a != b and (who[0] is not s["est"] or a[1:3] != (TCP, 10)):
                sys.exit("%s: option %s was %s, is %s" % (who[0], a[:3], a[3], b[3]))
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
        s[name].settimeout(60)
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
