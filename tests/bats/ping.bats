#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# ping.bats - overlayd ping: which way packets for a virtual address go, and what each peer's path is

load helpers

setup_file() { lab_up 3; }
teardown_file() { lab_down; }
teardown() {
	lab heal n2 n1
	drop_workloads
	end_spawned
}

VIP1=192.168.5.21 VIP2=192.168.5.22

@test "ping: here, at another node, nowhere, and what cannot be" {
	workload n1 one $VIP1
	workload n2 two $VIP2
	run_ok on n1 overlayd ping $VIP1 -c 1
	assert_match "$output" "seq 1: on this node, workload one"
	# nobody has talked to n2 yet: the directory is asked, a connection made, a key agreed on
	run_ok on n1 overlayd ping $VIP2 -c 3 -i 0.05 -W 40
	assert_match "$output" "seq 1: direct, answered by node n2 at 10.77.0.2:7470, [0-9.]+ ms"
	assert_match "$output" "3 asked, 3 answered"
	assert_match "$output" "round trip: least [0-9.]+, mean [0-9.]+, most [0-9.]+ ms"
	run_ok on n3 overlayd ping $VIP2 -c 1 -W 40 --json
	assert_eq "$(json '"\(.path) \(.node) \(.address)"')" "direct n2 10.77.0.2:7470"
	[ "$(json .rtt_us)" -gt 0 ] || fail "no time" "$output"
	# a node's own address is one, too
	run_ok on n1 overlayd ping 192.168.5.101 -c 1
	assert_match "$output" "on this node"
	run_rc 1 on n1 overlayd ping 192.168.5.99 -c 1 -W 10
	assert_match "$output" "nobody has 192.168.5.99"
	run_rc 1 on n1 overlayd ping 10.1.2.3
	assert_match "$output" "no configured subnet"
	run_rc 2 on n1 overlayd ping nonsense
	run_rc 2 on n1 overlayd ping $VIP2 -c 0
	run_rc 2 on n1 overlayd ping $VIP2 -i never
	run_rc 2 on n1 overlayd status -i 1
}

@test "ping: a node that is cut off, and ends with what was seen" {
	workload n2 two $VIP2
	run_ok on n1 overlayd ping $VIP2 -c 1 -W 40
	spawn ping on n1 sh -c "echo \$\$ >$BATS_TEST_TMPDIR/pinger; exec overlayd ping $VIP2 -i 0.05 -W 0.3"
	wait_for 10 grep -q 'seq 2:' "$BATS_TEST_TMPDIR/ping.out"
	run_ok lab cut n2
	wait_for 20 grep -q 'within 300 ms' "$BATS_TEST_TMPDIR/ping.err"
	run_ok lab heal n2
	before=$(grep -c direct "$BATS_TEST_TMPDIR/ping.out")
	again() { [ "$(grep -c direct "$BATS_TEST_TMPDIR/ping.out")" -gt "$before" ]; }
	wait_for 30 again
	kill -INT "$(cat "$BATS_TEST_TMPDIR/pinger")"
	finish ping none
	assert_match "$output" "asked, [0-9]+ answered"
}

@test "ping: a vIP that has moved is found where it went, by way of where it was" {
	workload n2 two $VIP2
	server n2 two echo "$VIP2:7001"
	run_ok on n1 overlayd ping $VIP2 -c 1 -W 40
	# n1 does not hear of the move: it is told nothing by the directory and by nobody else
	move n2 two n3
	run_ok on n1 overlayd ping $VIP2 -c 2 -i 0.1 -W 40
	assert_match "$output" "by node n[23] at"
	located() { on n1 overlayd ping $VIP2 -c 1 -W 5 --json | jq -e '.path == "direct" and .node == "n3"'; }
	wait_for 20 located
	run_ok on n3 overlayd ping $VIP2 -c 1
	assert_match "$output" "on this node, workload two"
}

@test "ping: who has heard nothing of a move is led on by the previous node, and told so" {
	workload n3 two $VIP2
	server n3 two echo "$VIP2:7001"
	run_ok on n2 overlayd ping $VIP2 -c 1 -W 40
	assert_match "$output" "seq 1: direct, answered by node n3"
	# the directory is on n1: n2 hears neither of it nor of the new holder. A probe is no packet to be corrected for, so
	# n3, which had it, goes on leading it there
	run_ok lab cut n2 n1
	move n3 two n1
	led() { on n2 overlayd ping $VIP2 -c 1 -W 5 --json >"$BATS_TEST_TMPDIR/led" && jq -e '.path == "forwarded"' "$BATS_TEST_TMPDIR/led"; }
	wait_for 30 led
	assert_eq "$(json '"\(.node) \(.address)"' "$BATS_TEST_TMPDIR/led")" "n3 10.77.0.3:7470"
	run_ok on n2 overlayd ping $VIP2 -c 2 -i 0.05 -W 40
	assert_match "$output" "seq 2: forwarded, by node n3 at 10.77.0.3:7470, [0-9.]+ ms"
	assert_match "$output" "2 asked, 2 answered"
	run_ok lab heal n2 n1
	located() { on n2 overlayd ping $VIP2 -c 1 -W 5 --json | jq -e '.path == "direct" and .node == "n1"'; }
	wait_for 40 located
}

@test "ping: the node that had it first hears of each later move" {
	workload n2 two $VIP2
	server n2 two echo "$VIP2:7001"
	at() { on n2 overlayd ping $VIP2 -c 1 -W 5 --json | jq -e ".path == \"direct\" and .node == \"$1\""; }
	move n2 two n3
	wait_for 40 at n3
	# n2 knows this without having asked anybody, and sends nothing that could be corrected
	move n3 two n1
	wait_for 40 at n1
}

@test "status shows the path to each peer" {
	workload n1 one $VIP1
	workload n2 two $VIP2
	run_ok on n1 ip netns exec one ping -c 3 -i 0.05 -W 20 $VIP2
	confirmed() {
		on n1 overlayd status --json | jq -e '.peers[] | select(.name == "n2") | .path |
			.mtu == 1500 and .inner_mtu == 1440 and .state == "confirmed" and .rtt_us > 0 and .tx_packets >= 3 and .rx_packets >= 3'
	}
	wait_for 10 confirmed || { on n1 overlayd status --json >&2; return 1; }
	run_ok on n1 overlayd status
	assert_match "$output" "n2 .* up .* us +1500  "
}
