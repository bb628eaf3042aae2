#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A relay that does one wrong thing, to see that ms-testcli notices.

usage: mangle.py LISTENPORT TARGETPORT flip|drop|repeat|close AT
What goes from the target to the client is passed on; at byte AT of it one byte is flipped, dropped or repeated, or both
connections are closed. One connection, then it ends."""
import socket
import sys
import threading


def pump(src, dst):
    while data := src.recv(65536):
        dst.sendall(data)
    dst.shutdown(socket.SHUT_WR)


def mangle(data, what, at):
    if what == "flip":
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]
    if what == "drop":
        return data[:at] + data[at + 1:]
    return data[:at] + data[at:at + 1] + data[at:]


def main():
    port, target, what, at = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    listener = socket.create_server(("127.0.0.1", port))
    client, _ = listener.accept()
    server = socket.create_connection(("127.0.0.1", target))
    threading.Thread(target=pump, args=(client, server), daemon=True).start()
    seen = 0
    while data := server.recv(65536):
        if seen <= at < seen + len(data):
            if what == "close":
                return
            data = mangle(data, what, at - seen)
        seen += len(data)
        client.sendall(data)


main()
