# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2034
# wirelab.bash - two nodes, and on request a third, joined by ms-wire; for tests and benchmarks of the stand-in
#
#   node here:  ovl-fabric: ve-app -- app 192.168.5.2   overlay0 --.
#   node there: the same workload's other home          overlay0 --+-- ms-wire --- overlay0  node far: ve-peer -- peer 192.168.5.7
#
# Each node has a tunstack process for its workload; no overlayd, no directory, no CRIU. Needs BUILD and root. The test programs use
# cubic, whatever the machine's default is (MS_CONGESTION).
#
#   wl_up DIR [--there] [ms-wire options]   DIR (short: sockets are in it) keeps pids, logs, sockets
#   wl_in NODE CMD...       in the node; wl_net NODE CMD... in its workload's network namespace
#   wl_stack NODE           path of its tunstack's socket, from outside the node
#   wl_stack_up NODE        start its tunstack again (the first is started by wl_up)
#   wl_stack_pid NODE
#   wl_bg NAME CMD...       in the background: output in DIR/NAME.out and .err; its pid is in $WL_PID, and ended by wl_down
#   wl_server NODE NAME [ARGS] ENDPOINT   ms-testsrv there, listening; its pid is in $WL_SERVER
#   wl_wire COMMAND...      ask the wire
#   wl_down                 ends what wl_up and wl_bg started, by pid

export MS_CONGESTION=${MS_CONGESTION:-cubic}
WL_APP=192.168.5.2
WL_PEER=192.168.5.7

_wl_start() { # pid: with its start time a pid names one process
	sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | awk '$1 != "Z" { print $20 }'
}

wl_bg() {
	local name=$1
	shift
	setsid "$@" </dev/null >"$WL_DIR/$name.out" 2>"$WL_DIR/$name.err" 3>&- &
	WL_PID=$!
	disown $WL_PID
	echo "$WL_PID $(_wl_start $WL_PID) $name" >>"$WL_DIR/pids"
}

_wl_await() { # file name
	local end=$((SECONDS + 60))
	until [ -s "$1" ]; do
		[ $SECONDS -lt $end ] || { echo "wirelab: $2 does not start" >&2; cat "$WL_DIR/$2.err" >&2; return 1; }
		sleep 0.02
	done
}

_wl_pid() { cat "$WL_DIR/node.$1"; }
wl_in() { local node=$1; shift; nsenter -t "$(_wl_pid "$node")" -n -m -- "$@"; }
_wl_name() { [ "$1" = far ] && echo peer || echo app; }
_wl_vip() { [ "$1" = far ] && echo $WL_PEER || echo $WL_APP; }
wl_net() { local node=$1; shift; wl_in "$node" ip netns exec "$(_wl_name "$node")" "$@"; }
wl_stack() { echo "/proc/$(_wl_pid "$1")/root/run/stack.sock"; }
wl_stack_pid() { cat "$WL_DIR/stack.$1"; }
wl_wire() { "$BUILD/bin/ms-wire" --ask "$WL_DIR/wire" "$@"; }

wl_stack_up() { # node
	wl_in "$1" "$BUILD/bin/stacktool" spawn "$(_wl_name "$1")" 1 "$(_wl_vip "$1")" /run/stack.sock "$WL_DIR/stack.$1.log" 0 \
		/run/netns/ovl-fabric >"$WL_DIR/stack.$1" || return 1
	echo "$(wl_stack_pid "$1") $(_wl_start "$(wl_stack_pid "$1")") stack" >>"$WL_DIR/pids"
}

_wl_node_up() { # node
	wl_bg "node.$1" unshare -n -m bash -c "mount --make-rprivate / && mount -t tmpfs none /run && ip link set lo up &&
		echo \$\$ >$WL_DIR/node.$1 && exec sleep 86400"
	_wl_await "$WL_DIR/node.$1" "node.$1" || return 1
	wl_in "$1" "$BUILD/bin/fabrictool" -s 192.168.5.0/24 ensure "$(_wl_name "$1")" 1 "$(_wl_vip "$1")" || return 1
	wl_stack_up "$1"
}

wl_up() {
	local node nodes=(here far) ports=()
	WL_DIR=$1
	shift
	mkdir -p "$WL_DIR"
	: >"$WL_DIR/pids"
	[ "${1:-}" != --there ] || { nodes=(here there far); shift; }
	for node in "${nodes[@]}"; do
		_wl_node_up "$node" || return 1
		[ "$node" = far ] && ports+=(--b) || ports+=(--a)
		ports+=("/proc/$(_wl_pid "$node")/root/run/netns/ovl-fabric:overlay0")
	done
	wl_bg wire "$BUILD/bin/ms-wire" "${ports[@]}" --control "$WL_DIR/wire" --ready "$WL_DIR/wire.ready" "$@"
	_wl_await "$WL_DIR/wire.ready" wire
}

wl_server() { # node name args...
	local node=$1 name=$2
	shift 2
	rm -f "$WL_DIR/$name.ready"
	wl_bg "$name" nsenter -t "$(_wl_pid "$node")" -n -m -- ip netns exec "$(_wl_name "$node")" "$BUILD/bin/ms-testsrv" \
		--ready "$WL_DIR/$name.ready" "$@"
	_wl_await "$WL_DIR/$name.ready" "$name" || return 1
	WL_SERVER=$(cat "$WL_DIR/$name.ready")
}

# the youngest first: traffic before nodes
wl_down() {
	local pid start name end=$((SECONDS + 60))
	[ -s "${WL_DIR:-/nonexistent}/pids" ] || return 0
	while read -r pid start name; do
		[ -z "$start" ] || [ "$(_wl_start "$pid")" != "$start" ] || kill -CONT "$pid" 2>/dev/null
		[ -z "$start" ] || [ "$(_wl_start "$pid")" != "$start" ] || kill -KILL "$pid" 2>/dev/null
	done < <(tac "$WL_DIR/pids")
	while read -r pid start name; do
		while [ -n "$start" ] && [ "$(_wl_start "$pid")" = "$start" ]; do
			[ $SECONDS -lt $end ] || { echo "wirelab: $name (pid $pid) does not end" >&2; return 1; }
			sleep 0.02
		done
	done <"$WL_DIR/pids"
	rm -f "$WL_DIR/pids"
}
