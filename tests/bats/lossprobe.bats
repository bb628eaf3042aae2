#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Tail loss probes: off in the workload's namespace while it is frozen, as they were afterwards, however the migration ends.
#
#	n1, n2: the workload moves between them    n3: the clients, and the directory

load helpers
load faults

setup_file() { fault_setup_file; }
teardown_file() { lab_down; }
setup() {
	fault_setup
	probes_are n1 4
}
teardown() { fault_teardown; }

KEY=net.ipv4.tcp_early_retrans
probes() { on "$1" ip netns exec app sysctl -n $KEY; }
probes_are() { on "$1" ip netns exec app sysctl -q -w $KEY="$2"; }	# not what the kernel sets by itself
reached() { [ -e "$(root "$1")/run/overlayd/fault.reached" ]; }

@test "lossprobe: off during the freeze, put back by a roll-back; a new namespace has what every one has" {
	local usual
	usual=$(on n3 ip netns exec far sysctl -n $KEY)
	[ "$usual" != 0 ] && [ "$usual" != 4 ]
	arm n1 "src.dump pause" "src.fence error"
	spawn mover on n1 ms-migrate app n2
	wait_for 60 reached n1
	assert_eq "$(probes n1)" 0 "while it is frozen"
	rm "$(root n1)/run/overlayd/fault.reached"
	wait_for 60 disarmed n1
	settled "rolled back"
	TIMEOUT=20 finish mover none
	assert_eq "$(holder)" n1
	assert_eq "$(probes n1)" 4 "after the roll-back"
	again
	assert_eq "$(probes n2)" "$usual" "at the destination"
	ended
}

@test "lossprobe: put back by the recovery when the agent is killed" {
	local point
	for point in src.freeze src.captured src.restore src.commit; do
		arm n1 "$point kill"
		spawn mover on n1 ms-migrate app n2
		wait_for 60 disarmed n1
		settled "$point kill"
		TIMEOUT=20 finish mover none
		assert_eq "$(holder)" n1
		assert_eq "$(probes n1)" 4 "after $point"
	done
	ended
}
