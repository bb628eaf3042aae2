#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# dirnodes.bats - nodes and their directory: who may have what, and life while the directory or a node is away
#
#	n1 (directory, reports every second)    n2    n3        workloads 192.168.5.0/24

load helpers

setup_file() {
	lab_up 3
	on n1 sed -i 's/^lease.*/lease = 3/' /etc/overlayd/directoryd.conf
	on n1 directoryd stop
	on n1 directoryd start
}
teardown_file() { lab_down; }
teardown() { drop_workloads && end_spawned; }

record() { # VIP FIELD
	on n1 directoryd list --json | jq -r ".[] | select(.vip == \"$1\") | .$2"
}
is_record() { [ "$(record "$1" "$2")" = "$3" ]; }

@test "directory: an address or a name in use is refused with its holder's name, and nothing is left of the attempt" {
	workload n1 app 192.168.5.2
	run_fail on n2 overlayd netns add other 192.168.5.2
	assert_match "$output" "192.168.5.2 is held by app on n1"
	run_fail on n2 overlayd netns add app 192.168.5.3
	assert_match "$output" "the name app is held by n1"
	assert_eq "$(on n2 overlayd netns list --json | jq length)" 0 "workloads of n2"
	run_fail on n2 ip netns exec other true
	run_fail on n2 overlayd release 192.168.5.2
	assert_match "$output" "only a suspect vIP"
	workload n2 other 192.168.5.3
	run_ok on n3 overlayd where other
	assert_match "$output" "192.168.5.3 +other +n2"
}

@test "directory: confirmations are counted, by the second" {
	local first
	workload n2 app 192.168.5.2
	first=$(record 192.168.5.2 last_confirmed_ms)
	later() { [ "$(record 192.168.5.2 last_confirmed_ms)" -gt "$first" ]; }
	wait_for 5 later
	wait_for 5 is_record 192.168.5.2 state live
}

@test "directory: while it is away what is known goes on, adding says why it cannot, and all is well when it is back" {
	workload n2 app 192.168.5.2
	workload n3 far 192.168.5.5
	server n2 app srv 192.168.5.2:2000
	client n3 far before 192.168.5.2:2000
	on n1 directoryd stop
	progress before
	client n3 far new 192.168.5.2:2000 # a connection made now, to a known place
	run_fail on n3 overlayd netns add late 192.168.5.9
	assert_match "$output" "directory 10.77.0.1:7471 for 192.168.5.0/24 does not answer"
	assert_eq "$(on n3 overlayd netns list --json | jq length)" 1 "workloads of n3"
	run_fail on n2 ms-migrate "$SERVER" n3
	assert_match "$output" "does not answer"
	progress before
	on n1 directoryd start
	wait_for 10 is_record 192.168.5.2 state live
	workload n3 late 192.168.5.9
	move n2 "$SERVER" n3
	assert_eq "$(where n1 app)" n3
	client_ok before
	client_ok new
}

@test "directory: killed and started again it knows everything, and nodes find it by themselves" {
	local generation
	workload n2 app 192.168.5.2
	generation=$(record 192.168.5.2 generation)
	kill -9 "$(on n1 directoryd status --json | jq .pid)"
	wait_for 5 run_rc 3 on n1 directoryd status
	on n1 directoryd start
	assert_eq "$(record 192.168.5.2 generation)" "$generation"
	assert_eq "$(record 192.168.5.2 node)" n2
	confirmed() { [ "$(($(date +%s%3N) - $(record 192.168.5.2 last_confirmed_ms)))" -lt 2500 ]; }
	wait_for 10 confirmed
}

# last: n3 is gone afterwards
@test "directory: a node that died keeps its addresses until an operator says otherwise" {
	local generation
	workload n3 app 192.168.5.2
	generation=$(record 192.168.5.2 generation)
	lab crash n3
	wait_for 10 is_record 192.168.5.2 state suspect
	run_ok on n2 overlayd where app
	assert_match "$output" "192.168.5.2 +app +n3 .* suspect"
	run_fail on n2 overlayd netns add app 192.168.5.2
	assert_match "$output" "held by n3"
	run_ok on n2 overlayd release 192.168.5.2
	on n1 grep -q "audit: n2: release by force of 192.168.5.2: app on n3" /run/overlayd/directoryd.log
	workload n2 app 192.168.5.2
	assert_eq "$(record 192.168.5.2 node)" n2
	assert_eq "$(record 192.168.5.2 generation)" $((generation + 1))
}
