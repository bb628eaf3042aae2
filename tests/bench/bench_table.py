# SPDX-License-Identifier: Apache-2.0
"""bench_table.py BENCH SAMPLES [--json FILE] [--plot FILE.svg] [--md FILE.md] [--setting NAME=TEXT ...] - a benchmark's medians, shown

BENCH is throughput, latency, paper2001 or thesis. SAMPLES has a line for each number measured, separated by tabs: kind, way, round,
name of the number, value. Ratios and differences are taken within a round, against the kind's base; then come median, least, most.
"""
import datetime
import json
import os
import platform
import statistics
import sys
import xml.sax.saxutils

COLOURS = ["#4a7fb5", "#b5504b", "#c9a227", "#5b8c5a", "#7d5a8c", "#888888"]
TITLES = {"direct": "direct (kernel, bare wire)", "vxlan": "kernel VXLAN", "encrypted": "**encrypted**", "spin": "encrypted, spin", "plain": "plain",
          "nebula": "nebula", "wireguard-go": "wireguard-go", "tinc": "tinc, no cipher", "veth": "a bare veth pair",
          "colocated": "two workloads on one node"}
CASES = {"spin": "encrypted, spin"}


class Samples:
    """numbers by kind, way, name and round"""

    def __init__(self, path):
        self.numbers, self.order = {}, {}
        with open(path) as f:
            for line in f:
                kind, way, turn, name, value = line.rstrip("\n").split("\t")
                self.numbers.setdefault((kind, way, name), {})[turn] = float(value)
                ways = self.order.setdefault(kind, [])
                if way not in ways:
                    ways.append(way)

    def get(self, kind, way, name):
        return list(self.numbers.get((kind, way, name), {}).values())

    def paired(self, kind, way, base, name, how):
        """how(of the way, of the base) for each round both were measured in"""
        a, b = self.numbers.get((kind, way, name), {}), self.numbers.get((kind, base, name), {})
        return [how(a[turn], b[turn]) for turn in a if turn in b]


def spread(values):
    return (statistics.median(values), min(values), max(values)) if values else None


def shown(values, form="%.2f"):
    """median (least..most)"""
    s = spread(values)
    return "-" if s is None else (form + " (" + form + ".." + form + ")") % s


def table(out, heads, rows):
    out.append("| " + " | ".join(heads) + " |")
    out.append("|" + "---|" * len(heads))
    out.extend("| " + " | ".join(r) + " |" for r in rows)
    out.append("")


