# SPDX-License-Identifier: Apache-2.0
"""connecting.py - a program that is frozen while its connect() waits, and the other end

    connecting.py serve ADDR PORT DIR BYTES   sends BYTES bytes to whoever comes, at once; then receives a line and answers it.
                                              DIR/serving when it listens, DIR/greeted when it has sent them, DIR/served when all is over.
    connecting.py go ADDR PORT DIR [block]    DIR/connecting with its pid, then connect(), without "block" a non-blocking one that poll()
                                              waits for. DIR/result has what came of it: "ECONNREFUSED", or, when the bytes
                                              are as they must be and a line that was sent has been answered, "ok BYTES". ADDR may be
                                              an IPv6 one with an IPv4 one in it.
"""
import errno
import os
import select
import socket
import sys

LINE = b"are you still there?\n"


def put(path, text):
    with open(path + ".new", "w", encoding="ascii") as f:
        f.write(text)
    os.rename(path + ".new", path)


def pattern(n):
    return bytes(i * 7 % 251 for i in range(n))


def receive(sock, n):
    data = b""
    while len(data) < n and (piece := sock.recv(n - len(data))):
        data += piece
    return data


def serve(addr, port, out, n):
    listener = socket.create_server((addr, int(port)))
    put(f"{out}/serving", "")
    sock, _ = listener.accept()
    sock.sendall(pattern(int(n)))
    put(f"{out}/greeted", "")
    sock.sendall(receive(sock, len(LINE))[::-1])
    sock.shutdown(socket.SHUT_WR)
    assert sock.recv(1) == b""
    put(f"{out}/served", "")


def connect(sock, addr, port, out, block):
    sock.setblocking(block)
    put(f"{out}/connecting", str(os.getpid()))
    error = sock.connect_ex((addr, port))
    if error != errno.EINPROGRESS:
        return error
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    poll.poll()
    sock.setblocking(True)
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def go(addr, port, out, how=""):
    with socket.socket(socket.AF_INET6 if ":" in addr else socket.AF_INET) as sock:
        error = connect(sock, addr, int(port), out, how == "block")
        if error:
            put(f"{out}/result", errno.errorcode[error])
            return
        sock.sendall(LINE)
        data = b""
        while piece := sock.recv(1 << 16):
            data += piece
        n = len(data) - len(LINE)
        assert data == pattern(n) + LINE[::-1], f"{len(data)} bytes"
        put(f"{out}/result", f"ok {n}")


if __name__ == "__main__":
    {"serve": serve, "go": go}[sys.argv[1]](*sys.argv[2:])
