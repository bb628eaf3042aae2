#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Never on both, never on none: each fault point of a migration fires on each side, in each way, under clients that check
# every byte. After each: one running copy, on the node the directory names; it answers, every connection lives, its lock and
# its UNIX name are its own; nothing is left over. The next case shows that it can move again.
#
#	n1, n2: the workload moves between them    n3: the clients, and the directory

load helpers
load faults

SRC_POINTS="check prepare freeze captured dump restore fence commit swapped hand-over handed clean"
DST_POINTS="check prepare receive restore stands commit hand-over kept running finish"

setup_file() { fault_setup_file; }
teardown_file() { lab_down; }
setup() { fault_setup; }
teardown() { fault_teardown; }

# one_case SIDE.POINT ACTION: that migration, until all is quiet
one_case() {
	mover_towards "$@"
	mover_met "$@" || return 1
	settled "$*" || return 1
	TIMEOUT=20 finish mover none || return 1
	assert_match "$status" '^[01356]$' "$*: exit status" || return 1
	if [ "$status" -eq 0 ]; then assert_eq "$(holder)" "$TO" "$*: moved" || return 1; fi
	if [ "$status" -eq 1 ]; then assert_eq "$(holder)" "$FROM" "$*: rolled back" || return 1; fi
}

each_point() { # side action
	local point points=$SRC_POINTS
	[ "$1" = src ] || points=$DST_POINTS
	for point in $points; do
		one_case "$1.$point" "$2" || return 1
	done
	again
	ended
}

@test "faults: every point of the source fails" { each_point src error; }
@test "faults: every point of the destination fails" { each_point dst error; }
@test "faults: the source's agent is killed at every point" { each_point src kill; }
@test "faults: the destination's agent is killed at every point" { each_point dst kill; }
@test "faults: the source's overlayd is killed at every point, and started again" { each_point src killd; }
@test "faults: the destination's overlayd is killed at every point, and started again" { each_point dst killd; }
@test "faults: the source's overlayd and agent are killed at every point" { each_point src killall; }
@test "faults: the destination's overlayd and agent are killed at every point" { each_point dst killall; }