def print_plain(lines):
    """the Markdown tables, in columns for a terminal"""
    block = []
    for line in lines + [""]:
        if line.startswith("|"):
            block.append([c.strip().replace("**", "") for c in line.strip("|").split("|")])
            continue
        widths = [max(len(r[i]) for r in block) for i in range(len(block[0]))] if block else []
        for r in block:
            if not set(r[0]) <= {"-"} or not r[0]:
                print("  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths))))
        block = []
        if not line.startswith("!"):
            print(line.lstrip("# ").replace("**", ""))


def machine():
    model = "unknown"
    with open("/proc/cpuinfo") as f:
        for line in f:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return "%s, %d virtual CPUs (%s), kernel %s" % (datetime.date.today().isoformat(), len(os.sched_getaffinity(0)), model, platform.release())


def text(x, y, s, size=11, anchor="middle", extra=""):
    return '<text x="%.1f" y="%.1f" font-size="%d" text-anchor="%s" %s>%s</text>' % (x, y, size, anchor, extra, xml.sax.saxutils.escape(s))


def step_of(top):
    step = 10.0 ** -3
    while top / step > 8:
        step *= 2.5 if ("%g" % step).lstrip("0.").startswith("2") else 2
    return step


def plot(path, title, axis, groups, series):
    """bars: groups = names along the axis, series = [(name, [(median, least, most) or None for each group])]"""
    width, height, left, top = 900, 320, 70, 70
    shown_values = [v for _, values in series for v in values if v]
    limit = 1.5 * max(abs(v[0]) for v in shown_values) or 1  # a line of one wild round ends there
    most = min(max(max(v[2] for v in shown_values), 0), limit) or 1
    least = max(min(min(v[1] for v in shown_values), 0), -limit)
    out = ['<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" fill="#222">' % (width + left + 20, height + top + 60),
           '<rect width="100%" height="100%" fill="white"/>', text(left + width / 2, 22, title, 14)]

    def at(v):
        v = min(max(v, least), most)
        return top + height * (1 - (v - least) / (most - least))

    step = step_of(most - least)
    for i in range(int(least / step) - 1, int(most / step) + 1):
        if least <= i * step <= most:
            out.append('<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#ddd"/>' % (left, left + width, at(i * step), at(i * step)))
            out.append(text(left - 6, at(i * step) + 4, "%g" % (i * step), 10, "end"))
    out.append(text(18, top + height / 2, axis, 11, "middle", 'transform="rotate(-90 18 %.1f)"' % (top + height / 2)))
    for i, (name, _) in enumerate(series):
        out.append('<rect x="%d" y="36" width="12" height="12" fill="%s"/>' % (left + i * 260, COLOURS[i % len(COLOURS)]))
        out.append(text(left + i * 260 + 17, 47, name, 12, "start"))
    group = width / len(groups)
    thick = group * 0.8 / len(series)
    for g, name in enumerate(groups):
        out.append(text(left + group * (g + 0.5), top + height + 18, name, 11))
        for i, (what, values) in enumerate(series):
            if not values[g]:
                continue
            v, lo, hi = values[g]
            x = left + group * (g + 0.1) + thick * i
            out.append('<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"><title>%s</title></rect>'
                       % (x, min(at(v), at(0)), thick * 0.92, max(abs(at(v) - at(0)), 0.5), COLOURS[i % len(COLOURS)],
                          xml.sax.saxutils.escape("%s, %s: %g (%g to %g)" % (what, name, v, lo, hi))))
            mid = x + thick * 0.46
            out.append('<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke="#222"/>' % (mid, mid, at(lo), at(hi)))
    out.append("</svg>")
    with open(path, "w") as f:
        f.write("\n".join(out) + "\n")


def minus(a, b):
    return a - b


def over(a, b):
    return a / b


def row(case, value, unit, ratio, **more):
    v = spread(value)
    r = {"case": case, "value": round(v[0], 4), "unit": unit, "ratio": round(statistics.median(ratio), 4) if ratio else None,
         "min": round(v[1], 4), "max": round(v[2], 4), "runs": len(value)}
    if ratio:
        r.update(ratio_min=round(min(ratio), 4), ratio_max=round(max(ratio), 4))
    r.update({k: round(x, 4) if isinstance(x, float) else x for k, x in more.items() if x is not None})
    return r


def bounds(name, values):
    """fields of a row"""
    s = spread(values)
    return {} if s is None else {name: float(s[0]), name + "_min": float(s[1]), name + "_max": float(s[2])}


def times(s, kind, name, ours, theirs, how):
    """sentences such as "4.3 (4.0..4.6) times nebula" """
    said = []
    for other in theirs:
        both = s.paired(kind, ours, other, name, how)
        if both:
            said.append("%s times %s" % (shown(both, "%.1f"), other))
    return ", ".join(said)


def base_of(kind):
    return "veth" if "local" in kind else "direct"


# ---- throughput --------------------------------------------------------------------------------------------------------------------

THROUGHPUT = [("tcp1", "TCP, 1 stream"), ("tcp4", "TCP, 4 streams"), ("udp1", "UDP, 1 stream of 1300-byte datagrams, received"),
              ("udp4", "UDP, 4 streams, received"), ("local", "Two workloads on one node: TCP, 1 stream"),
              ("local tcp4", "Two workloads on one node: TCP, 4 streams"), ("local udp1", "Two workloads on one node: UDP, received")]


def throughput(s, setting):
    lines, rows = [], []
    for kind, title in THROUGHPUT:
        if kind not in s.order:
            continue
        cells, base = [], base_of(kind)
        for way in s.order[kind]:
            rate, ratio = s.get(kind, way, "gbps"), s.paired(kind, way, base, "gbps", over)
            cores, all_cores, lost = s.get(kind, way, "cores"), s.get(kind, way, "machine"), s.get(kind, way, "lost")
            if not ratio:
                cells.append([TITLES[way] + ": no result"])
                continue
            cells.append([TITLES[way], shown(rate), "1" if way == base else shown(ratio), shown(cores), shown(all_cores)] +
                         ([shown(lost, "%.0f")] if "udp" in kind else []))
            case = ("" if kind in ("tcp1", "local") else kind.split()[-1] + " ") + CASES.get(way, way)
            rows.append(row(case, rate, "Gb/s", ratio, **bounds("cores_per_gbps", cores),
                            **bounds("machine_cores_per_gbps", all_cores), **bounds("lost_percent", lost), wire=setting["wire"]))
        lines += ["## " + title, ""]
        table(lines, ["way", "Gb/s", "ratio to direct" if base == "direct" else "ratio to veth", "cores per Gb/s: tunnel", "whole machine"] +
              (["lost, %"] if "udp" in kind else []), cells)
    said = times(s, "tcp1", "gbps", "encrypted", ["nebula", "wireguard-go", "tinc"], over)
    lines += ["One TCP stream, encrypted: %s." % said, ""]
    kinds = [k for k in ("tcp1", "tcp4", "udp1", "udp4") if k in s.order]
    ways = [w for w in s.order["tcp1"] if w != "direct"]
    chart = ("Throughput / direct, same round (wire: %s); medians, lines from least to most" % setting["wire"], "ratio to direct",
             [CASES.get(w, w) for w in ways], [(dict(THROUGHPUT)[k].split(" of ")[0].replace(", received", ""),
                                                [spread(s.paired(k, w, "direct", "gbps", over)) for w in ways]) for k in kinds])
    return ("Throughput: through the tunnel, beside the bare wire and other tunnels",
            "iperf3, %s rounds of %s s; UDP as fast as the sender can. Ratios are to the base in the same round. \"Tunnel\": processors that its own processes keep\n"
            "busy on both nodes, per gigabit a second (kernel ways have none); \"whole machine\": all processors, iperf3 and the kernel included.\n"
            "Wire of MTU 1500, offloads: %s (bench.bash). %s. Median (least..most)." % (setting["rounds"], setting["seconds"], setting["wire"], setting["rivals"]),
            lines, rows, chart)


# ---- latency -----------------------------------------------------------------------------------------------------------------------

LATENCY = [("64B", "64 bytes, everything on one CPU"), ("1KiB", "1 KiB, everything on one CPU"), ("free", "64 bytes, all CPUs"),
           ("free 1KiB", "1 KiB, all CPUs"), ("local", "Two workloads on one node: 64 bytes, one CPU"),
           ("local 1KiB", "Two workloads on one node: 1 KiB, one CPU"), ("local free", "Two workloads on one node: 64 bytes, all CPUs"),
           ("local free 1KiB", "Two workloads on one node: 1 KiB, all CPUs")]


def latency(s, setting):
    lines, rows = [], []
    for kind, title in LATENCY:
        if kind not in s.order:
            continue
        cells, base = [], base_of(kind)
        for way in s.order[kind]:
            p50, p99 = s.get(kind, way, "p50"), s.get(kind, way, "p99")
            added, ratio = s.paired(kind, way, base, "p50", minus), s.paired(kind, way, base, "p50", over)
            cells.append([TITLES[way], shown(p50, "%.1f"), "%.0f" % statistics.median(p99), "0" if way == base else shown(added, "%.1f")])
            case = ("" if kind in ("64B", "local") else kind.replace("local ", "") + " ") + CASES.get(way, way)
            rows.append(row(case, p50, "us", ratio, **bounds("added_us", added), p99_us=float(statistics.median(p99)), wire=setting["wire"]))
        lines += ["## " + title, ""]
        table(lines, ["way", "p50, us", "p99, us", "added to " + base], cells)
    kinds = [k for k in ("64B", "1KiB", "free") if k in s.order]
    ways = [w for w in s.order[kinds[-1]] if w != "direct"]
    chart = ("TCP round trip: added to the bare wire; medians, lines from least to most", "microseconds", [CASES.get(w, w) for w in ways],
             [(dict(LATENCY)[k].replace("everything on ", ""), [spread(s.paired(k, w, "direct", "p50", minus)) for w in ways]) for k in kinds])
    return ("Round trips: through the tunnel, beside the bare wire and other tunnels",
            "sockperf, TCP, one request outstanding, %s rounds of %s s. What a way adds is its p50 less that of the base in the same round. On one CPU (both ends\n"
            "and both daemons) the length of the path is measured; with all CPUs also how long sleeping ones take to wake. \"Spin\": `tunnel { spin = %s }`.\n"
            "Wire of MTU 1500, offloads: %s (bench.bash). %s. Median (least..most) of the rounds; p99: median."
            % (setting["rounds"], setting["seconds"], setting["spin"], setting["wire"], setting["rivals"]), lines, rows, chart)


# ---- paper2001 ---------------------------------------------------------------------------------------------------------------------

PAPER = [("none", "no overlayd on the nodes"), ("out", "out of the overlay (real addresses, overlayd runs)"), ("in", "**in the overlay, two nodes**"),
         ("plain", "in the overlay, two nodes, plain"), ("veth", "one node, no overlay (veth)"), ("one", "**in the overlay, one node**")]


def paper2001(s, setting):
    lines, rows = [], []
    sizes = list(s.order)
    for size in sizes:
        cells = []
        for way, title in PAPER:
            if way not in s.order[size]:
                continue
            base = "veth" if way in ("veth", "one") else "none"
            took, ratio = s.get(size, way, "ms"), s.paired(size, way, base, "ms", over)
            extra = s.paired(size, way, base, "ms", lambda a, b: (a / b - 1) * 100)
            rate = [float(setting["mib"]) * 1.048576 / t * 1000 for t in took]
            cells.append([title, shown(took, "%.0f"), "%.0f" % statistics.median(rate), "-" if way == base else shown(extra, "%.0f")])
            rows.append(row("%s %s" % (way, size), took, "ms", ratio, **bounds("overhead_percent", extra), mb_per_s=float(statistics.median(rate))))
        lines += ["## Messages of %s" % size, ""]
        table(lines, ["producer and consumer", "ms", "MB/s", "overhead, %"], cells)
    ways = [w for w, _ in PAPER if w not in ("none", "veth") and w in s.order[sizes[0]]]
    chart = ("Producer and consumer: overhead against kernel TCP at the same place; medians, lines from least to most", "percent of the time",
             ["messages of " + size for size in sizes],
             [(dict(PAPER)[w].replace("**", "").split(" (")[0],
               [spread(s.paired(size, w, "veth" if w == "one" else "none", "ms", lambda a, b: (a / b - 1) * 100)) for size in sizes]) for w in ways])
    return ("Producer and consumer, as in the paper of 2001: what the overlay costs",
            "A producer writes %s MiB in messages of one size, a consumer reads them and says how much came (ms-prodcons). %s rounds; overhead: how much longer it\n"
            "takes than kernel TCP at the same place in the same round (two nodes: nodes without overlayd; one node: two namespaces and a veth). Wire of MTU 1500,\n"
            "no segmentation offload; congestion control: the system's, %s. Median (least..most); MB/s: median. The paper's own figures are not known to us: its\n"
            "text was not at hand." % (setting["mib"], setting["rounds"], setting["congestion"]),
            lines, rows, chart)


# ---- thesis ------------------------------------------------------------------------------------------------------------------------

# what the thesis measured for its own sockets, in percent of the time through the home node (this project's notes)
THESIS_GAIN = {"1,2": -7, "1,1": 54, "2,2": -7, "2,3": 19, "3,3": 20}
WAYS = [("moved", "overlayd"), ("relayed", "home node: a process"), ("nat", "home node: in the kernel"), ("direct", "kernel TCP, no relay")]


def gain(a, b):
    return (1 - a / b) * 100


def thesis(s, setting):
    kib = sorted({int(k.split()[1]) for k in s.order})
    sends = [str(i) for i in range(1, int(setting["sends"]) + 1)]
    kinds = {place: ["%s %d" % (place, k) for k in kib] for place in THESIS_GAIN}
    rows, cells = [], []
    for place in THESIS_GAIN:
        def all_sizes(other, how):
            return [x for kind in kinds[place] for x in s.paired(kind, "moved", other, "mean", how)]

        for kind in kinds[place]:
            times = {way: float(statistics.median(s.get(kind, way, "mean"))) for way, _ in WAYS}
            rows.append(row(kind + " KiB", s.get(kind, "moved", "mean"), "ms", s.paired(kind, "moved", "relayed", "mean", over),
                            **bounds("gain_percent", s.paired(kind, "moved", "relayed", "mean", gain)),
                            **bounds("gain_over_nat_percent", s.paired(kind, "moved", "nat", "mean", gain)), relayed_ms=times["relayed"],
                            nat_ms=times["nat"], direct_ms=times["direct"], thesis_gain_percent=THESIS_GAIN[place]))
        cells.append([place] + ["%.1f" % (statistics.median(s.get(kinds[place][-1], way, "mean")) * 1024 / kib[-1]) for way, _ in WAYS] +
                     [shown(all_sizes("relayed", gain), "%+.0f"), shown(all_sizes("nat", gain), "%+.0f"), shown(all_sizes("direct", over)),
                      "%+d" % THESIS_GAIN[place]])
    lines = ["## Gains, after the thesis' table 5.3", "", "ms: per MiB, of the largest file; gains: of all files.", ""]
    table(lines, ["client, server"] + [title + ", ms" for _, title in WAYS] +
          ["**gain over the process, %**", "gain over the kernel's relay, %", "time / no relay", "the thesis' gain, %"], cells)
    lines += ["## Times, after the thesis' table 5.2", ""]
    for k in kib:
        lines += ["### A file of %d KiB, ms" % k, ""]
        cells = []
        for place in THESIS_GAIN:
            for way, title in WAYS:
                each = [statistics.median(s.get("%s %d" % (place, k), way, "send" + i)) for i in sends]
                cells.append([place, title] + ["%.1f" % e for e in each + [statistics.mean(each)]])
        table(lines, ["client, server", "way"] + ["send " + i for i in sends] + ["mean"], cells)
    chart = ("A file in echoed blocks of 1 KiB, client and server at nodes; medians, lines from least to most", "ms per MiB", list(THESIS_GAIN),
             [(title, [spread([x * 1024. / kib[-1] for x in s.get(kinds[place][-1], way, "mean")]) for place in THESIS_GAIN]) for way, title in WAYS])
    return ("The thesis' pattern: echoed blocks at five placements, beside home nodes",
            "A client sends files in blocks of 1 KiB, each echoed before the next goes out (ms-blockecho); %s rounds of %s sends. **overlayd**: one encrypted connection,\n"
            "both ends go from placement to placement by themselves. **Home node**: kernel TCP between programs placed by hand, in plaintext; the traffic of an end that is\n"
            "away from home (client 1, server 2) passes its home node, where a process passes it on, as openMosix' deputy did for each system call, or the kernel (NAT), which\n"
            "is the cheapest relay there is. **No relay**: the same without detour, what is to be had at best. At 1,2 nobody is away. Gain: how much less time overlayd\n"
            "needs, in the same round. Everything is on one CPU, and the wire has no length: on a real network each passage of a home node costs a wire's delay besides.\n"
            "The thesis' own text was not at hand: its gains are from this project's notes, and the tables follow 5.2 and 5.3 in content, not in layout."
            % (setting["rounds"], setting["sends"]), lines, rows, chart)


def main():
    bench, path = sys.argv[1:3]
    options, setting = {}, {}
    for name, value in zip(sys.argv[3::2], sys.argv[4::2]):
        if name == "--setting":
            setting.update([value.split("=", 1)])
        else:
            options[name] = value
    title, how, lines, rows, chart = {"throughput": throughput, "latency": latency, "paper2001": paper2001, "thesis": thesis}[bench](Samples(path), setting)
    print(title + "\n")
    print_plain(lines)
    if "--json" in options:
        with open(options["--json"], "w") as f:
            json.dump({"bench": bench, "machine": machine(), "rows": rows}, f, indent=1)
            f.write("\n")
    if "--plot" in options:
        plot(options["--plot"], *chart)
    if "--md" in options:
        with open(options["--md"], "w") as f:
            f.write("# %s\n\nWritten by `tests/bench/%s`: %s; load when it began: %s.\n\n%s\n\n![%s](%s)\n\n%s\n"
                    % (title, bench, machine(), setting.get("load", "unknown"), how, bench, os.path.basename(options["--plot"]), "\n".join(lines).rstrip()))


main()
