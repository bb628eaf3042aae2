#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Connections nobody has accepted: they move with their listener, or stay with it, and nobody notices
#
#	n1, n2: the server moves between them    n3: the clients, and the directory

load helpers
load faults

setup_file() { fault_setup_file; }
teardown_file() { lab_down; }
setup() { late_setup; }
teardown() { fault_teardown; }

server_with() { late n1 app srv serve 192.168.5.2:2000 "$GO" "$BATS_TEST_TMPDIR/srv.ready" "$@"; }
crowd() { late n3 far "$1" crowd 192.168.5.2:2000 "$GO" "$BATS_TEST_TMPDIR/$1.ready" "$2"; }
served() { # name: everyone was accepted, every byte had arrived
	TIMEOUT=60 finish "$1" none || { tell; return 1; }
	assert_eq "$(json '.errors | length')" 0 "$1: $output $(cat "$BATS_TEST_TMPDIR/$1.err")" || { tell; return 1; }
	assert_eq "$status" 0 "$1: $output"
}
waiting() { # node: connections in the accept queue there
	on "$1" ip netns exec app ss -Hltn 'sport = :2000' | awk '{ print $2 }'
}
to_other() {
	local from
	from=$(holder)
	move "$from" app "$(other "$from")" "$@" || { tell; return 1; }
}

@test "acceptq: a full queue moves five times" {
	server_with 20
	crowd many 21
	for _ in 1 2 3 4 5; do
		to_other
		assert_eq "$(waiting "$(holder)")" 21 "waiting at $(holder)"
	done
	touch "$GO"
	served many
}

@test "acceptq: a full queue moves while lwIP answers for it" {
	server_with 20
	crowd many 21
	for _ in 1 2 3; do
		to_other --standin-after 0 --hold-freeze 300
		assert_eq "$(waiting "$(holder)")" 21 "waiting at $(holder)"
	done
	touch "$GO"
	served many
}

@test "acceptq: whatever fails, the queue is where the server is" {
	local point
	server_with 20
	crowd many 21
	for point in "n1 src.captured error" "n1 src.restore error" "n2 dst.stands error" "n2 dst.commit kill" "n1 src.fence kill" \
		"n1 src.restore killall"; do
		# shellcheck disable=SC2086
		set -- $point
		arm "$1" "$2 $3"
		spawn mover on n1 ms-migrate app n2 --standin-after 0 --hold-freeze 200 --json
		wait_for 30 disarmed "$1" || { tell; return 1; }
		daemon_back "$1"
		wait_for 60 calm || { tell; return 1; }
		TIMEOUT=30 finish mover none
		[ "$(holder)" = n1 ] || to_other
		assert_eq "$(waiting n1)" 21 "waiting after $point"
	done
	to_other
	touch "$GO"
	served many
}

@test "acceptq: connections of the server with itself" {
	local pid
	late n1 app srv itself 192.168.5.2:2000 "$GO" "$BATS_TEST_TMPDIR/srv.ready"
	to_other --standin-after 0 --hold-freeze 100
	assert_eq "$(waiting n2)" 2 "waiting at n2"
	to_other --standin-after off
	assert_eq "$(waiting n1)" 2 "waiting at n1"
	pid=$MOVED
	touch "$GO"
	wait_for 30 on n1 test ! -e "/proc/$pid"
	assert_eq "$(json '.errors | length' "$BATS_TEST_TMPDIR/srv.out")" 0 "$(cat "$BATS_TEST_TMPDIR/srv.out" "$BATS_TEST_TMPDIR/srv.err")"
	assert_eq "$(json .connections "$BATS_TEST_TMPDIR/srv.out")" 2
}

@test "acceptq: a handshake of which only the client knows the end" {
	server_with 8 1
	late n3 far one quiet 192.168.5.2:2000 "$GO" "$BATS_TEST_TMPDIR/one.ready"
	to_other
	touch "$GO"
	served one
}

@test "acceptq: during a freeze of three seconds a connection is made in a round trip" {
	server_with 2000
	late n3 far new newcomers 192.168.5.2:2000 "$BATS_TEST_TMPDIR/stop" "$BATS_TEST_TMPDIR/new.ready"
	to_other --standin-after 0 --hold-freeze 3000
	touch "$BATS_TEST_TMPDIR/stop" "$GO"
	served new
	# a SYN may have been lost at either end of the freeze and come again a second later, but not when it was over
	assert_le "$(json .slowest_ms)" 2500 "the slowest connect() in $output"
}

@test "acceptq: connections made during a freeze that comes to nothing are the source's" {
	server_with 2000
	late n3 far new newcomers 192.168.5.2:2000 "$BATS_TEST_TMPDIR/stop" "$BATS_TEST_TMPDIR/new.ready"
	arm n2 "dst.stands error"
	run_rc 1 on n1 ms-migrate app n2 --standin-after 0 --hold-freeze 1000
	assert_eq "$(holder)" n1 holder
	arm n1 "src.fence kill"
	run_fail on n1 ms-migrate app n2 --standin-after 0 --hold-freeze 1000
	wait_for 60 calm || { tell; return 1; }
	touch "$BATS_TEST_TMPDIR/stop" "$GO"
	served new
}

answering() { grep -q 'armed -> live' "$(root n1)/run/overlayd/workloads/app/tunstack.log"; }
# quit_during STATUS: while lwIP answers, those that wait and as many newcomers send, and reset; what they were acknowledged arrives
quit_during() {
	local t=$BATS_TEST_TMPDIR
	server_with 40
	late n3 far gone quitters 192.168.5.2:2000 "$t/quit" "$t/gone.ready" 10
	assert_eq "$(waiting n1)" 10 "waiting before"
	spawn mover on n1 ms-migrate app n2 --standin-after 0 --hold-freeze 3000 --json
	wait_for 60 answering || { tell; return 1; }
	touch "$t/quit"
	finish gone none
	assert_eq "$status" 0 "$(cat "$t/gone.err")"
	TIMEOUT=60 finish mover none
	assert_eq "$status" "$1" "ms-migrate: $output $(cat "$t/mover.err")" || { tell; return 1; }
	touch "$GO"
	wait_for 60 all_reset || { tell; diff <(sort "$t/srv.out") <(sort "$t/gone.out") >&2; return 1; }
}
all_reset() { [ "$(grep -c reset "$BATS_TEST_TMPDIR/gone.out")" = 20 ] && diff -q <(sort "$BATS_TEST_TMPDIR/srv.out") <(sort "$BATS_TEST_TMPDIR/gone.out"); }

@test "acceptq: reset during the freeze, they are accepted with all they were acknowledged, then reset" {
	quit_during 0
	assert_eq "$(holder)" n2 holder
	assert_eq "$(json '.answered_by + " \(.taken_bytes > 0) \(.behind)"' "$BATS_TEST_TMPDIR/mover.out")" "stand-in true 0"
}

@test "acceptq: the same where the move comes to nothing" {
	arm n2 "dst.stands error"
	quit_during 1
	assert_eq "$(holder)" n1 holder
}

@test "acceptq: where the destination cannot, the program gets time to accept; if it does not, it stays" {
	server_with 20
	crowd few 3
	arm n2 "dst.acceptq error"
	TIMEOUT=60 run_rc 1 on n1 ms-migrate app n2
	assert_match "$output" "does not accept its connections fast enough"
	assert_eq "$(holder)" n1 holder
	assert_eq "$(waiting n1)" 3
	arm n1 "src.peek error"
	TIMEOUT=60 run_rc 1 on n1 ms-migrate app n2
	assert_eq "$(waiting n1)" 3
	touch "$GO"
	served few
	to_other
}
