# SPDX-License-Identifier: Apache-2.0
"""standinpeer.py - both ends of the connections of tests/bats/tunstack_standin.bats

    standinpeer.py serve ADDR PORT DIR     reads each connection to its end; after an end in order its SHA-256 goes back. A first line
                                           "half" is answered by 1000 bytes and our FIN, at once. For each connection DIR/served.PORT,
                                           PORT being the client's: JSON {bytes, sha, end: "eof", "reset", ...}. DIR/serving when ready.
    standinpeer.py talk ADDR PORT DIR NAME [half] [bytes=N] [fin] [reset] [later]
                                           connects (with "later" not before DIR/go is there), says one line, writes DIR/NAME.up (its
                                           port), waits for DIR/go, sends N bytes, then ends as told; DIR/NAME.sent has the seconds that
                                           took since go. fin: awaits the server's sum and end, and compares. Exit status 0 if all is right.
"""
import fcntl
import hashlib
import json
import os
import socket
import struct
import sys
import threading
import time


def put(path, text):
    with open(path + ".new", "w", encoding="ascii") as f:
        f.write(text)
    os.rename(path + ".new", path)


def serve_one(sock, port, out):
    sha, n, end, first = hashlib.sha256(), 0, "eof", b""
    try:
        while data := sock.recv(1 << 16):
            sha.update(data)
            n += len(data)
            if b"\n" not in first:
                first += data
                if first.startswith(b"half\n"):
                    sock.sendall(bytes(1000))
                    sock.shutdown(socket.SHUT_WR)
        if not first.startswith(b"half\n"):
            sock.sendall(sha.hexdigest().encode())
    except ConnectionResetError:
        end = "reset"
    except OSError as e:
        end = e.strerror
    sock.close()
    put(f"{out}/served.{port}", json.dumps({"bytes": n, "sha": sha.hexdigest(), "end": end}))


def serve(addr, port, out):
    listener = socket.create_server((addr, int(port)), backlog=20)
    put(f"{out}/serving", "")
    while True:
        sock, peer = listener.accept()
        threading.Thread(target=serve_one, args=(sock, peer[1], out), daemon=True).start()


def await_file(path):
    while not os.path.exists(path):
        time.sleep(0.005)


def receive_all(sock):
    data = b""
    while piece := sock.recv(4096):
        data += piece
    return data


def talk(addr, port, out, name, *words):
    size = next((int(w[6:]) for w in words if w.startswith("bytes=")), 0)
    if "later" in words:
        await_file(f"{out}/go")
    begin = time.monotonic()
    sock = socket.create_connection((addr, int(port)))
    line = b"half\n" if "half" in words else b"hello\n"
    sock.sendall(line)
    put(f"{out}/{name}.up", str(sock.getsockname()[1]))
    await_file(f"{out}/go")
    if "later" not in words:
        begin = time.monotonic()
    data = bytes(i * 7 % 251 for i in range(size))
    sock.sendall(data)
    if "fin" in words:
        sock.shutdown(socket.SHUT_WR)
    if "reset" in words:
        # what was sent is to be acknowledged before
        while struct.unpack("i", fcntl.ioctl(sock, 0x5411, bytes(4)))[0]:
            time.sleep(0.005)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    put(f"{out}/{name}.sent", str(time.monotonic() - begin))
    if "reset" in words:
        return 0
    got = receive_all(sock)
    want = bytes(1000) if "half" in words else hashlib.sha256(line + data).hexdigest().encode()
    if got != want:
        print(f"{name}: {len(got)} bytes {got[:64]!r}, not {want[:64]!r}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit({"serve": serve, "talk": talk}[sys.argv[1]](*sys.argv[2:]))
