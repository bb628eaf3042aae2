# SPDX-License-Identifier: Apache-2.0
"""stalls.py FREEZES DROPS STILL GAPS... - which gaps of applications were longer than the freezes they fell into

FREEZES is ms-cycle's --log, DROPS ms-wire's --drops, STILL of standsstill.py, each GAPS a --gaps file of ms-testcli or ms-churn; all
times are the same monotonic microseconds. A gap's excess is what remains of it when the freezes within are taken off, and HOPS times
as long as the machine stood still meanwhile: each of so many processes on the way may have been late. It is the wire's doing when
the wire dropped a packet of that connection within the gap or up to 100 ms before; else it is ours.

Prints one line of JSON: "gaps": that fell into a freeze, "longest_ms": of them, "excess_ms": the longest of ours, "where": which,
"over_100": how many of ours exceed 100 ms; "wire_excess_ms", "wire_over_100": those with a drop; "usual_ms": the longest gap that
met no freeze; "still_ms": the longest time the machine stood still.
"""
import bisect
import json
import os
import sys

BEFORE_US = 100000
HOPS = 4	# client, wire, tunstack, server


def rows(path):
    with open(path) as f:
        return [line.split() for line in f]


def overlaps(spans, begin, end):
    return [min(end, b) - max(begin, a) for a, b in spans if a < end and b > begin]


def main():
    freezes = sorted((int(r[0]), int(r[1])) for r in rows(sys.argv[1]))
    drops = {}
    for r in rows(sys.argv[2]):
        for port in (r[2], r[3]) if r[1] != "reset" else ():
            drops.setdefault(port, []).append(int(r[0]))
    still = sorted((int(r[0]), int(r[1])) for r in rows(sys.argv[3]) if len(r) == 2)
    out = dict(still_ms=max((b - a for a, b in still), default=0) / 1000, gaps=0, longest_ms=0, excess_ms=0, where="", over_100=0, wire_excess_ms=0, wire_over_100=0, usual_ms=0)
    for path in sys.argv[4:]:
        for begin, end, port in rows(path):
            begin, end = int(begin), int(end)
            met = overlaps(freezes, begin, end)
            if not met:
                out["usual_ms"] = max(out["usual_ms"], (end - begin) / 1000)
                continue
            excess = (end - begin - sum(met) - HOPS * sum(overlaps(still, begin, end))) / 1000
            out["gaps"] += 1
            out["longest_ms"] = max(out["longest_ms"], (end - begin) / 1000)
            times = drops.get(port, [])
            at = bisect.bisect_left(times, begin - BEFORE_US)
            if at < len(times) and times[at] <= end:
                out["wire_excess_ms"] = max(out["wire_excess_ms"], excess)
                out["wire_over_100"] += excess > 100
                continue
            out["over_100"] += excess > 100
            if excess > out["excess_ms"]:
                out["excess_ms"] = excess
                out["where"] = "%s %d-%d port %s" % (os.path.basename(path), begin, end, port)
    print(json.dumps(out))


main()
