#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""faultlook.py - what must hold once the dust of a failed migration has settled (tests/bats/faults.bats)

Usage: faultlook.py LAB SECONDS DIR CLIENT...

Looks at nodes n1 and n2 of the lab from outside: files by way of the node's holder, processes by its cgroup. Waits up to SECONDS for
everybody to be done with the workload "app"; then there must be one copy of its server, on the one node that has it, whose name and
generation the directory gives; every client's status file DIR/CLIENT.json must go on without an error; DIR/lock must be locked and
DIR/name be listened to (FAULT_LOCK=lost in the environment: but for the lock); and nothing else may be left. Prints what does not hold. Exit status: 0 all does, 1 something does not.
"""
import fcntl
import glob
import json
import os
import socket
import subprocess
import sys
import time

NODES = ("n1", "n2")
SERVER = "ms-testsrv"
KERNEL_RULES = ("0", "32766", "32767")
ANSWER_S = 60
MOMENT_S = 20


def read(path):
    try:
        with open(path) as f:
            return f.read()
    except OSError:
        return ""


class Node:
    def __init__(self, lab, name):
        self.name = name
        self.root = "/proc/%s/root" % read("/tmp/ms-lab-%s/holders/%s" % (lab, name)).split()[0]
        mounts = [line.split() for line in read("/proc/mounts").splitlines()]
        top = os.environ.get("LAB_CGROUP") or next(m[1] for m in mounts if m[2] == "cgroup2")
        self.cgroup = "%s/ms-lab-%s/%s" % (top, lab, name)

    def workload(self):
        text = read(self.root + "/run/overlayd/workloads/app/state.json")
        return json.loads(text) if text else None

    def processes(self):
        pids = []
        for path in [self.cgroup] + glob.glob(self.cgroup + "/**/", recursive=True):
            pids += read(path + "/cgroup.procs").split()
        found = [(int(p), read("/proc/%s/comm" % p).strip()) for p in set(pids)]
        return [(p, comm) for p, comm in found if comm]

    def count(self, *prefixes):
        return ["%s: process %d %s" % (self.name, p, comm) for p, comm in self.processes() if comm.startswith(prefixes)]

    def journals(self):
        return [d for d in glob.glob(self.root + "/run/overlayd/migrations/*") if os.path.isdir(d)]

    def fabric(self, *args):
        cmd = ["nsenter", "--net=%s/run/netns/ovl-fabric" % self.root, "ip", *args]
        return subprocess.run(cmd, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()

    def left(self, is_holder):
        out = ["%s: cgroup %s" % (self.name, g) for g in glob.glob(self.cgroup + "/**/overlayd-*", recursive=True)]
        out += ["%s: route %s" % (self.name, r) for r in self.fabric("route", "show", "table", "all")
                if "hold-" in r or r.startswith(("blackhole", "throw"))]
        out += ["%s: rule %s" % (self.name, r) for r in self.fabric("rule", "show") if r.split(":")[0] not in KERNEL_RULES]
        out += self.count("ms-root", "criu", "ms-agent")
        if is_holder:
            return out
        if os.path.exists(self.root + "/run/netns/app"):
            out.append("%s: namespace app" % self.name)
        return out + self.count("ms-init", SERVER, "tunstack")


def quiet(nodes):
    for n in nodes:
        w = n.workload()
        if n.journals():
            return "%s: journal %s" % (n.name, n.journals())
        if w and w["migration"]:
            return "%s: part of %s" % (n.name, w["migration"])
        if n.count("ms-agent", "criu"):
            return str(n.count("ms-agent", "criu"))
    return ""


def await_(seconds, what):
    """until what() is false: that is good; else what it said last"""
    end = time.monotonic() + seconds
    while True:
        said = what()
        if not said or time.monotonic() > end:
            return said
        time.sleep(0.03)


def received(folder, client):
    text = read("%s/%s.json" % (folder, client))
    return json.loads(text) if text else {"bytes_received": 0, "errors": 0, "lost": 0}


def clients_wrong(folder, clients):
    before = {c: received(folder, c)["bytes_received"] for c in clients}
    stuck = await_(ANSWER_S, lambda: [c for c in clients if received(folder, c)["bytes_received"] <= before[c] + 1])
    wrong = [c for c in clients if received(folder, c)["errors"] or received(folder, c)["lost"]]
    return ["client %s gets no answer" % c for c in stuck] + ["client %s: %s" % (c, received(folder, c)) for c in wrong]


def directory(lab):
    script = os.path.join(os.path.dirname(os.path.realpath(__file__)), "../../scripts/lab")
    out = subprocess.run([script, "exec", "n3", "overlayd", "where", "app", "--json"], stdout=subprocess.PIPE, text=True, check=False,
                         env=dict(os.environ, LAB_NAME=lab)).stdout
    return ["%s %s" % (b["node"], b["generation"]) for b in json.loads(out or "[]")]


def lock_wrong(folder):
    if os.environ.get("FAULT_LOCK") == "lost":
        return []
    with open(folder + "/lock") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return []
    return ["its lock was lost"]


def name_wrong(folder):
    out = ["name put aside: %s" % p for p in glob.glob(folder + "/*.ms-*")]
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(60)
    try:
        s.connect(folder + "/name")
        s.recv(1)
    except OSError as e:
        out.append("its UNIX name: %s" % e)
    s.close()
    return out


def main():
    lab, seconds, folder, clients = sys.argv[1], float(sys.argv[2]), sys.argv[3], sys.argv[4:]
    nodes = [Node(lab, n) for n in NODES]
    wrong = []
    busy = await_(seconds, lambda: quiet(nodes))
    if busy:
        wrong.append("not over: %s" % busy)
    copies = [(n.name, p) for n in nodes for p, comm in n.processes() if comm == SERVER]
    holders = [n for n in nodes if n.workload()]
    if len(copies) != 1:
        wrong.append("copies: %s" % copies)
    if len(holders) != 1 or holders[0].workload()["state"] != "live":
        wrong.append("nodes that have it: %s" % [(n.name, n.workload()["state"]) for n in holders])
    if not wrong and copies[0][0] != holders[0].name:
        wrong.append("it runs on %s and is said to be on %s" % (copies[0][0], holders[0].name))
    wrong += clients_wrong(folder, clients)
    if len(holders) == 1:
        said = "%s %s" % (holders[0].name, holders[0].workload()["generations"][0])
        if directory(lab) != [said]:
            wrong.append("the directory says %s, the node %s" % (directory(lab), said))
    for n in nodes:
        # what was told to end may take a moment
        wrong += await_(MOMENT_S, lambda: n.left(n in holders)) or []
    wrong += lock_wrong(folder) + name_wrong(folder)
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
