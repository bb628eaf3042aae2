#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2154
# A destination that vanishes after the commit: the source waits, in doubt, until an operator gives it up; then it runs on at the
# source, and a copy that comes back never runs beside it
#
#	n1, n2: the workload moves from one to the other    n3: the clients, and the directory

load helpers
load faults

setup_file() { fault_setup_file; }
teardown_file() { lab_down; }
setup() { fault_setup; }
teardown() {
	lab heal n2 n3
	fault_teardown
}

# held POINT: a move to n2 that waits at a point there, and what n2 has is still on its way to nobody
held() {
	arm n2 "$1 pause"
	spawn mover on n1 ms-migrate app n2
	wait_for 30 test -e "$(root n2)/run/overlayd/fault.reached" || { tell; return 1; }
	n2_pids=$(pids_at n2)
}
pids_at() { on "$1" ip netns pids app 2>/dev/null | xargs; }
let_go() { rm -f "$(root n2)/run/overlayd/fault.reached"; }
runs_at_n2() { [ "$(jq .outcome "$(root n2)"/run/overlayd/migrations/"$id".outcome)" = 2 ]; }
cut_off() { lab cut n2 n1; lab cut n2 n3; }
back() { lab heal n2 n1; lab heal n2 n3; }
in_doubt() { on n1 overlayd status --json | jq -e '.migrations[0] | .in_doubt and .stage == "hand-over"'; }
migration() { on n1 overlayd status --json | jq -r '.migrations[0].id'; }
nothing_at_n2() { [ ! -e "$(root n2)/run/overlayd/workloads/app" ] && [ ! -e "$(root n2)/run/netns/app" ]; }
all_ended() { local p; for p in $n2_pids; do [ ! -d "/proc/$p" ] || return 1; done; }
generation() { on n3 overlayd where app --json | jq -r '.[0] | "\(.node) \(.generation)"'; }

accepted() { on n1 overlayd migration resolve "$1" --give-up-destination; }

# the operator's part, with what is refused first
give_up() {
	wait_for 30 in_doubt || { tell; return 1; }
	local id c
	id=$(migration)
	run_ok on n1 overlayd status
	assert_match "$output" "IN DOUBT.*overlayd migration resolve ${id:0:8} --give-up-destination"
	run_rc 2 on n1 overlayd migration resolve "${id:0:8}"
	assert_match "$output" "gone for good"
	run_rc 1 on n1 overlayd migration resolve 00000000 --give-up-destination
	run_rc 1 on n1 overlayd migration resolve "${id:0:3}" --give-up-destination
	in_doubt
	# not before its own overlayd is known to be out of reach, too
	wait_for 40 accepted "${id:0:8}" || { tell; fail "$(on n1 overlayd migration resolve "${id:0:8}" --give-up-destination 2>&1)"; return 1; }
	wait_for 20 runs_at n1 || { tell; return 1; }
	for c in $CLIENTS; do progress $c || { tell; return 1; }; done
}
# n2 is among the living again: what it had of the migration goes, and the workload can move there once more
comes_back() { # CASE
	back
	wait_for 40 nothing_at_n2 || { tell; return 1; }
	wait_for 10 all_ended
	FAULT_LOCK=lost settled "$1"
	again
	ended
}
mover_says() { # STATUS REGEX
	TIMEOUT=30 finish mover none || { tell; return 1; }
	assert_eq "$status" "$1" "exit status: $(cat "$BATS_TEST_TMPDIR/mover.err")"
	assert_match "$(cat "$BATS_TEST_TMPDIR/mover.err")" "$2"
}

@test "give up: refused while the destination answers, or nothing is in doubt" {
	held dst.hand-over
	run_rc 1 on n1 overlayd migration resolve "$(migration)" --give-up-destination
	assert_match "$output" "not in doubt"
	run_rc 1 on n2 overlayd migration resolve "$(migration)" --give-up-destination
	assert_match "$output" "its source, n1, is where that is decided"
	lab cut n1 n2
	wait_for 30 in_doubt
	lab heal n1 n2
	wait_for 30 eval 'on n1 overlayd status --json | jq -e ".peers[] | select(.name == \"n2\") | .state == \"up\""'
	run_rc 1 on n1 overlayd migration resolve "$(migration)" --give-up-destination
	assert_match "$output" "n2 answers"
	let_go
	TIMEOUT=60 finish mover none
	assert_eq "$status" 0 "the move: $(cat "$BATS_TEST_TMPDIR/mover.err")"
	settled "a destination that was away for a moment"
	ended
}

@test "give up: the destination came back before its copy opened: it never runs" {
	local before
	before=$(generation)
	held dst.hand-over
	cut_off
	give_up
	assert_eq "$(generation)" "n1 $((${before#* } + 2))"
	mover_says 1 "an operator gave it up; app goes on running on n1, its vIPs were moved back"
	let_go
	comes_back "given up before it opened"
}

# From dst.kept on it runs without asking again: it had just asked. Cut off before it opened, nobody heard it
@test "give up: the copy ran, cut off from everybody, and is ended when its node comes back" {
	local id
	held dst.kept
	id=$(migration)
	[ -n "$n2_pids" ]
	cut_off
	let_go
	wait_for 20 runs_at_n2 || { tell; return 1; }
	give_up
	mover_says 1 "an operator gave it up"
	comes_back "given up while it ran"
}

@test "give up: the copy ran and its agent dies, cut off; its recovery asks before it opens anything" {
	arm n2 "dst.kept pause" "dst.running pause"
	spawn mover on n1 ms-migrate app n2
	wait_for 30 test -e "$(root n2)/run/overlayd/fault.reached" || { tell; return 1; }
	n2_pids=$(pids_at n2)
	cut_off
	let_go
	wait_for 20 disarmed n2 || { tell; return 1; }
	wait_for 20 test -e "$(root n2)/run/overlayd/fault.reached"
	kill -KILL "$(jq .agent.pid "$(root n2)"/run/overlayd/migrations/*/journal.json)"
	let_go
	give_up
	mover_says 1 "an operator gave it up"
	comes_back "given up, then recovered"
}

@test "give up: the source's agent died as well: its recovery waits for the operator in the same way" {
	held dst.hand-over
	cut_off
	wait_for 30 in_doubt
	kill -KILL "$(jq .agent.pid "$(root n1)"/run/overlayd/migrations/*/journal.json)"
	mover_says 5 "lost the migration's agent"
	give_up
	let_go
	comes_back "given up in recovery"
}

# last: n2 is gone afterwards, and comes back empty
@test "give up: the destination is destroyed after the commit" {
	held dst.kept
	lab crash n2
	give_up
	mover_says 1 "an operator gave it up"
	lab boot n2
	wait_for 20 on n2 overlayd status
	settled "destroyed"
	again
	ended
}
