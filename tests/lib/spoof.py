#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""spoof.py SRC DST KIND... - raw IPv4 packets from port 1 to port 9 as if from SRC: "udp" (a datagram "lies"), "tcp" (a SYN)"""
import socket
import struct
import sys


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return 0xffff - total


src, dst = socket.inet_aton(sys.argv[1]), socket.inet_aton(sys.argv[2])
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
for k, kind in enumerate(sys.argv[3:]):
    if kind == "tcp":
        proto, body = 6, struct.pack("!HHIIBBHHH", 1, 9, 7, 0, 0x50, 2, 1000, 0, 0)
        csum = checksum(src + dst + struct.pack("!BBH", 0, proto, len(body)) + body)
        body = body[:16] + struct.pack("!H", csum) + body[18:]
    else:
        proto, body = 17, struct.pack("!HHHH", 1, 9, 12, 0) + b"lies"
    # the kernel fills in length and checksum of the IP header
    raw.sendto(struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), k, 0, 64, proto, 0, src, dst) + body, (sys.argv[2], 0))
