#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Never on both, never on none: each fault point of a migration fires on each side, in each way, under clients that check
# every byte. After each: one running copy, on the node the directory names; it answers, every connection lives, its lock and
# its UNIX name are its own; nothing is left over; it can move again.
#
#	n1, n2: the workload moves between them    n3: the clients, and the directory
#
# Needs a build with FAULTS=1 ($BUILD/faults; tests/run makes it). The points are listed in overlayd/agent/fault.h.

load helpers

SRC_POINTS="check prepare freeze captured dump restore fence commit swapped hand-over handed clean"
DST_POINTS="check prepare receive restore stands commit hand-over kept running finish"
CLIENTS="pings streams idles"

setup_file() {
	[ -x "$BUILD/faults/bin/overlayd" ] || fail "no build with fault points: make BUILD=$BUILD/faults FAULTS=1"
	export BUILD=$BUILD/faults PATH=$BUILD/faults/bin:$PATH
	lab_up 3 --subnet 192.168.5.0/24=n3
}
teardown_file() { lab_down; }

setup() {
	LOCK=$BATS_TEST_TMPDIR/lock
	NAME=$BATS_TEST_TMPDIR/name
	workload n1 app 192.168.5.2
	workload n3 far 192.168.5.5
	server n1 app srv --lock "$LOCK" --unix "$NAME" 192.168.5.2:2000
	client n3 far pings --interval 5 192.168.5.2:2000
	client n3 far streams --mode both --rate 2 192.168.5.2:2000
	client n3 far idles --interval 100 192.168.5.2:2000
}
teardown() {
	local n
	lab heal n1 n2
	for n in n1 n2; do
		rm -f "$(root $n)"/run/overlayd/fault "$(root $n)"/run/overlayd/fault.reached
		daemon_back $n
	done
	drop_workloads && end_spawned
}

# ---- a node, looked at from outside: its files by way of its holder (see also tests/lib/faultlook.py) ---------------------------

root() {
	local pid
	read -r pid _ <"/tmp/ms-lab-$LAB_NAME/holders/$1"
	echo "/proc/$pid/root"
}
state() { # NODE FILTER: of the workload's state there, nothing when it is not there
	jq -r "$2" "$(root "$1")/run/overlayd/workloads/app/state.json" 2>/dev/null || true
}
other() { [ "$1" = n1 ] && echo n2 || echo n1; }
arm() { # NODE "POINT ACTION"...
	printf '%s\n' "${@:2}" >"$(root "$1")/run/overlayd/fault"
}
disarmed() { [ ! -e "$(root "$1")/run/overlayd/fault" ]; }
holder() {
	local n
	for n in n1 n2; do
		[ "$(state $n .state)" != live ] || echo $n
	done
}
runs_at() { [ "$(state "$1" .state)" = live ]; }

daemon_lives() {
	local pid
	{ read -r pid <"$(root "$1")/run/overlayd/overlayd.pid"; } 2>/dev/null && _start_time "$pid" >/dev/null &&
		[ "$(cat "/proc/$pid/comm" 2>/dev/null)" = overlayd ]
}
daemon_dead() { ! daemon_lives "$1"; }
daemon_back() { # node: overlayd runs again if it was killed
	daemon_lives "$1" || on "$1" overlayd start >>"$BATS_TEST_TMPDIR/daemon.log" 2>&1 3>&- || true
	wait_for 15 on "$1" overlayd status
}

tell() { # what was going on, for the log of a failed test
	local n
	{
		cat "$BATS_TEST_TMPDIR"/mover.{out,err} "$BATS_TEST_TMPDIR/daemon.log" 2>&1
		for n in n1 n2; do
			echo "--- $n"
			timeout 5 "$TOP/scripts/lab" exec $n overlayd status --json 2>&1 | jq -c '{workloads, migrations}' 2>&1
			tail -n 30 "/tmp/ms-lab-$LAB_NAME/log/$n.overlayd" | cut -c 1-220
		done
	} >&2
}

# settled WHAT: everything that must hold when the dust has settled
settled() {
	local wrong
	# shellcheck disable=SC2086
	wrong=$("$TOP/tests/lib/faultlook.py" "$LAB_NAME" "${SETTLE:-60}" "$BATS_TEST_TMPDIR" $CLIENTS) ||
		{ tell; fail "$1: $wrong"; return 1; }
}

again() { # it moves as if nothing had been
	local to
	to=$(other "$(holder)")
	move "$(holder)" app "$to" || { tell; return 1; }
	assert_eq "$(holder)" "$to" "holder after another move"
}

ended() { local c; for c in $CLIENTS; do client_ok $c || return 1; done; }

mover_ended() { ! kill -0 "$(spawned mover)" 2>/dev/null; }

# ---- every point -------------------------------------------------------------------------------------------------------------

# case SIDE.POINT ACTION...: that migration, until all is quiet. A daemon that was killed comes back when nothing goes on any
# more without it, or a second later.
one_case() {
	local from to at
	from=$(holder)
	to=$(other "$from")
	at=$from
	[[ $1 != dst.* ]] || at=$to
	arm "$at" "$1 $2"
	spawn mover on "$from" ms-migrate app "$to"
	wait_for 30 disarmed "$at" || { tell; fail "$1 was not come by"; return 1; }
	[[ $2 != kill*[dl] ]] || wait_for 5 daemon_dead "$at" || return 1
	[[ $2 != killd ]] || wait_for 1 mover_ended 2>/dev/null || true
	[[ $2 != kill*[dl] ]] || daemon_back "$at"
	settled "$*" || return 1
	TIMEOUT=20 finish mover none || return 1
	assert_match "$status" '^[01356]$' "$*: exit status" || return 1
	if [ "$status" -eq 0 ]; then assert_eq "$(holder)" "$to" "$*: moved" || return 1; fi
	if [ "$status" -eq 1 ]; then assert_eq "$(holder)" "$from" "$*: rolled back" || return 1; fi
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
