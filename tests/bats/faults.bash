# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2034,SC2154
# faults.bash - a workload that is moved between n1 and n2 of a lab while things fail, and clients that check every byte on n3, where
# the directory is. `load faults` (after helpers); needs a build with FAULTS=1 ($BUILD/faults; tests/run makes it). The points are
# listed in overlayd/agent/fault.h.
#
#   setup_file() { fault_setup_file; }   setup() { fault_setup; }   teardown() { fault_teardown; }
#   arm NODE "POINT ACTION"...   the next migration there meets it      disarmed NODE   all of them were met, disarmed_minding NODE...
#   mover_towards POINT ACTION [OPTION]...   app moves to the other node, and is to meet it at POINT's side -> $FROM, $TO, $AT
#   mover_met POINT ACTION       it has; a daemon that it killed is back
#   settled WHAT                 everything that must hold afterwards (tests/lib/faultlook.py)
#   again                        it moves as if nothing had been        ended           the clients end, nothing was lost
#   late NODE WORKLOAD NAME MODE ARGS...   late.py there, standing      calm            nothing is under way

CLIENTS="pings streams idles"

fault_setup_file() {
	with_faults
	lab_up 3 --subnet 192.168.5.0/24=n3
}

fault_setup() {
	workload n1 app 192.168.5.2
	workload n3 far 192.168.5.5
	server n1 app srv --lock "$BATS_TEST_TMPDIR/lock" --unix "$BATS_TEST_TMPDIR/name" 192.168.5.2:2000
	client n3 far pings --interval 5 192.168.5.2:2000
	client n3 far streams --mode both --rate 2 192.168.5.2:2000
	client n3 far idles --interval 100 192.168.5.2:2000
}
fault_teardown() {
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
disarmed_minding() { # NODE...: a daemon that is killed on the way comes back, else nobody would recover
	local n armed=
	for n in "$@"; do disarmed "$n" || armed=$n; done
	[ -n "$armed" ] || return 0
	for n in "$@"; do daemon_lives "$n" || daemon_back "$n"; done
	return 1
}
mover_towards() {
	FROM=$(holder)
	TO=$(other "$FROM")
	AT=$FROM
	[[ $1 != dst.* ]] || AT=$TO
	arm "$AT" "$1 $2"
	spawn mover on "$FROM" ms-migrate app "$TO" "${@:3}"
}
# a daemon comes back when nothing goes on any more without it, or a second later; with its agent dead, at once
mover_met() {
	wait_for 30 disarmed "$AT" || { tell; fail "$1 was not come by"; return 1; }
	[[ $2 == kill*[dl] ]] || return 0
	wait_for 5 daemon_dead "$AT" || return 1
	[ "$2" != killd ] || within 1 mover_ended || true
	daemon_back "$AT"
}
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
daemon_back() { wait_for 15 _daemon_answers "$1"; } # node: overlayd runs again if it was killed, and if it is killed meanwhile
_daemon_answers() {
	daemon_lives "$1" || on "$1" overlayd start >>"$BATS_TEST_TMPDIR/daemon.log" 2>&1 3>&- || true
	on "$1" overlayd status
}

_tell() {
	local n
	cat "$BATS_TEST_TMPDIR"/mover.{out,err} "$BATS_TEST_TMPDIR/daemon.log" 2>/dev/null
	for n in n1 n2; do
		echo "--- $n"
		timeout 5 "$TOP/scripts/lab" exec $n overlayd status --json 2>&1 | jq -c '{workloads, migrations}' 2>&1
		tail -n 30 "$(root $n)/run/overlayd/overlayd.log" | cut -c 1-220
	done
}
tell() { _tell >&2 || true; } # what was going on, for the log of a failed test

# settled WHAT: everything that must hold when the dust has settled
settled() {
	local wrong
	# shellcheck disable=SC2086
	wrong=$("$TOP/tests/lib/faultlook.py" "$LAB_NAME" "${SETTLE:-120}" "$BATS_TEST_TMPDIR" $CLIENTS) ||
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

# ---- servers that are late to accept, to read or to end (tests/lib/late.py): acceptq.bats, orphan.bats -------------------------------

late_setup() {
	workload n1 app 192.168.5.2
	workload n3 far 192.168.5.5
	GO=$BATS_TEST_TMPDIR/go
}
late() { # node workload name mode args...: late.py in a workload, standing
	local node=$1 inside=$2 name=$3
	shift 3
	spawn "$name" on "$node" ip netns exec "$inside" "$TOP/tests/lib/late.py" "$@"
	wait_for 30 test -e "$BATS_TEST_TMPDIR/$name.ready" || { cat "$BATS_TEST_TMPDIR/$name.err" >&2; return 1; }
}
calm() { # nothing under way, the server somewhere
	local n
	[ "$(holder | wc -w)" = 1 ] || return 1
	for n in n1 n2; do
		[ "$(on $n overlayd status --json | jq '.migrations | length')" = 0 ] || return 1
	done
}
