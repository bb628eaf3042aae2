#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A ledger on a redis server: INCR over one connection, each answer must be one more than the last.

usage: redis_incr.py HOST PORT STOPFILE STATUSFILE
Runs until STOPFILE exists; STATUSFILE holds the count so far. Prints the count; exit status 1 if an answer was wrong."""
import os
import socket
import sys
import time


def main():
    host, port, stop, status = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
    conn = socket.create_connection((host, port))
    answers = conn.makefile("rb")
    count = 0
    told = 0.0
    while not os.path.exists(stop):
        conn.sendall(b"INCR ledger\r\n")
        answer = answers.readline()
        count += 1
        if answer != b":%d\r\n" % count:
            print(f"answer {count} was {answer!r}")
            return 1
        if time.monotonic() - told > 0.05:
            told = time.monotonic()
            with open(status + ".new", "w") as f:
                f.write(f"{count}\n")
            os.rename(status + ".new", status)
    print(count)
    return 0


sys.exit(main())
