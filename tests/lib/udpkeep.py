#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A program that lets datagrams lie in its sockets until it is told to read them, for udp.bats.

udpkeep.py serve DIR VIP      sockets at 0.0.0.0:7000 (IP_PKTINFO), [::]:7003 (both families), VIP:7002, 127.0.0.1:7001, with
                              datagrams of its own in the latter two. When DIR/read.N is there (N = 1, 2, ...), with a number in it, so
                              many are read, and what there is besides: a line "SOCKET SOURCE>DESTINATION LENGTH TEXT" each,
                              then "end N".
udpkeep.py send VIP FROM TO   datagrams FROM..TO-1 to port 7000 and 7003 from three ports in turn; number 10 has no bytes, 20 has 5000
"""
import itertools
import os
import select
import socket
import sys
import time

IP_PKTINFO = 8


def serve(folder, vip):
    any4 = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    any4.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    any4.bind(("0.0.0.0", 7000))
    any6 = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    any6.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    any6.bind(("::", 7003))
    own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    own.bind((vip, 7002))
    loop = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    loop.bind(("127.0.0.1", 7001))
    for i in range(3):
        loop.sendto(b"loop %d" % i, ("127.0.0.1", 7001))
        own.sendto(b"own %d" % i, (vip, 7002))
    socks = {"any4": any4, "any6": any6, "own": own, "loop": loop}
    print("ready", flush=True)
    turn = 1
    while True:
        time.sleep(0.02)
        if not os.path.exists(f"{folder}/read.{turn}"):
            continue
        with open(f"{folder}/read.{turn}", encoding="ascii") as f:
            missing = int(f.read())
        while missing > 0:
            select.select(list(socks.values()), [], [])
            for name, sock in socks.items():
                missing -= drain(name, sock)
        print("end", turn, flush=True)
        turn += 1


def drain(name, sock):
    """Return: how many"""
    for n in itertools.count():
        try:
            data, control, _, source = sock.recvmsg(65536, 512, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return n
        to = "-"
        for level, kind, value in control:
            if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO):
                to = socket.inet_ntoa(value[8:12])
        print(f"{name} {source[0]}:{source[1]}>{to} {len(data)} {data[:16].decode()}")


def send(vip, first, last):
    ports = []
    for port in range(9000, 9003):
        ports.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        ports[-1].bind(("", port))
    for i in range(first, last):
        text = b"" if i == 10 else b"%d " % i + b"." * (4990 if i == 20 else 20)
        for to in (7000, 7003):
            ports[i % 3].sendto(text, (vip, to))
        time.sleep(0.0005)


if sys.argv[1] == "serve":
    serve(sys.argv[2], sys.argv[3])
else:
    send(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
