#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# One node's life: start, stop, adoption, purge; names and addresses; what is refused

load helpers

setup_file() { lab_up 2; }
teardown_file() { lab_down; }
teardown() { drop_workloads && end_spawned; }

wait_ready() { wait_for 15 on "$1" overlayd status; }

@test "node: netns add, list, where, resolve, del" {
	workload n1 app 192.168.5.2,192.168.5.3
	run_ok on n1 overlayd netns list --json
	assert_eq "$(json '.[0].name') $(json '.[0].vips | join(",")')" "app 192.168.5.2,192.168.5.3" "list"
	run_ok on n2 overlayd where app --json
	assert_eq "$(json '[.[].vip] | sort | join(",")') $(json '.[0].node')" "192.168.5.2,192.168.5.3 n1" "where"
	run_ok on n2 overlayd resolve 192.168.5.3 --json
	assert_eq "$(json '.[0].name') $(json '.[0].node') $(json '.[0].generation')" "app n1 1" "resolve"
	run_ok on n1 overlayd netns del app
	run_fail on n2 overlayd where app
	run_ok on n1 overlayd netns list --json
	assert_eq "$(json length)" 0 "workloads"
}

@test "node: two workloads of two nodes talk" {
	workload n1 one 192.168.5.2
	workload n2 two 192.168.5.3
	wait_for 20 on n1 ip netns exec one ping -c 1 -W 2 192.168.5.3
	wait_for 20 on n2 ip netns exec two ping -c 1 -W 2 192.168.5.2
}

@test "node: the node itself reaches workloads near and far, and they reach it" {
	workload n1 one 192.168.5.2
	workload n2 two 192.168.5.3
	wait_for 20 on n1 ping -c 1 -W 2 192.168.5.2
	wait_for 20 on n1 ping -c 1 -W 2 192.168.5.3
	wait_for 20 on n1 ip netns exec one ping -c 1 -W 2 192.168.5.101
	wait_for 20 on n2 ip netns exec two ping -c 1 -W 2 192.168.5.101
}

@test "node: a second registration of an address is refused with the holder's name" {
	workload n1 app 192.168.5.2
	run_fail on n2 overlayd netns add other 192.168.5.2
	assert_match "$output" "n1"
	run_ok on n2 overlayd netns list --json
	assert_eq "$(json length)" 0 "workloads on n2"
	run_fail on n1 overlayd netns add app 192.168.5.9
	run_ok on n2 overlayd netns add other 192.168.5.3
}

@test "node: an address outside every subnet, and a bad name, are refused" {
	run_fail on n1 overlayd netns add app 10.1.2.3
	run_fail on n1 overlayd netns add app 192.168.5.300
	for ip in 192.168.5.0 192.168.5.255; do
		run_fail on n1 overlayd netns add app $ip
		assert_match "$output" "$ip is the first or the last address of 192.168.5.0/24"
	done
	run_fail on n1 overlayd netns add ../app 192.168.5.2
	run_fail on n1 overlayd netns del nothing
	run_ok lab leftovers n2 || true
	run_ok on n1 ip netns list
	refute_match "$output" "app"
}

@test "node: stop leaves workloads and their connections alone, start adopts them" {
	workload n1 app 192.168.5.2
	workload n1 near 192.168.5.3
	server n1 app srv 192.168.5.2:2000
	client n1 near c1 192.168.5.2:2000
	run_ok on n1 overlayd stop
	run_fail on n1 overlayd status
	progress c1
	run_ok on n1 overlayd start
	wait_ready n1
	progress c1
	run_ok on n1 overlayd netns list --json
	assert_eq "$(json '[.[].name] | sort | join(",")')" "app,near" "adopted"
	client_ok c1
	workload n2 far 192.168.5.4
	run_ok on n2 ip netns exec far ms-testcli --rounds 5 192.168.5.2:2000
}

