#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""udpcount.py - numbered datagrams one way, and who misses none: for tests that move one end

	udpcount.py send FROM TO:PORT STOP    one every 2 ms until the file STOP exists; prints how many
	udpcount.py recv AT:PORT STATUS       writes {"got", "missing", "late"} to STATUS now and then, until "end" comes

A number that is missing when one 200 further has come is lost; one that comes after a higher one is late.
"""
import json, os, socket, sys, time


def endpoint(text):
    host, port = text.rsplit(":", 1)
    return host, int(port)


def send(own, to, stop):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind((own, 0))
    n = 0
    while not os.path.exists(stop):
        s.sendto(b"%d" % n, endpoint(to))
        n += 1
        time.sleep(0.002)
    for _ in range(5):
        s.sendto(b"end %d" % n, endpoint(to))
    print(n, flush=True)


def recv(at, status):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    s.bind(endpoint(at))
    s.settimeout(0.1)
    seen, top, late, base, told = set(), -1, 0, 0, 0.0

    def tell(total=None):
        missing = len([k for k in range(base, total if total is not None else top - 200) if k not in seen])
        with open(status + ".new", "w") as f:
            json.dump({"got": len(seen), "missing": missing, "late": late, "done": total is not None}, f)
        os.rename(status + ".new", status)

    tell()
    while True:
        try:
            data = s.recv(64)
        except TimeoutError:
            data = b""
        if data.startswith(b"end"):
            return tell(int(data.split()[1]))
        if data:
            n = int(data)
            if top < 0:
                base = n
            seen.add(n)
            late += n < top
            top = max(top, n)
        if time.monotonic() - told > 0.1:
            told = time.monotonic()
            tell()


{"send": send, "recv": recv}[sys.argv[1]](*sys.argv[2:])
