# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# bench.bash - what tests/bench/{throughput,latency,thesis,paper2001} share: their options, their samples, what they leave
#
# Sourced; NAME is the script's. `bench_begin "$@"` reads the options; `sample KIND WAY ROUND NUMBER VALUE` notes what was measured;
# `bench_report NAME=TEXT...` makes the table, the JSON, the plot and the page of all samples. In full, docs/NAME.svg and
# docs/bench-NAME.md are written unless other files are named; with --quick only what is named.

TOP=$(cd "$(dirname "$(readlink -f "$0")")/../.." && pwd)
BUILD=${BUILD:-$TOP/build}
[[ $BUILD == /* ]] || BUILD=$TOP/$BUILD
export BUILD
PATH=$BUILD/bin:$PATH:/usr/sbin
NAME=$(basename "$0")
QUICK=0 JSON='' PLOT='' MD=''
LOAD=$(cut -d' ' -f1 /proc/loadavg)

bench_usage() {
	echo "usage: tests/bench/$NAME [--quick] [--json FILE] [--plot FILE.svg] [--md FILE.md]" >&2
	exit 2
}

bench_begin() {
	while [ $# -gt 0 ]; do
		case $1 in
		--quick) QUICK=1 ;;
		--json) [ $# -gt 1 ] || bench_usage; JSON=$2; shift ;;
		--plot) [ $# -gt 1 ] || bench_usage; PLOT=$2; shift ;;
		--md) [ $# -gt 1 ] || bench_usage; MD=$2; shift ;;
		*) bench_usage ;;
		esac
		shift
	done
	[ "$(id -u)" -eq 0 ] || { echo "$NAME: needs root" >&2; exit 2; }
	if [ $QUICK -eq 0 ]; then
		PLOT=${PLOT:-$TOP/docs/$NAME.svg}
		MD=${MD:-$TOP/docs/bench-$NAME.md}
	elif [ -n "$MD" ]; then
		PLOT=${PLOT:-${MD%.md}.svg}
	fi
	"$TOP/scripts/install-deps" --bench
	WORK=$(mktemp -d /tmp/ms-bench.XXXXXX)
	: >"$WORK/samples"
}

sample() { printf '%s\t%s\t%s\t%s\t%s\n' "$@" >>"$WORK/samples"; }

bench_report() { # NAME=TEXT...: what the page says about how it was measured
	local s args=(--setting "load=$LOAD")
	for s in "$@"; do args+=(--setting "$s"); done
	[ -z "$JSON" ] || args+=(--json "$JSON")
	[ -z "$PLOT" ] || args+=(--plot "$PLOT")
	[ -z "$MD" ] || args+=(--md "$MD")
	python3 "$TOP/tests/bench/bench_table.py" "$NAME" "$WORK/samples" "${args[@]}"
}

await() { # WHAT CMD...: within twenty seconds
	local what=$1 i
	shift
	for ((i = 0; i < 400; i++)); do
		"$@" >/dev/null 2>&1 && return
		sleep 0.05
	done
	echo "$NAME: $what does not come up" >&2
	tail -n 20 "$WORK"/*.log >&2 || true
	exit 1
}

# every packet one by one, as on a wire of MTU 1500: at nodes 1..N of a lab and at the ports they are plugged in. WIRE=gro leaves
# receive offload on, WIRE=asis everything
WIRE=${WIRE:-wire}
wire_offloads() { # LAB N
	local n on=(tso off gso off tx-udp-segmentation off)
	[ "$WIRE" != asis ] || return 0
	[ "$WIRE" = gro ] || on+=(gro off)
	for ((n = 1; n <= $2; n++)); do
		LAB_NAME=$1 "$TOP/scripts/lab" exec n$n ethtool -K eth0 "${on[@]}" >/dev/null 2>&1
	done
	# shellcheck disable=SC2016
	nsenter --target "$(cut -d' ' -f1 "/tmp/ms-lab-$1/holders/wire")" --net bash -c '
		for port in $(ip -o link show type veth | cut -d: -f2 | cut -d@ -f1); do ethtool -K $port "$@"; done' x "${on[@]}" >/dev/null 2>&1
}
