#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Real sockets in several network namespaces of one node, for tests/bats/fabric.bats.

Run inside the node's network and mount namespace. A place is the name of a namespace, or "." for the node's own.

  talk SERVER IP CLIENT [SOURCE]     TCP and UDP both ways, every byte checked; the server must see SOURCE as the peer
  capture CLIENT                     a connection CLIENT -> app is captured, held, injected and released
  death CLIENT                       the capturing process is killed: app is direct again
  fenced CLIENT                      the same while fenced: nothing passes until unfenced
  mute                               app is mute here and lives in "far": see cmd_mute

Needs FABRICTOOL, the program with its subnet options; app is 192.168.5.2 with slot 1.
"""
import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time

TOOL = os.environ["FABRICTOOL"].split()
APP = "192.168.5.2"
VIPS = APP + ",192.168.6.2"
QUIET = 0.3     # seconds in which nothing may arrive: seven retransmissions at rto_min 40 ms
CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)
home = os.open("/proc/self/ns/net", os.O_RDONLY)


def check(cond, what):
    if not cond:
        sys.exit("fabricpeers: " + what)


def sock(place, kind=socket.SOCK_STREAM):
    """a socket belongs to the namespace it was made in"""
    fd = home if place == "." else os.open("/run/netns/" + place, os.O_RDONLY)
    check(libc.setns(fd, CLONE_NEWNET) == 0, "setns " + place)
    s = socket.socket(socket.AF_INET, kind)
    s.settimeout(60)
    check(libc.setns(home, CLONE_NEWNET) == 0, "setns back")
    if fd != home:
        os.close(fd)
    return s


def listen(place, ip, port=0):
    s = sock(place)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((ip, port))
    s.listen()
    return s


def connect(server, ip, client):
    """-> (listener, server's end, client's end)"""
    l = listen(server, ip)
    c = sock(client)
    c.connect(l.getsockname())
    a, _ = l.accept()
    a.settimeout(60)
    return l, a, c


def exactly(s, n):
    data = b""
    while len(data) < n:
        more = s.recv(n - len(data))
        check(more, "connection ended after %d of %d bytes" % (len(data), n))
        data += more
    return data


def pump(frm, to, data):
    t = threading.Thread(target=frm.sendall, args=(data,))
    t.start()
    got = exactly(to, len(data))
    t.join()
    check(got == data, "bytes differ")


def ping_pong(a, b, what):
    for x, y in (a, b), (b, a):
        pump(x, y, what.encode())


def nothing_arrives(socks, seconds, what):
    check(not select.select(socks, [], [], seconds)[0], what)


class Hold:
    """fabrictool as app's tunstack"""

    def __init__(self):
        self.p = subprocess.Popen(TOOL + ["hold", "app", "1", VIPS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pkts, self.answers, self.cond = [], [], threading.Condition()
        check(self.p.stdout.readline() == "ready\n", "hold does not start")
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.p.stdout:
            words = line.split()
            with self.cond:
                (self.pkts if words[0] == "pkt" else self.answers).append(tuple(words[1:]))
                self.cond.notify_all()

    def cmd(self, what):
        with self.cond:
            self.p.stdin.write(what + "\n")
            self.p.stdin.flush()
            check(self.cond.wait_for(lambda: self.answers, 60), "hold does not answer " + what)
            cmd, rc, us = self.answers.pop(0)
        check(cmd == what and rc == "0", "hold: %s answered %s %s" % (what, cmd, rc))
        return int(us)

    def saw(self, src, dst):
        with self.cond:
            return any(p[:2] == (src, dst) for p in self.pkts)

    def await_pkt(self, src, dst):
        with self.cond:
            ok = self.cond.wait_for(lambda: any(p[:2] == (src, dst) for p in self.pkts), 60)
        check(ok, "the hold TUN never saw %s > %s" % (src, dst))

    def forget(self):
        with self.cond:
            self.pkts.clear()

    def end(self, sig=None):
        if sig:
            self.p.send_signal(sig)
        else:
            self.p.stdin.close()
        self.p.wait(60)


def cmd_talk(server, ip, client, source=None):
    l, a, c = connect(server, ip, client)
    if source:
        check(a.getpeername()[0] == source, "the server sees %s, not %s" % (a.getpeername()[0], source))
    data = os.urandom(300000)
    pump(c, a, data)
    pump(a, c, data)
    u, v = sock(server, socket.SOCK_DGRAM), sock(client, socket.SOCK_DGRAM)
    u.bind((ip, 0))
    v.sendto(b"question", u.getsockname())
    q, peer = u.recvfrom(100)
    u.sendto(b"answer", peer)
    check(q == b"question" and v.recvfrom(100) == (b"answer", u.getsockname()), "UDP")


def caught(client):
    """a connection to app, captured, with data of both directions in the hold TUN and nowhere else"""
    l, a, c = connect("app", APP, client)
    peer = c.getsockname()[0]
    ping_pong(a, c, "direct")
    h = Hold()
    check(not h.pkts, "the hold TUN sees packets before the capture")
    us = h.cmd("capture")
    c.sendall(b"to-app")
    a.sendall(b"from-app")
    h.await_pkt(peer, APP)
    h.await_pkt(APP, peer)
    nothing_arrives([a, c], QUIET, "a captured packet arrived")
    return l, a, c, h, us


def cmd_capture(client):
    l, a, c, h, us = caught(client)
    n = sock(client)
    n.setblocking(False)
    n.connect_ex(l.getsockname())
    nothing_arrives([l], QUIET, "a captured SYN arrived")
    # injected while captured: to app by its direct table, to the peer as always, and never back into the hold TUN
    h.cmd("replay")
    check(exactly(a, 6) == b"to-app", "injected data is not what was sent")
    check(exactly(c, 8) == b"from-app", "injected data is not what was sent")
    us = max(us, h.cmd("release"))
    h.cmd("replay")
    l.accept()
    ping_pong(a, c, "released")
    h.forget()
    ping_pong(a, c, "direct again")
    check(not h.pkts, "the hold TUN sees packets after the release")
    h.end()
    ping_pong(a, c, "closed")
    print("capture and release took at most %d us" % us)


def cmd_death(client):
    l, a, c, h, _ = caught(client)
    h.end(signal.SIGKILL)
    check(exactly(a, 6) == b"to-app" and exactly(c, 8) == b"from-app", "repeated data is not what was sent")
    ping_pong(a, c, "direct again")


def cmd_fenced(client):
    l, a, c, h, _ = caught(client)
    h.cmd("fence")
    h.forget()
    c.sendall(b"+more")
    h.await_pkt(c.getsockname()[0], APP)    # the capture still comes first
    h.end(signal.SIGKILL)
    nothing_arrives([a, c], 1, "something passed the fence")
    h = Hold()
    nothing_arrives([a, c], QUIET, "a new hold TUN opens the fence")
    h.cmd("unfence")
    check(exactly(a, 11) == b"to-app+more" and exactly(c, 8) == b"from-app", "repeated data is not what was sent")
    ping_pong(a, c, "unfenced")
    h.end()


def tool(*args):
    subprocess.run(TOOL + list(args), check=True)


def cmd_mute():
    """app's vIP is at a far node (the bridge's end), and here is its mute copy: one's traffic never meets the other"""
    far = listen("far", APP, 7000)
    copy = listen("app", APP, 7000)
    for client in "db", ".":
        c = sock(client)
        c.connect((APP, 7000))
        a, _ = far.accept()
        ping_pong(a, c, "the far one answers")
    nothing_arrives([copy], 0, "the mute copy was asked")
    # what the copy sends goes nowhere, and with the capture to the hold TUN only
    db, n = sock("db", socket.SOCK_DGRAM), sock("app", socket.SOCK_DGRAM)
    db.bind(("192.168.5.7", 0))
    n.sendto(b"too early", db.getsockname())
    nothing_arrives([db], QUIET, "the mute copy was heard")
    h = Hold()
    h.cmd("capture")
    n.sendto(b"held", db.getsockname())
    h.await_pkt(APP, "192.168.5.7")
    nothing_arrives([db], QUIET, "the mute copy was heard")
    # what is said to it is no business of its capture's
    c = sock("db")
    c.connect((APP, 7000))
    a, _ = far.accept()
    ping_pong(a, c, "the far one still answers")
    # the commit, as a destination does it: active under the capture, then released
    tool("activate", "app", "1", APP)
    c = sock("db")
    c.setblocking(False)
    c.connect_ex((APP, 7000))
    h.await_pkt("192.168.5.7", APP)
    nothing_arrives([copy, far], QUIET, "a SYN passed the capture")
    h.cmd("replay")
    h.cmd("release")
    h.cmd("replay")
    c.setblocking(True)
    a, _ = copy.accept()
    ping_pong(a, c, "the copy answers")
    check(db.recv(100) == b"held", "what was held is not what was sent")
    # and, as a source does it, given away again
    tool("deactivate", "app", "1", APP)
    c = sock("db")
    c.connect((APP, 7000))
    far.accept()
    nothing_arrives([copy], 0, "the inactive copy was asked")
    h.end()


if __name__ == "__main__":
    globals()["cmd_" + sys.argv[1]](*sys.argv[2:])
