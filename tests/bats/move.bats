#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Moves of a running server under clients that check every byte: the papers' own list
#
#	n1 (directory)    n2    n3        workloads 192.168.5.0/24; nodes themselves are .101 .102 .103

load helpers

setup_file() { lab_up 3; }
teardown_file() { lab_down; }
teardown() { drop_workloads && end_spawned; }

@test "move: a server with connections from another node, from its target and from its own node" {
	workload n1 app 192.168.5.2
	workload n1 near 192.168.5.3
	workload n2 there 192.168.5.4
	workload n3 far 192.168.5.5
	server n1 app srv 192.168.5.2:2000
	client n1 near c1 192.168.5.2:2000
	client n2 there c2 192.168.5.2:2000
	client n3 far c3 -n 5 192.168.5.2:2000
	move n1 "$SERVER" n2
	assert_eq "$(where n3 app)" n2 "holder"
	for c in c1 c2 c3; do progress $c; done
	for c in c1 c2 c3; do client_ok $c; done
	assert_eq "$(query n3 far 192.168.5.2:2000 errors)" 0 "errors of the server"
}

@test "move: data in flight both ways is neither lost nor repeated" {
	workload n1 app 192.168.5.2
	workload n3 far 192.168.5.5
	server n1 app srv 192.168.5.2:2000
	client n3 far up --mode upload -n 2 --rate 40 192.168.5.2:2000
	client n3 far down --mode download -n 2 --rate 40 192.168.5.2:2000
	client n3 far both --mode both -n 2 --rate 40 192.168.5.2:2000
	move n1 "$SERVER" n2
	for c in down both; do progress $c; done
	for c in up down both; do client_ok $c; done
}

@test "move: connections made before, while and after it moves" {
	workload n1 app 192.168.5.2
	workload n3 far 192.168.5.5
	server n1 app srv 192.168.5.2:2000
	client n3 far before 192.168.5.2:2000
	spawn during on n3 ip netns exec far bash -c "
		while [ ! -e $BATS_TEST_TMPDIR/enough ]; do
			ms-testcli --rounds 3 192.168.5.2:2000 || exit 1
		done"
	move n1 "$SERVER" n2
	client n3 far after 192.168.5.2:2000
	progress before
	touch "$BATS_TEST_TMPDIR/enough"
	finish during none
	assert_eq "$status" 0 "connections made while it moved: $(tail -n 2 <<<"$output") $(cat "$BATS_TEST_TMPDIR/during.err")"
	client_ok before
	client_ok after
}

@test "move: a listening server without a connection, found by a node that knew its old place" {
	workload n1 app 192.168.5.2
	workload n3 far 192.168.5.5
	server n1 app srv 192.168.5.2:2000
	run_ok on n3 ip netns exec far ms-testcli --rounds 3 192.168.5.2:2000
	move n1 "$SERVER" n2
	run_ok on n3 ip netns exec far ms-testcli --rounds 3 192.168.5.2:2000
	assert_eq "$(json .errors)" 0 errors
}

@test "move: a client that moves keeps its connections" {
	workload n1 app 192.168.5.2
	workload n3 far 192.168.5.5
	server n1 app srv 192.168.5.2:2000
	client n3 far c1 -n 3 192.168.5.2:2000
	run_ok on n3 cat "$BATS_TEST_TMPDIR/c1.ready"
	move n3 "$output" n2
	progress c1
	assert_eq "$(jq .lost "$BATS_TEST_TMPDIR/c1.json")" 0 "lost connections"
	assert_eq "$(jq .errors "$BATS_TEST_TMPDIR/c1.json")" 0 "errors"
}

both_moved() { # what was spawned as m1 and m2
	local m
	for m in m1 m2; do
		TIMEOUT=60 finish $m none
		assert_eq "$status" 0 "$m: $(cat "$BATS_TEST_TMPDIR/$m.err")"
	done
}

@test "move: server and client move at the same moment" {
	workload n1 app 192.168.5.2
	workload n2 far 192.168.5.5
	server n1 app srv 192.168.5.2:2000
	client n2 far c1 -n 3 192.168.5.2:2000
	spawn m1 on n1 ms-migrate app n3
	spawn m2 on n2 ms-migrate far n1
	both_moved
	progress c1
	assert_eq "$(jq .lost "$BATS_TEST_TMPDIR/c1.json")" 0 "lost connections"
	assert_eq "$(where n2 app) $(where n2 far)" "n3 n1" "holders"
}

@test "move: two workloads change places" {
	workload n1 left 192.168.5.2
	workload n2 right 192.168.5.3
	workload n3 far 192.168.5.5
	server n1 left s1 192.168.5.2:2000
	server n2 right s2 192.168.5.3:2000
	client n3 far c1 192.168.5.2:2000
	client n3 far c2 192.168.5.3:2000
	spawn m1 on n1 ms-migrate left n2
	spawn m2 on n2 ms-migrate right n1
	both_moved
	for c in c1 c2; do progress $c; client_ok $c; done
}

