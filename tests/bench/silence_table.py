# SPDX-License-Identifier: Apache-2.0
"""silence_table.py SAMPLES [--json FILE] [--plot FILE.svg] [--table FILE.md] - medians of tests/bench/silence, shown

SAMPLES has a line for each run and workload, separated by tabs: workload, freeze (ms, 0 = none), mode, silence (ms), stall (ms),
bytes done, connections alive.
"""
import json
import math
import os
import statistics
import sys

WORKLOADS = ["paced upload", "bulk upload", "download", "ping-pong", "keepalive"]
MODES = ["drop", "hold", "stand-in", "stand-in at once"]
COLOURS = {"drop": "#b5504b", "hold": "#c9a227", "stand-in": "#4a7fb5", "stand-in at once": "#2f5d8a"}


def duration(ms):
    return "%g s" % (ms / 1000) if ms >= 1000 else "%d ms" % ms


def read(path):
    samples = {}
    with open(path) as f:
        for line in f:
            workload, freeze, mode, silence, stall, done, alive = line.rstrip("\n").split("\t")
            samples.setdefault((workload, int(freeze), mode), []).append((float(silence), float(stall), int(done), int(alive)))
    return samples


def row(samples, workload, freeze, mode):
    runs = samples.get((workload, freeze, mode))
    if not runs:
        return None
    silence, stall, done, alive = zip(*runs)
    base = samples.get((workload, freeze, "drop"))
    before = statistics.median(s[0] for s in base) if base else 0
    value = statistics.median(silence)
    usual = samples.get((workload, 0, "usual"))
    return {
        "case": "%s %s %s" % (workload, duration(freeze), mode) if freeze else "%s usual" % workload,
        "value": value, "unit": "ms", "ratio": round(value / before, 4) if before else None, "min": min(silence), "max": max(silence),
        "runs": len(runs), "usual_ms": statistics.median(s[0] for s in usual) if usual else None,
        "stall_ms": statistics.median(stall), "stall_min": min(stall), "stall_max": max(stall),
        "done_bytes": statistics.median(done), "alive": sum(alive),
    }


def all_rows(samples):
    freezes = sorted({k[1] for k in samples if k[1]})
    for workload in WORKLOADS:
        for freeze, modes in [(0, ["usual"])] + [(f, MODES) for f in freezes]:
            for mode in modes:
                r = row(samples, workload, freeze, mode)
                if r:
                    yield workload, freeze, mode, r


def stall_text(workload, r):
    if workload == "keepalive":
        return "-"
    return "%.0f (%.0f..%.0f)" % (r["stall_ms"], r["stall_min"], r["stall_max"])


def print_table(rows):
    print("peers of a frozen program: median (least..most), ms; bytes done during the freeze; connections alive")
    print("%-40s %26s %26s %12s %6s" % ("case", "longest silence", "longest stall", "done", "alive"))
    for workload, _, _, r in rows:
        print("%-40s %26s %26s %12d %4d/%d" % (r["case"], "%.0f (%.0f..%.0f)" % (r["value"], r["min"], r["max"]),
                                             stall_text(workload, r), r["done_bytes"], r["alive"], r["runs"]))


def write_markdown(path, rows, plot):
    with open(path, "w") as f:
        f.write("# Silence: what peers hear while a program is frozen\n\n"
                "Written by `tests/bench/silence`; its head tells what is measured and how. Medians of %d runs, least and most in\n"
                "brackets. A download asks nothing of its server, so its silence is none.\n\n![silence](%s)\n\n"
                % (max(r["runs"] for _, _, _, r in rows), os.path.basename(plot)))
        f.write("| workload | freeze | mode | longest silence, ms | longest stall, ms | done in the freeze, KB | alive |\n"
                "|---|---|---|---|---|---|---|\n")
        for workload, freeze, mode, r in rows:
            f.write("| %s | %s | %s | %.0f (%.0f..%.0f) | %s | %d | %d of %d |\n"
                    % (workload, duration(freeze) if freeze else "none", mode, r["value"], r["min"], r["max"],
                       stall_text(workload, r), r["done_bytes"] / 1000, r["alive"], r["runs"]))


