#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Never on both, never on none: each fault point of a migration fires on each side, in each way, under a client that checks
# every byte. After each: one running copy, it answers, its connections live, the directory names its node, nothing is left over.
#
#	n1, n2: the workload moves between them    n3: the client; the directory is on n3, so that it may be cut off
#
# Needs a build with FAULTS=1 ($BUILD/faults; tests/run makes it).

load helpers

SRC_POINTS="check prepare freeze captured dump restore fence commit swapped hand-over handed clean"
DST_POINTS="prepare restore kept"

setup_file() {
	[ -x "$BUILD/faults/bin/overlayd" ] || fail "no build with fault points: make BUILD=$BUILD/faults FAULTS=1"
	export BUILD=$BUILD/faults PATH=$BUILD/faults/bin:$PATH
	lab_up 3 --subnet 192.168.5.0/24=n3
}
teardown_file() { lab_down; }

setup() {
	workload n1 app 192.168.5.2
	workload n3 far 192.168.5.5
	server n1 app srv 192.168.5.2:2000
	client n3 far c1 -n 2 192.168.5.2:2000
	client n3 far c2 --mode both -n 2 --rate 5 192.168.5.2:2000
}
teardown() {
	local n
	lab heal n1 n2; lab heal n3
	for n in n1 n2; do
		on $n rm -f /run/overlayd/fault /run/overlayd/fault.reached
		daemon_back $n
	done
	drop_workloads && end_spawned
}

other() { [ "$1" = n1 ] && echo n2 || echo n1; }

# processes that are the server, on whatever node, frozen or not
copies() {
	local n p
	for n in n1 n2; do
		for p in $(on $n ip netns pids app 2>/dev/null); do
			[ "$(cat "/proc/$p/comm" 2>/dev/null)" != ms-testsrv ] || echo "$p"
		done
	done
}
one_copy() { [ "$(copies | wc -l)" -eq 1 ]; }

holders() {
	local n
	for n in n1 n2; do
		on $n overlayd netns list --json | jq -r --arg n $n '.[] | select(.name == "app") | $n'
	done
}
one_holder() { [ "$(holders | wc -l)" -eq 1 ]; }

no_migrations() {
	local n
	for n in n1 n2; do
		[ "$(on $n overlayd status --json | jq '.migrations | length')" = 0 ] || return 1
	done
}

no_images() {
	[ -z "$(for n in n1 n2; do on $n find /run/overlayd/migrations -name '*.img' 2>/dev/null; done)" ]
}

daemon_back() { # node: overlayd runs again if it was killed
	on "$1" overlayd status >/dev/null 2>&1 || on "$1" overlayd start >/dev/null 2>&1 || true
	wait_for 15 on "$1" overlayd status
}

tell() { # what was going on, for the log of a failed test
	local n
	for n in n1 n2; do
		echo "--- $n"
		on $n overlayd status --json 2>&1 | jq -c '{workloads, migrations}' 2>&1
		on $n bash -c 'tail -n 15 /run/overlayd/migrations/*/*.log' 2>&1 | grep -v '^$'
	done >&2
}

# after WHAT: everything that must hold when the dust has settled
settled() {
	wait_for 60 no_migrations || { tell; fail "$1: a migration goes on"; return 1; }
	wait_for 10 one_copy || { tell; fail "$1: copies: $(copies | wc -l)"; return 1; }
	wait_for 10 one_holder || { tell; fail "$1: nodes that have it: $(holders | xargs)"; return 1; }
	progress c1 20 && progress c2 20 || { tell; fail "$1: the clients get no answer"; return 1; }
	assert_eq "$(jq '.lost + .errors' "$BATS_TEST_TMPDIR/c1.json")" 0 "$1: connections lost, bytes wrong" || return 1
	assert_eq "$(jq '.lost + .errors' "$BATS_TEST_TMPDIR/c2.json")" 0 "$1: connections lost, bytes wrong" || return 1
	assert_eq "$(where n3 app)" "$(holders)" "$1: the directory's answer" || return 1
	wait_for 10 no_images || { fail "$1: images are left"; return 1; }
}

# each_point SIDE ACTION: every point of that side in turn; the workload is wherever the last one left it
each_point() {
	local side=$1 action=$2 point from to at points=$SRC_POINTS
	[ "$side" = src ] || points=$DST_POINTS
	for point in $points; do
		from=$(holders)
		to=$(other "$from")
		at=$from
		[ "$side" = src ] || at=$to
		on "$at" bash -c "echo $side.$point $action >/run/overlayd/fault"
		timeout 60 "$TOP/scripts/lab" exec "$from" ms-migrate app "$to" </dev/null >"$BATS_TEST_TMPDIR/out" 2>&1 3>&- || true
		run_rc 1 on "$at" test -e /run/overlayd/fault || { fail "$side.$point was not come by: $(cat "$BATS_TEST_TMPDIR/out")"; return 1; }
		daemon_back n1
		daemon_back n2
		settled "$side.$point $action" || { cat "$BATS_TEST_TMPDIR/out" >&2; return 1; }
	done
	client_ok c1
	client_ok c2
}

@test "faults: every point of the source fails" { each_point src error; }
@test "faults: every point of the destination fails" { each_point dst error; }
@test "faults: the source's agent is killed at every point" { each_point src kill; }
@test "faults: the destination's agent is killed at every point" { each_point dst kill; }
@test "faults: the source's overlayd is killed at every point, and started again" { each_point src killd; }
@test "faults: the destination's overlayd is killed at every point, and started again" { each_point dst killd; }
@test "faults: the source's overlayd and agent are killed at every point" { each_point src killall; }
@test "faults: the destination's overlayd and agent are killed at every point" { each_point dst killall; }

# paused_move SIDE POINT: a move that waits at a point; $AT is the node it waits on
paused_move() {
	FROM=$(holders)
	TO=$(other "$FROM")
	AT=$FROM
	[ "$1" = src ] || AT=$TO
	on "$AT" bash -c "echo $1.$2 pause >/run/overlayd/fault"
	spawn mover on "$FROM" ms-migrate app "$TO"
	wait_for 30 on "$AT" test -e /run/overlayd/fault.reached
}
go_on() { on "$AT" rm -f /run/overlayd/fault.reached; }

@test "faults: the link between the two nodes is cut before the commit, and healed" {
	local point
	for point in prepare dump restore fence; do
		paused_move src $point
		lab cut n1 n2
		go_on
		TIMEOUT=90 finish mover none
		assert_match "$status" "^[1-6]$" "exit status, link cut at $point"
		assert_eq "$(where n3 app)" "$FROM" "holder, link cut at $point"
		lab heal n1 n2
		settled "link cut at $point"
	done
	client_ok c1
	client_ok c2
}

@test "faults: the directory is away at the commit: in doubt, until it is back" {
	paused_move src commit
	lab cut n3
	go_on
	wait_for 30 in_doubt
	lab heal n3
	TIMEOUT=90 finish mover none
	settled "directory away at the commit"
	client_ok c1
	client_ok c2
}
in_doubt() { on "$FROM" overlayd status --json | jq -e '.migrations[0].in_doubt'; }

@test "faults: Ctrl-C before the commit rolls back" {
	paused_move src dump
	kill -INT "$(spawned mover)"
	go_on
	TIMEOUT=60 finish mover none
	assert_eq "$status" 4 "exit status of a cancelled move"
	assert_eq "$(where n3 app)" "$FROM" "holder"
	settled "Ctrl-C"
	client_ok c1
	client_ok c2
}
