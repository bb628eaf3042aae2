#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# precopy_faults.bats - what goes wrong while memory is copied beforehand: nothing is lost, no page is an old one
#
#	n1, n2: the workload moves between them    n3: the clients, and the directory

load helpers
load faults

setup_file() { fault_setup_file; }
teardown_file() { lab_down; }
setup() {
	T=$BATS_TEST_TMPDIR
	fault_setup
	spawn rewriter on n1 ip netns exec app rewriter 12
	looked_again
}
teardown() { fault_teardown; }

rounds() { grep -c "^round" "$T/rewriter.out" || true; }
rounds_over() { [ "$(rounds)" -gt "$1" ]; }
looked_again() { # each of its threads at all its memory
	wait_for 60 rounds_over $(($(rounds) + 12))
	assert_eq "$(grep -v " 0 bad$" "$T/rewriter.out" || true)" "" "pages that are not what was written last"
}

# one_case POINT ACTION STATUS: the next migration meets it, and ms-migrate ends with one of STATUS
one_case() {
	mover_towards "$1" "$2"
	mover_met "$1" "$2"
	settled "$1 $2"
	TIMEOUT=20 finish mover none
	assert_match "$status" "^[$3]\$" "$1 $2: exit status"
	looked_again
}

@test "precopy faults: what came beforehand cannot be stored" {
	one_case dst.precopy error 0
	again
	ended
}

@test "precopy faults: the source fails, and its agent is killed, between two passes" {
	one_case src.precopy error 1
	one_case src.precopy kill 15
	again
	ended
}

@test "precopy faults: the destination's agent is killed between two passes" {
	one_case dst.precopy kill 1
	again
	ended
}