def bar(x, y, width, height, colour, title):
    return ('<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"><title>%s</title></rect>'
            % (x, y, width, max(height, 0.5), colour, title))


def text(x, y, s, size=11, anchor="middle", extra=""):
    return '<text x="%.1f" y="%.1f" font-size="%d" text-anchor="%s" %s>%s</text>' % (x, y, size, anchor, extra, s)


def panel(out, left, top, width, height, title, values, freezes):
    """bars over a logarithmic axis from 1 ms to 30 s; values: (freeze, mode) -> (median, least, most)"""
    lowest, highest = 0, math.log10(30000)

    def at(v):
        return top + height * (1 - (math.log10(max(v, 1)) - lowest) / (highest - lowest))

    out.append(text(left + width / 2, top - 8, title, 13))
    for v in (1, 10, 100, 1000, 10000):
        out.append('<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke="#ddd"/>' % (left, left + width, at(v), at(v)))
        out.append(text(left - 4, at(v) + 4, duration(v), 10, "end"))
    group = width / len(freezes)
    for i, freeze in enumerate(freezes):
        out.append(text(left + group * (i + 0.5), top + height + 14, duration(freeze), 10))
        thick = group * 0.8 / len(MODES)
        for j, mode in enumerate(MODES):
            v = values.get((freeze, mode))
            if not v:
                continue
            x = left + group * (i + 0.1) + thick * j
            out.append(bar(x, at(v[0]), thick * 0.9, top + height - at(v[0]), COLOURS[mode],
                           "%s, freeze %s: %.1f ms (%.1f to %.1f)" % (mode, duration(freeze), v[0], v[1], v[2])))
            mid = x + thick * 0.45
            out.append('<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke="#222"/>' % (mid, mid, at(v[1]), at(v[2])))


def write_plot(path, rows):
    freezes = sorted({freeze for _, freeze, _, _ in rows if freeze})
    width, height, gap = 300, 170, 70
    names = [w for w in WORKLOADS if any(r[0] == w for r in rows)]
    total = gap + len(names) * (width + gap)
    out = ['<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" fill="#222">'
           % (total, 2 * (height + gap) + 60), '<rect width="100%" height="100%" fill="white"/>']
    for i, mode in enumerate(MODES):
        out.append('<rect x="%d" y="10" width="12" height="12" fill="%s"/>' % (gap + i * 150, COLOURS[mode]))
        out.append(text(gap + i * 150 + 17, 21, mode, 12, "start"))
    out.append(text(gap + 620, 21, "by length of the freeze; medians, lines from least to most", 12, "start"))
    for k, (what, fields) in enumerate((("silence", ("value", "min", "max")), ("stall", ("stall_ms", "stall_min", "stall_max")))):
        for i, name in enumerate(names):
            values = {(f, m): tuple(r[x] for x in fields) for w, f, m, r in rows if w == name and f}
            if (what, name) in (("stall", "keepalive"), ("silence", "download")):
                continue
            panel(out, gap + i * (width + gap), 70 + k * (height + gap), width, height, "%s: longest %s" % (name, what), values, freezes)
    out.append("</svg>")
    with open(path, "w") as f:
        f.write("\n".join(out) + "\n")


def main():
    options = dict(zip(sys.argv[2::2], sys.argv[3::2]))
    rows = list(all_rows(read(sys.argv[1])))
    print_table(rows)
    if "--json" in options:
        with open(options["--json"], "w") as f:
            json.dump({"bench": "silence", "rows": [r for _, _, _, r in rows]}, f)
    if "--table" in options:
        write_markdown(options["--table"], rows, options["--plot"])
    if "--plot" in options:
        write_plot(options["--plot"], rows)


main()
