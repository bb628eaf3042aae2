#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2154
# What has no connection: pings are answered throughout a move, and no datagram is lost that had reached the socket or came
# while the program was frozen.
#
#	n1 (directory)   n2   n3      app 192.168.5.2 moves, from n1; far 192.168.5.5 on n3 is where clients run
#
# Needs a build with FAULTS=1 ($BUILD/faults; tests/run makes it): freezes are made long with a pause.

load helpers

VIP=192.168.5.2

setup_file() {
	[ -x "$BUILD/faults/bin/overlayd" ] || fail "no build with fault points: make BUILD=$BUILD/faults FAULTS=1"
	export BUILD=$BUILD/faults PATH=$BUILD/faults/bin:$PATH
	lab_up 3
}
teardown_file() { lab_down; }

setup() {
	T=$BATS_TEST_TMPDIR
	workload n1 app $VIP
	workload n3 far 192.168.5.5
	workload n2 near 192.168.5.6
}
teardown() {
	local n
	for n in n1 n2 n3; do on $n rm -f /run/overlayd/fault /run/overlayd/fault.reached; done
	drop_workloads && end_spawned
}

far() { on n3 ip netns exec far "$@"; }
arm() { on "$1" sh -c "echo '$2' >/run/overlayd/fault"; }
paused() { on "$1" test -e /run/overlayd/fault.reached; }
go_on() { on "$1" rm /run/overlayd/fault.reached; }

# start CMD...: the program that moves
start() { spawn app on n1 ip netns exec app "$@"; }

# move_paused FROM TO: a move that waits at the fault point armed; moved: it ends well
move_paused() {
	spawn mover on "$1" ms-migrate app "$2" --json
	wait_for 20 paused "$2" || { cat "$T"/mover.* >&2; return 1; }
}
moved() {
	finish mover none
	[ "$status" -eq 0 ] || fail "ms-migrate: $status" "$output" "$(cat "$T/mover.err")"
}

# pinged NAME: as spawned by `ping -i 0.05 -D`: nothing lost, nothing late
pinged() {
	finish "$1" INT
	assert_match "$output" " 0% packet loss" "ping"
	assert_le "$(sed -nE 's,^rtt min/avg/max/mdev = [^/]*/[^/]*/([^/]*)/.*,\1,p' <<<"$output")" 100 "slowest answer, ms"
}

@test "udp: pings are answered throughout a freeze of two seconds and a move" {
	start sleep 300
	spawn pings on n3 ip netns exec far ping -n -i 0.05 $VIP
	spawn beside on n2 ip netns exec near ping -n -i 0.05 $VIP
	wait_for 10 grep -q icmp_seq=10 "$T/pings.out"
	arm n2 "dst.stands pause"
	move_paused n1 n2
	sleep 2
	go_on n2
	moved
	wait_for 10 grep -q icmp_seq=60 "$T/pings.out"
	pinged pings
	pinged beside
}
