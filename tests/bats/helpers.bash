# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2034
# helpers.bash - what every bats file loads: `load helpers`
#
#   run_ok CMD...             run it; the test fails with its output unless it exits 0        -> $output, $status
#   run_rc RC CMD...          the same with another exit status expected
#   run_fail CMD...           the same, any failure but a timeout expected
#                             TIMEOUT=SECONDS before them bounds the run (120, at least 60); a run out of time always fails
#   assert_eq GOT WANT [WHAT] assert_match TEXT REGEX [WHAT]   refute_match TEXT REGEX [WHAT]   assert_le A B [WHAT]
#   wait_for SECONDS CMD...   until CMD succeeds; fails telling what was awaited. SECONDS is what an unhurried machine needs at most;
#                             a slow one gets at least a minute: who waits for a thing does not claim that it is fast
#   within SECONDS CMD...      the same with exactly that limit, and silent: for what may as well not come
#   spawn NAME CMD...         in the background: output in $BATS_TEST_TMPDIR/NAME.out and .err, pid in $SPAWNED
#   spawned NAME              its pid
#   finish NAME [SIGNAL]      send SIGNAL (TERM; "none": send nothing), await the end -> $status, $output (its standard output)
#   best_of N CMD...          CMD succeeds once in N attempts: only for a bound of time that is the claim, which a machine that stands
#                             still for a moment breaks, and a fault of ours breaks each time
#   json FILTER [FILE]        jq -r on FILE or on $output
#   pings_whole NAME          a `ping` that was spawned, and prints its answers: 20 more come, it ends, none was missing
#
#   lab_up [ARGS...]          a lab of this test file's own; arguments of `scripts/lab up`
#   with_faults               the programs with fault points from here on (setup_file, before lab_up)
#   lab CMD...                scripts/lab with that name
#   on NODE CMD...            `lab exec`; run_ok on n1 CMD..., spawn NAME on n1 CMD... work
#   lab_down                  and check that nothing is left (teardown_file)
#
#   workload NODE NAME VIPS   overlayd netns add
#   drop_workloads            remove every workload of every node, with what runs in it (teardown)
#   server NODE WORKLOAD NAME ENDPOINT [ARGS]   ms-testsrv in the workload; its pid is in $SERVER
#   client NODE WORKLOAD NAME ARGS...           ms-testcli in the workload ("-": in the node itself), attached and talking
#   client_ok NAME            end the client: no byte wrong, nothing lost; its JSON is in $output
#   move FROM WHO TO [ARGS]   ms-migrate WHO TO --json on FROM; its JSON is in $output, the new pid in $MOVED
#   query NODE WORKLOAD ENDPOINT FIELD          a counter of a server
#
# Each file:   setup_file() { lab_up 3; }   teardown_file() { lab_down; }   teardown() { drop_workloads; end_spawned; }
# Names that must be unique on the machine carry $TAG. Nothing here ends a process this test did not start.

