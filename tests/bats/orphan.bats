#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# What a server has closed with something still to be sent: the bytes and the end arrive, wherever the server is by then
#
#	n1, n2: the server moves between them    n3: the clients, and the directory

load helpers
load faults

setup_file() { fault_setup_file; }
teardown_file() { lab_down; }
setup() { late_setup; }
teardown() { fault_teardown; }

orphans() { on "$1" ip netns exec app ss -Htn state fin-wait-1 | wc -l; }
upload_and_readers() { # n
	local i
	late n1 app srv upload 192.168.5.2:2000 2000000 "$BATS_TEST_TMPDIR/srv.ready"
	for ((i = 0; i < $1; i++)); do
		late n3 far "r$i" reader 192.168.5.2:2000 "$GO" "$BATS_TEST_TMPDIR/r$i.ready" 2000000
	done
	wait_for 10 has_orphans n1 "$1"
}
has_orphans() { [ "$(orphans "$1")" -eq "$2" ]; }
got_all() { # name
	TIMEOUT=60 finish "$1" none || { tell; return 1; }
	assert_eq "$(json '.errors | length')" 0 "$1: $output" || { tell; return 1; }
	assert_eq "$status" 0 "$1"
}

@test "orphan: two million bytes, closed, then the server moves three times" {
	upload_and_readers 1
	for _ in 1 2 3; do
		move "$(holder)" app "$(other "$(holder)")" || { tell; return 1; }
		assert_eq "$(orphans "$(holder)")" 1 "orphans at $(holder)"
	done
	touch "$GO"
	got_all r0
}

@test "orphan: several, while lwIP answers for the rest" {
	upload_and_readers 4
	move n1 app n2 --standin-after 0 --hold-freeze 500 || { tell; return 1; }
	touch "$GO"
	for i in 0 1 2 3; do got_all r$i; done
}

@test "orphan: read while the server moves" {
	upload_and_readers 2
	spawn mover on n1 ms-migrate app n2 --hold-freeze 300
	touch "$GO"
	for i in 0 1; do got_all r$i; done
	TIMEOUT=60 finish mover none
	assert_eq "$status" 0
}

@test "orphan: a move that comes to nothing leaves them where they are" {
	upload_and_readers 1
	arm n2 "dst.stands error"
	run_rc 1 on n1 ms-migrate app n2
	arm n1 "src.fence kill"
	run_fail on n1 ms-migrate app n2
	wait_for 60 calm || { tell; return 1; }
	assert_eq "$(holder) $(orphans n1)" "n1 1"
	touch "$GO"
	got_all r0
}

@test "orphan: where the destination cannot, it is left behind, and said" {
	upload_and_readers 1
	arm n2 "dst.acceptq error"
	move n1 app n2
	assert_eq "$(orphans n2)" 0
	assert_match "$(cat "$(root n1)/run/overlayd/overlayd.log")" "left behind, their peers are silent: 0 handshakes, 1 closed"
}
