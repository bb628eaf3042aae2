#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Bytes that the kernel takes for sent though nobody has sent them: the copy sends them
#
#	n1: the workload, n2: where it moves to    n3: the client, and the directory

load helpers
load faults

setup_file() { fault_setup_file; }
teardown_file() { lab_down; }
setup() {
	workload n1 app 192.168.5.2
	workload n3 far 192.168.5.5
	server n1 app srv 192.168.5.2:2000
	client n3 far down --mode download 192.168.5.2:2000
}
teardown() {
	kill -CONT "$(cat "$BATS_TEST_TMPDIR/down.ready")" 2>/dev/null || true
	fault_teardown
}

sendqueue() { on "$1" "${PYTHON:-python3}" "$TOP/tests/lib/sendqueue.py" "$2" "$3"; }
reached() { [ -e "$(root "$1")/run/overlayd/fault.reached" ]; }
go_on() { rm "$(root "$1")/run/overlayd/fault.reached"; }
stands() { # the peer takes no more: what is not sent is as much as it was
	local now
	now=$(sendqueue n1 unsent "$SERVER")
	[ "$now" -le 100000 ] || [ "$now" != "${WAS:-}" ] || return 0
	WAS=$now
	return 1
}
copy() { # the server's copy, as this machine numbers it
	local pid
	for pid in $(on n2 ip netns pids app); do
		[ "$(cat "/proc/$pid/comm")" != ms-testsrv ] || echo "$pid"
	done
}

@test "unsent: what was taken for sent while the sockets were read is not sent, for the copy" {
	local marked
	kill -STOP "$(cat "$BATS_TEST_TMPDIR/down.ready")"
	wait_for 30 stands
	arm n1 "src.dump pause"
	arm n2 "dst.stands pause"
	spawn mover on n1 ms-migrate app n2
	wait_for 60 reached n1
	marked=$(sendqueue n1 mark "$SERVER")
	[ "$marked" -gt 100000 ]
	assert_eq "$(sendqueue n1 unsent "$SERVER")" 0 "after that"
	go_on n1
	wait_for 60 reached n2
	[ "$(sendqueue n2 unsent "$(copy)")" -gt 0 ]
	go_on n2
	TIMEOUT=60 finish mover none
	assert_eq "$status" 0 "ms-migrate: $output"
	kill -CONT "$(cat "$BATS_TEST_TMPDIR/down.ready")"
	progress down 30
	client_ok down
}