@test "move: two servers on the same port of one node, told apart by their addresses" {
	workload n1 one 192.168.5.2
	workload n1 two 192.168.5.3
	workload n3 far 192.168.5.5
	server n1 one s1 192.168.5.2:2000
	ONE=$SERVER
	server n1 two s2 192.168.5.3:2000
	client n3 far c1 192.168.5.2:2000
	client n3 far c2 192.168.5.3:2000
	move n1 "$ONE" n2
	for c in c1 c2; do progress $c; done
	move n1 "$SERVER" n2
	for c in c1 c2; do progress $c; client_ok $c; done
}

@test "move: the programs of the nodes themselves reach it before and after, and are reached (ms0)" {
	workload n1 app 192.168.5.2
	server n1 app srv 192.168.5.2:2000
	client n1 - own 192.168.5.2:2000
	client n3 - other 192.168.5.2:2000
	move n1 "$SERVER" n2
	for c in own other; do progress $c; client_ok $c; done
	wait_for 20 on n2 ip netns exec app ping -c 1 -W 2 192.168.5.103
	wait_for 20 on n2 ip netns exec app ping -c 1 -W 2 192.168.5.102
}

@test "move: twenty times in a row around the nodes, nothing lost" {
	local i here=1 there
	workload n1 app 192.168.5.2
	workload n3 far 192.168.5.5
	server n1 app srv 192.168.5.2:2000
	client n3 far c1 -n 3 192.168.5.2:2000
	client n3 far c2 --mode both -n 2 --rate 10 192.168.5.2:2000
	for i in {1..20}; do
		there=$((here % 3 + 1))
		move n$here app n$there
		here=$there
	done
	for c in c1 c2; do progress $c; client_ok $c; done
	assert_eq "$(query n3 far 192.168.5.2:2000 lost)" 0 "connections lost at the server"
}

@test "move: memory goes along, 64 MB of it" {
	workload n1 app 192.168.5.2
	workload n3 far 192.168.5.5
	server n1 app srv 192.168.5.2:2000 --memory 64
	client n3 far c1 192.168.5.2:2000
	move n1 "$SERVER" n2
	progress c1
	client_ok c1
	assert_eq "$(query n3 far 192.168.5.2:2000 memory_errors)" 0 "wrong pages"
}

@test "move: datagrams sent while it is frozen arrive in order" {
	workload n1 app 192.168.5.2
	workload n3 far 192.168.5.5
	server n1 app srv 192.168.5.2:2000 --udp 192.168.5.2:2001
	client n3 far flow --mode udpflow --interval 5 192.168.5.2:2001
	client n3 far asks --mode udp 192.168.5.2:2001
	move n1 "$SERVER" n2
	for c in flow asks; do
		progress $c
		finish $c
		assert_eq "$(json '"\(.errors) \(.reordered)"')" "0 0" "errors and order of $c: $output"
	done
	assert_eq "$(query n3 far 192.168.5.2:2000 udp_reordered)" 0 "reordered at the server"
}

@test "move: a static binary" {
	workload n1 app 192.168.5.2
	workload n3 far 192.168.5.5
	spawn srv on n1 ip netns exec app ms-testsrv-static --ready "$BATS_TEST_TMPDIR/ready" 192.168.5.2:2000
	wait_for 10 test -e "$BATS_TEST_TMPDIR/ready"
	client n3 far c1 -n 2 192.168.5.2:2000
	move n1 "$(cat "$BATS_TEST_TMPDIR/ready")" n2
	progress c1
	client_ok c1
}

@test "move: a thousand connections" {
	workload n1 app 192.168.5.2
	workload n3 far 192.168.5.5
	server n1 app srv 192.168.5.2:2000
	client n3 far c1 -n 1000 --interval 200 192.168.5.2:2000
	TIMEOUT=90 move n1 "$SERVER" n2
	progress c1
	client_ok c1
}

@test "move: a server that is slow to accept moves in the end, or says why not and goes on" {
	workload n1 app 192.168.5.2
	workload n3 far 192.168.5.5
	server n1 app srv --slow-accept 30 192.168.5.2:2000
	client n3 far c1 192.168.5.2:2000
	spawn churn on n3 ip netns exec far bash -c "
		while [ ! -e $BATS_TEST_TMPDIR/enough ]; do
			ms-testcli -n 3 --rounds 1 192.168.5.2:2000 || exit 1
		done"
	move n1 "$SERVER" n2 || assert_match "$output" "does not accept its connections fast enough"
	progress c1
	touch "$BATS_TEST_TMPDIR/enough"
	finish churn none
	assert_eq "$status" 0 "new connections: $(tail -n 2 <<<"$output")"
	client_ok c1
}