TOP=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)
BUILD=${BUILD:-$TOP/build}
[[ $BUILD == /* ]] || BUILD=$TOP/$BUILD
export TOP BUILD
export PATH=$BUILD/bin:$TOP/scripts:$PATH:/usr/sbin:/sbin
TAG=${TAG:-t$$}
export TAG LAB_NAME=${TEST_LAB_NAME:-$TAG}
export LAB_READY_S=${LAB_READY_S:-60}

fail() {
	printf '%s\n' "$*" >&2
	return 1
}

# as root or not at all: said aloud, never silently
need_root() {
	[ "$(id -u)" -eq 0 ] || skip "needs root"
}

_run() { # CMD...: $output (both streams) and $status
	local limit
	limit=$(_patience "${TIMEOUT:-120}")
	if output=$(_limited "$limit" "$@" 2>&1 </dev/null 3>&-); then status=0; else status=$?; fi
	mapfile -t lines <<<"$output"
	[ $status -ne 124 ] || fail "no end after $limit s: $*" "$output"
}

# a function of this file cannot be run by timeout(1): its command is
_limited() {
	local limit=$1
	shift
	case $1 in
	on) shift; timeout --kill-after=5 "$limit" "$TOP/scripts/lab" exec "$@" ;;
	lab) shift; timeout --kill-after=5 "$limit" "$TOP/scripts/lab" "$@" ;;
	*)
		if declare -F "$1" >/dev/null; then "$@"; else timeout --kill-after=5 "$limit" "$@"; fi
		;;
	esac
}

run_rc() {
	local want=$1
	shift
	_run "$@" || return 1
	[ "$status" -eq "$want" ] || fail "exit status $status, not $want: $*" "$output"
}

run_ok() { run_rc 0 "$@"; }

run_fail() {
	_run "$@" || return 1
	[ "$status" -ne 0 ] || fail "it should have failed: $*" "$output"
}

assert_eq() { [ "$1" = "$2" ] || fail "${3:-value}: got '$1', expected '$2'"; }
assert_le() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a <= b) }' || fail "${3:-value}: $1 is more than $2"; }
assert_match() { [[ $1 =~ $2 ]] || fail "${3:-text}: no match for '$2' in:" "$1"; }
refute_match() { ! [[ $1 =~ $2 ]] || fail "${3:-text}: '$2' should not be in:" "$1"; }

_patience() { [ "$1" -ge 60 ] && echo "$1" || echo 60; } # a limit that only a test that fails gets to see

within() { # what began in time may succeed later
	local end=$((SECONDS + $1 + 1)) began=$SECONDS
	shift
	until "$@" >/dev/null 2>&1; do
		[ $began -lt $end ] || return 1
		sleep 0.05
		began=$SECONDS
	done
}

wait_for() {
	local limit
	limit=$(_patience "$1")
	shift
	within "$limit" "$@" || fail "not within $limit s: $*"
}

best_of() {
	local n=$1 i
	shift
	for ((i = 1; i < n; i++)); do
		! "$@" || return 0
		echo "# attempt $i of $n failed: $*" >&3
	done
	"$@"
}

json() { # FILTER [FILE]
	if [ $# -gt 1 ]; then jq -r "$1" "$2"; else jq -r "$1" <<<"$output"; fi
}

# ---- processes -------------------------------------------------------------------------------------------------------

_start_time() { # pid: with it, a pid names one process
	local s
	read -r s 2>/dev/null <"/proc/$1/stat" || return 1
	s=${s##*) }
	# shellcheck disable=SC2086
	set -- $s
	[ "$1" != Z ] && echo "${20}"
}

_lives() { # pid start
	[ -n "$2" ] && [ "$(_start_time "$1")" = "$2" ]
}
_ended() { ! _lives "$@"; }

spawn() {
	local name=$1
	shift
	if [ "$1" = on ]; then
		shift
		set -- "$TOP/scripts/lab" exec "$@"
	elif declare -F "$1" >/dev/null; then
		set -- bash -c "$(declare -f "$1"); $(printf '%q ' "$@")"
	fi
	: >"$BATS_TEST_TMPDIR/$name.out" # there, and empty, at once: what an earlier one of that name said is not this one's
	setsid "$@" </dev/null >"$BATS_TEST_TMPDIR/$name.out" 2>"$BATS_TEST_TMPDIR/$name.err" 3>&- &
	SPAWNED=$!
	local start=""
	while [ -z "$start" ] && kill -0 "$SPAWNED" 2>/dev/null; do
		start=$(_start_time "$SPAWNED") || start=ended
	done
	echo "$SPAWNED ${start:-ended}" >"$BATS_TEST_TMPDIR/$name.pid"
}

spawned() {
	local pid
	read -r pid _ <"$BATS_TEST_TMPDIR/$1.pid" && echo "$pid"
}

finish() { # NAME [SIGNAL]
	local pid start
	read -r pid start <"$BATS_TEST_TMPDIR/$1.pid"
	[ "${2:-TERM}" = none ] || ! _lives "$pid" "$start" || kill -"${2:-TERM}" "$pid"
	if ! wait_for "${TIMEOUT:-120}" _ended "$pid" "$start"; then
		fail "$1 (pid $pid) does not end" "$(cat "$BATS_TEST_TMPDIR/$1.err")"
		return 1
	fi
	if wait "$pid"; then status=0; else status=$?; fi
	output=$(cat "$BATS_TEST_TMPDIR/$1.out")
	rm -f "$BATS_TEST_TMPDIR/$1.pid"
}

# teardown: whatever this test spawned and has not finished; its session with it, as far as it is still there
end_spawned() {
	local f pid start p
	for f in "$BATS_TEST_TMPDIR"/*.pid; do
		[ -e "$f" ] || continue
		read -r pid start <"$f"
		rm -f "$f"
		for p in $(ps -o pid= -s "$pid" 2>/dev/null); do
			kill -KILL "$p" 2>/dev/null || true
		done
		wait_for 10 _ended "$pid" "$start" || return 1
	done
}

# what is on its way when ping ends is no loss, though ping calls it one: answers are counted up to the last that came
_answers() { sed -nE 's/.*icmp_seq=([0-9]+) .*/\1/p' "$BATS_TEST_TMPDIR/$1.out" | sort -nu; }
_answered_over() { [ "$(_answers "$1" | tail -n 1)" -gt "$2" ]; }
pings_whole() { # NAME
	wait_for 20 _answered_over "$1" $(($(_answers "$1" | tail -n 1) + 20)) || return 1
	finish "$1" INT
	assert_eq "$(_answers "$1" | awk '$1 != NR { print NR; exit }')" "" "the first answer that $1 misses in $output"
}

# ---- labs ------------------------------------------------------------------------------------------------------------

lab() { "$TOP/scripts/lab" "$@"; }
on() { "$TOP/scripts/lab" exec "$@"; }

with_faults() {
	[ -x "$BUILD/faults/bin/overlayd" ] || fail "no build with fault points: make BUILD=$BUILD/faults FAULTS=1"
	export BUILD=$BUILD/faults
	export PATH=$BUILD/bin:$PATH
}

lab_up() {
	need_root
	# tests take an address again as soon as it is free
	if ! lab up --quarantine 0 "$@" >"$BATS_FILE_TMPDIR/lab.log" 2>&1 3>&-; then
		cat "$BATS_FILE_TMPDIR/lab.log" >&2
		lab down --kill >&2 3>&- || true
		return 1
	fi
}

# lab_down [--kill]: the daemons must end by themselves and leave nothing; then the nodes go
lab_down() {
	[ -d "/tmp/ms-lab-$LAB_NAME" ] || return 0
	lab down "$@" 3>&-
}

# ---- workloads, servers, clients, moves ------------------------------------------------------------------------------

nodes() { lab status | awk '$3 == "holder" { print $1 }'; }

workload() { # node name vips
	run_ok on "$1" overlayd netns add "$2" "$3"
}

drop_workloads() {
	local node name
	for node in $(nodes); do
		for name in $(on "$node" overlayd netns list --json 2>/dev/null | jq -r '.[].name' 2>/dev/null); do
			run_ok on "$node" overlayd netns del "$name" --force || return 1
		done
	done
}

# the pid file comes from the program itself: the only pid that is right under every wrapper
server() { # node workload name endpoint [args]
	local node=$1 workload=$2 name=$3
	shift 3
	spawn "$name" on "$node" ip netns exec "$workload" ms-testsrv --ready "$BATS_TEST_TMPDIR/$name.ready" "$@"
	wait_for 10 test -e "$BATS_TEST_TMPDIR/$name.ready" || { cat "$BATS_TEST_TMPDIR/$name.err" >&2; return 1; }
	SERVER=$(cat "$BATS_TEST_TMPDIR/$name.ready")
}

client() { # node workload name args...
	local node=$1 workload=$2 name=$3 inside=()
	shift 3
	[ "$workload" = - ] || inside=(ip netns exec "$workload")
	rm -f "$BATS_TEST_TMPDIR/$name.ready"
	spawn "$name" on "$node" "${inside[@]}" ms-testcli --ready "$BATS_TEST_TMPDIR/$name.ready" \
		--status "$BATS_TEST_TMPDIR/$name.json" "$@"
	wait_for 10 test -e "$BATS_TEST_TMPDIR/$name.ready" ||
		{ cat "$BATS_TEST_TMPDIR/$name.err" "$BATS_TEST_TMPDIR/$name.out" >&2; return 1; }
}

client_ok() { # name
	finish "$1" || return 1
	[ "$status" -eq 0 ] || fail "client $1: exit status $status" "$output" "$(cat "$BATS_TEST_TMPDIR/$1.err")" || return 1
	assert_eq "$(json '"\(.errors) \(.lost)"')" "0 0" "client $1: errors and lost connections in $output"
}

# progress NAME: the client goes on from where it is now
progress() {
	local was
	was=$(jq .bytes_received "$BATS_TEST_TMPDIR/$1.json")
	wait_for "${2:-10}" _beyond "$1" "$was"
}
_beyond() { [ "$(jq .bytes_received "$BATS_TEST_TMPDIR/$1.json")" -gt $(($2 + 1)) ]; }

move() { # from who to [args]
	local from=$1 out=$BATS_TEST_TMPDIR/move.json err=$BATS_TEST_TMPDIR/move.err
	shift
	if timeout --kill-after=5 "$(_patience "${TIMEOUT:-120}")" "$TOP/scripts/lab" exec "$from" ms-migrate "$@" --json >"$out" 2>"$err" </dev/null 3>&-; then
		status=0
	else
		status=$?
	fi
	output=$(cat "$out")
	[ $status -eq 0 ] || { fail "ms-migrate $*: exit status $status" "$output" "$(cat "$err")"; return 1; }
	MOVED=$(json .pid)
}

query() { # node workload endpoint field
	on "$1" ip netns exec "$2" ms-testcli --mode query "$3" | jq -r ".$4"
}

# the node that the directory names for a workload, as seen from NODE
where() { # node workload
	on "$1" overlayd where "$2" --json | jq -r '.[0].node'
}
