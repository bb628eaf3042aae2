# SPDX-License-Identifier: Apache-2.0
"""sendqueue.py - what a process's TCP sockets have not sent yet; for tests/bats/unsent.bats

    sendqueue.py unsent PID     bytes not sent, of all its connections together
    sendqueue.py mark PID       does what a timer of the kernel does when it meets a send queue that is selected in repair mode: all of it
                                counts as sent, and nobody has sent it. Prints how many bytes those were.
"""
import ctypes
import fcntl
import os
import socket
import struct
import sys

PIDFD_OPEN, PIDFD_GETFD = 434, 438
SIOCOUTQNSD = 0x894B
TCP_REPAIR, TCP_REPAIR_QUEUE = 19, 20
REPAIR_ON, REPAIR_OFF_NO_PROBE = 1, -1
NO_QUEUE, SEND_QUEUE = 0, 2
ESTABLISHED = 1


def connections(pid):
    libc = ctypes.CDLL(None, use_errno=True)
    pidfd = libc.syscall(PIDFD_OPEN, pid, 0)
    for name in os.listdir(f"/proc/{pid}/fd"):
        if not os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:"):
            continue
        fd = libc.syscall(PIDFD_GETFD, pidfd, int(name), 0)
        if fd < 0:
            sys.exit(f"descriptor {name}: {os.strerror(ctypes.get_errno())}")
        sock = socket.socket(fileno=fd)
        if (sock.family == socket.AF_INET and sock.type == socket.SOCK_STREAM
                and sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == ESTABLISHED):
            yield sock


def unsent(sock):
    return struct.unpack("i", fcntl.ioctl(sock, SIOCOUTQNSD, bytes(4)))[0]


def mark(sock):
    tcp = socket.IPPROTO_TCP
    before = unsent(sock)
    sock.setsockopt(tcp, TCP_REPAIR, REPAIR_ON)
    sock.setsockopt(tcp, TCP_REPAIR_QUEUE, SEND_QUEUE)
    sock.setsockopt(tcp, socket.TCP_NODELAY, 1)    # this pushes, as the timers do
    sock.setsockopt(tcp, TCP_REPAIR_QUEUE, NO_QUEUE)
    sock.setsockopt(tcp, TCP_REPAIR, REPAIR_OFF_NO_PROBE)
    return before - unsent(sock)


print(sum((mark if sys.argv[1] == "mark" else unsent)(s) for s in connections(int(sys.argv[2]))))
