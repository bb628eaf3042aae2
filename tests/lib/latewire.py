#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Frames that arrive at one interface leave by another one a random moment later, so out of order.

usage: latewire.py IN OUT MAX_MS SEED    prints "ready"; ends at SIGTERM"""
import heapq
import random
import select
import signal
import socket
import sys
import time

ETH_P_ALL = 3
PACKET_OUTGOING = 4


def main():
    source, target, most, seed = sys.argv[1], sys.argv[2], float(sys.argv[3]) / 1000, int(sys.argv[4])
    chance = random.Random(seed)
    rx = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    rx.bind((source, ETH_P_ALL))
    tx = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    tx.bind((target, 0))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print("ready", flush=True)
    waiting, number = [], 0
    while True:
        pause = max(0, waiting[0][0] - time.monotonic()) if waiting else None
        if select.select([rx], [], [], pause)[0]:
            frame, where = rx.recvfrom(65536)
            if where[2] != PACKET_OUTGOING:
                number += 1
                heapq.heappush(waiting, (time.monotonic() + chance.uniform(0, most), number, frame))
        while waiting and waiting[0][0] <= time.monotonic():
            try:
                tx.send(heapq.heappop(waiting)[2])
            except OSError:
                pass    # longer than the interface's MTU of the moment: lost on the way


main()