@test "node: a killed daemon is replaced, connections to another node live on" {
	workload n1 app 192.168.5.2
	workload n2 far 192.168.5.4
	server n1 app srv 192.168.5.2:2000
	client n2 far c1 192.168.5.2:2000
	run_ok on n1 bash -c 'kill -KILL $(cat /run/overlayd/overlayd.pid)'
	run_ok on n1 overlayd start
	wait_ready n1
	progress c1 20
	client_ok c1
}

@test "node: without overlay0 it says so; in the foreground it ends, to be started again; connections live on" {
	workload n1 app 192.168.5.2
	server n1 app srv 192.168.5.2:2000
	client n2 - cli --interval 20 192.168.5.2:2000
	refute_match "$(on n1 cat /run/overlayd/overlayd.log)" "overlay0 is gone"
	run_ok on n1 ip -n ovl-fabric link del overlay0
	wait_for 10 overlay0_is n1 false
	assert_match "$(on n1 overlayd status)" "OVERLAY0 GONE"
	wait_for 10 on n1 grep -q "overlay0 is gone" /run/overlayd/overlayd.log
	run_ok on n1 overlayd stop
	spawn fg on n1 overlayd start --foreground
	wait_for 20 overlay0_is n1 true
	progress cli
	run_ok on n1 ip -n ovl-fabric link del overlay0
	finish fg none
	assert_eq "$status" 1 "exit status"
	assert_match "$(cat "$BATS_TEST_TMPDIR/fg.err")" "overlay0 is gone: ending, to be started again; workloads stay"
	run_ok on n1 overlayd start
	overlay0_is n1 true
	progress cli
	client_ok cli
}
overlay0_is() { [ "$(on "$1" overlayd status --json | jq .overlay0)" = "$2" ]; }

@test "node: starting twice is refused, nothing is disturbed" {
	local pid
	pid=$(lab exec n1 cat /run/overlayd/overlayd.pid)
	run_fail on n1 overlayd start
	assert_eq "$(lab exec n1 cat /run/overlayd/overlayd.pid)" "$pid" "pid of the daemon"
	run_ok on n1 overlayd status
}

@test "node: stop --purge leaves nothing, start begins anew" {
	workload n2 app 192.168.5.2
	workload n2 more 192.168.5.3
	server n2 app srv 192.168.5.2:2000
	run_ok on n2 overlayd stop --purge
	end_spawned
	run_ok lab leftovers n2
	run_ok on n2 overlayd start
	wait_ready n2
	run_ok on n1 overlayd netns add app 192.168.5.2
}

@test "node: the host's own routes, rules and sysctls are as before, but for one route per subnet" {
	run_ok on n2 ip -4 route show
	assert_eq "$(grep -vc '^10\.77\.0\.0/24\|^192\.168\.5\.0/24' <<<"$output")" 0 "other routes in: $output"
	assert_eq "$(grep -c '^192\.168\.5\.0/24' <<<"$output")" 1 "routes of the subnet"
	run_ok on n2 ip rule show
	assert_eq "${#lines[@]}" 3 "rules"
	assert_eq "$(lab exec n2 cat /proc/sys/net/ipv4/ip_forward)" 0 "ip_forward"
}

@test "node: a pinned workload refuses to move, an unpinned one moves" {
	workload n1 app 192.168.5.2
	server n1 app srv 192.168.5.2:2000
	run_ok on n1 overlayd pin app
	run_fail on n1 ms-migrate app n2
	assert_match "$output" "pin"
	assert_eq "$(where n2 app)" n1 "holder"
	run_ok on n1 overlayd unpin app
	move n1 app n2
	assert_eq "$(where n1 app)" n2 "holder"
}

@test "node: check-config tells file, line and what was expected" {
	run_ok on n1 overlayd check-config
	sed 's/^port = 7470/port = seventy/' <(lab exec n1 cat /etc/overlayd/overlayd.conf) >"$BATS_TEST_TMPDIR/bad.conf"
	run_fail overlayd check-config -c "$BATS_TEST_TMPDIR/bad.conf"
	assert_match "$output" "bad.conf:3"
	run_fail overlayd check-config -c /nonexistent
	run_rc 2 overlayd frobnicate
	run_rc 2 overlayd netns add
}
