#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2154
# Moves that must not begin: each is told by the name of what stands in the way, with the documented exit status, and the
# program goes on where it is, its connections too, as if nobody had asked
#
#	n1 (directory)   n2   n3      app 192.168.5.2 on n1, a server with a client in far (192.168.5.5) on n3; n2 is asked to take it
#
# Needs a build with FAULTS=1 ($BUILD/faults; tests/run makes it): a migration is held up, a version is feigned.

load helpers

VIP=192.168.5.2
CONF=/etc/overlayd/overlayd.conf
USED_CONF=/run/overlayd/overlayd.conf # a copy of what the daemon runs with

setup_file() {
	with_faults
	lab_up 3
	# one server and one client for all tests: nothing that is refused may ever be felt
	local BATS_TEST_TMPDIR=$BATS_FILE_TMPDIR
	workload n1 app $VIP
	workload n3 far 192.168.5.5
	server n1 app srv $VIP:2000
	client n3 far c1 $VIP:2000
	export SERVER
}
teardown_file() {
	local BATS_TEST_TMPDIR=$BATS_FILE_TMPDIR
	drop_workloads && end_spawned
	lab_down
}

setup() {
	T=$BATS_TEST_TMPDIR
	mkdir "$T/d"
}
teardown() {
	local n
	for n in n1 n2; do
		on $n rm -f /run/overlayd/fault /run/overlayd/fault.reached
		on $n umount "$T/d" 2>/dev/null || true
		on $n overlayd status >/dev/null 2>&1 || on $n overlayd start || true
	done
	end_spawned
}

client_now() { jq -r "$1" "$BATS_FILE_TMPDIR/c1.json"; }
client_goes_on() { BATS_TEST_TMPDIR=$BATS_FILE_TMPDIR progress c1; }

# obstacle NAME WORDS...: a process of the workload in a situation that stands in the way
obstacle() {
	local name=$1
	shift
	spawn "$name" on n1 ip netns exec app situation "$@"
	wait_for 10 grep -q ready "$T/$name.out" || { cat "$T/$name.err" >&2; return 1; }
	OBSTACLE=$(awk '$1 == "ready" { print $2 }' "$T/$name.out")
}

# refused RC REGEX [ARGS of ms-migrate; default: app n2]: that exit status, that text, and nothing has happened
refused() {
	local rc=$1 regex=$2
	shift 2
	[ $# -gt 0 ] || set -- app n2
	TIMEOUT=40 run_rc "$rc" on n1 ms-migrate "$@" || return 1
	assert_match "$output" "$regex" "what ms-migrate $* said"
	unharmed
}

# asked ARGS: ms-migrate, its answer to be judged by answered RC REGEX when the node is as it was
asked() {
	TIMEOUT=40 _run on n1 ms-migrate "$@"
	printf '%s\n' "$status" "$output" >"$T/answer"
}
answered() {
	assert_eq "$(head -n 1 "$T/answer")" "$1" "exit status: $(cat "$T/answer")"
	assert_match "$(cat "$T/answer")" "$2" "what ms-migrate said"
	unharmed
}

_no_migrations() { [ "$(on n1 overlayd status --json | jq '.migrations | length')" = 0 ]; }

unharmed() {
	local n
	assert_eq "$(cat "/proc/$SERVER/comm")" ms-testsrv "the server"
	refute_match "$(cat "/proc/$SERVER/status")" "State:.[TtZ]"
	client_goes_on
	assert_eq "$(client_now '.lost + .errors')" 0 "errors and lost connections of the client"
	wait_for 5 _no_migrations
	assert_eq "$(on n1 overlayd netns list --json | jq -r '.[].name')" app "workloads of n1"
	for n in n1 n2; do
		# the other side may be a moment behind
		wait_for 10 nothing_remains $n || { remains $n >&2; return 1; }
	done
}
remains() {
	on "$1" find /run/overlayd/migrations -mindepth 1 ! -name '*.outcome' 2>/dev/null
	on "$1" find /sys/fs/cgroup -maxdepth 1 -name 'overlayd-*'
}
nothing_remains() { [ -z "$(remains "$1")" ]; }

# n2 has nothing of the workload, and never had
n2_empty() { assert_eq "$(on n2 ls /run/netns | grep -vx ovl-fabric)" "" "namespaces of n2"; }

# daemon_with NODE SED: overlayd of the node runs with a changed configuration; daemon_as_before NODE
daemon_with() {
	on "$1" cp $CONF "$T/conf"
	run_ok on "$1" overlayd stop
	on "$1" sed -i "$2" $CONF
	run_ok on "$1" overlayd start
	wait_for 15 on "$1" overlayd status
}
daemon_as_before() {
	run_ok on "$1" overlayd stop
	on "$1" cp "$T/conf" $CONF
	run_ok on "$1" overlayd start
	wait_for 15 on "$1" overlayd status
}

# ---- what the program has --------------------------------------------------------------------------------------------

@test "refused: io_uring" {
	obstacle ring io_uring
	refused 3 "situation\[$OBSTACLE\].*io_uring"
	n2_empty
}

@test "refused: multipath TCP" {
	obstacle mptcp mptcp
	refused 3 "situation\[$OBSTACLE\] fd [0-9]+: a multipath TCP socket"
	n2_empty
}

@test "refused: a UNIX stream to a process outside, which is named" {
	local outside
	spawn bus on n1 situation unix-server "$T/d/bus"
	wait_for 10 grep -q ready "$T/bus.out"
	outside=$(awk '{ print $2 }' "$T/bus.out")
	obstacle user unix-client "$T/d/bus"
	refused 3 "situation\[$OBSTACLE\] fd [0-9]+: a UNIX stream connection.*\[$outside\], which is not part of the workload"
}

@test "refused: being traced, the tracer is named" {
	spawn tracer on n1 situation trace "$SERVER"
	wait_for 10 grep -q ready "$T/tracer.out"
	refused 3 "ms-testsrv\[$SERVER\] is traced by situation\[[0-9]+\]"
	finish tracer KILL
	unharmed
}

@test "refused: several reasons of both nodes at once, and in --json" {
	obstacle ring io_uring
	obstacle mptcp mptcp
	echo x >"$T/d/f"
	obstacle file open "$T/d/f"
	on n2 mount -t tmpfs none "$T/d"
	refused 3 "for 3 reasons:"
	assert_match "$output" io_uring
	assert_match "$output" "multipath TCP"
	assert_match "$output" "n2: $T/d/f is missing"
	TIMEOUT=40 run_rc 3 on n1 ms-migrate app n2 --json
	output=$(tail -n 1 <<<"$output")
	assert_eq "$(json '"\(.exit_status) \(.refusals | length)"')" "3 3"
	unharmed
}

# ---- what the destination lacks --------------------------------------------------------------------------------------

@test "refused: a file that is missing at the destination" {
	echo content >"$T/d/file"
	obstacle file open "$T/d/file"
	on n2 mount -t tmpfs none "$T/d"
	refused 3 "n2: $T/d/file is missing \(situation\[$OBSTACLE\]"
	n2_empty
}

@test "refused: a file of another size at the destination" {
	echo content >"$T/d/file"
	obstacle file open "$T/d/file"
	on n2 mount -t tmpfs none "$T/d"
	on n2 sh -c "umask 022; echo other content >$T/d/file; chmod 644 $T/d/file"
	chmod 644 "$T/d/file"
	refused 3 "n2: $T/d/file has 14 bytes, 8 at n1"
	n2_empty
}

@test "refused: its name or its address at the destination: nobody else can have registered them, one made by hand is named" {
	run_rc 1 on n2 overlayd netns add app 192.168.5.8
	assert_match "$output" "the name app is held by n1"
	run_rc 1 on n2 overlayd netns add other $VIP
	assert_match "$output" "n1"
	run_ok on n2 ip netns add app
	asked app n2
	run_ok on n2 ip netns del app
	answered 1 "n2: .*app"
}

@test "refused: the nodes have different MTUs" {
	daemon_with n2 's/^mtu = .*/mtu = 1300/'
	asked app n2
	daemon_as_before n2
	answered 3 "n2: mtu is 1300 here and 1440 at n1"
}

# ---- who, where to, what ---------------------------------------------------------------------------------------------

@test "refused: a host nobody knows, no name of a host, the node it is on" {
	refused 3 "no node n9 is known to the directory" app n9
	refused 3 '"no/host" is no node.s name' app no/host
	refused 3 "app is on n1 already" app n1
}

@test "refused: a process that is not there, one in no workload, a name nobody has" {
	local pid
	pid=$(bash -c 'echo $$')
	refused 3 "there is no process $pid" "$pid" n2
	refused 3 "process $$ is in no workload: start it with" $$ n2
	refused 3 "there is no workload nobody on this node" nobody n2
	refused 3 "is in no workload" --self n2
}

@test "refused: pinned, until it is unpinned" {
	run_ok on n1 overlayd pin app
	refused 3 "app is pinned to this node: overlayd unpin app"
	refused 3 "app is pinned to this node" "$SERVER" n2 --dry-run
	run_ok on n1 overlayd unpin app
	run_ok on n1 ms-migrate app n2 --dry-run
}

@test "refused: a workload in which nothing runs" {
	workload n1 empty 192.168.5.9
	run_rc 3 on n1 ms-migrate empty n2
	assert_match "$output" "no process runs"
	run_ok on n1 overlayd netns del empty
	unharmed
}

@test "refused: a caller who is neither root nor operator" {
	refuse_as() { on n1 setpriv --reuid 65534 --regid 65534 --clear-groups "$@"; }
	if output=$(refuse_as ms-migrate app n2 2>&1 </dev/null 3>&-); then status=0; else status=$?; fi
	assert_eq "$status" 3 "exit status: $output"
	assert_match "$output" "uid 65534 may not"
	unharmed
}

@test "refused: wrong usage of ms-migrate, each way" {
	local a
	for a in "" "app" "app n2 n3" "--self" "--self app n2" "app n2 --timeout 0" "app n2 --timeout x" "app n2 --timeout 86401" \
		"app n2 --nonsense" "app n2 -t"; do
		# shellcheck disable=SC2086
		run_rc 2 on n1 ms-migrate $a || fail "with '$a'"
		assert_match "$output" "usage: ms-migrate|--timeout takes seconds"
	done
	run_ok on n1 ms-migrate --help
	assert_match "$output" "3 refused, nothing was touched"
	unharmed
}

# refused_json REGEX ARGS: exit status 3, and an object with the one reason
refused_json() {
	local regex=$1
	shift
	TIMEOUT=40 run_rc 3 on n1 ms-migrate --json "$@"
	output=$(tail -n 1 <<<"$output")
	assert_eq "$(json '"\(.exit_status) \(.refusals | length) \(.refusals[0] as $r | .text | startswith($r))"')" \
		"3 1 true" "$output"
	assert_match "$(json '.refusals[0]')" "$regex"
}

@test "refused with --json: an object, whoever says no" {
	refused_json "there is no workload nobody" nobody n2
	refused_json "\"no/host\" is no node.s name" app no/host
	refused_json "no node n9 is known" app n9
	TIMEOUT=40 run_ok on n2 overlayd stop
	TIMEOUT=40 _run on n2 ms-migrate --json app n1
	assert_eq "$status $(tail -n 1 <<<"$output" | jq .exit_status)" "6 6" "no overlayd: $output"
	run_ok on n2 overlayd start
	wait_for 15 on n2 overlayd status
	unharmed
}

@test "refused: --self tells the reasons while the program is still there, also in a dry run" {
	# shellcheck disable=SC2016
	self() { spawn self on n1 ip netns exec app bash -c 'ms-migrate --self "$@"; echo "status $?"' - "$@"; TIMEOUT=60 finish self none; }
	self n9
	assert_match "$output" "status 3"
	assert_match "$(cat "$T/self.err")" "no node n9 is known"
	self n2 --dry-run
	assert_match "$output" "app can move to n2.*status 0"
	obstacle ring io_uring
	self n2
	assert_match "$output" "status 3"
	assert_match "$(cat "$T/self.err")" "situation\[$OBSTACLE\].*io_uring"
	unharmed
	n2_empty
}

# ---- who is missing --------------------------------------------------------------------------------------------------

@test "refused: no overlayd at the destination, and none here" {
	run_ok on n2 overlayd stop
	asked app n2
	TIMEOUT=40 run_rc 6 on n2 ms-migrate app n1
	assert_match "$output" "overlayd does not run here"
	run_ok on n2 overlayd start
	wait_for 15 on n2 overlayd status
	answered 3 "n2 .*not reached.*app goes on running on n1"
}

@test "refused: the directory does not answer" {
	run_ok on n1 directoryd stop
	asked app n2
	run_ok on n1 directoryd start
	answered 3 "directory.*app goes on running on n1"
	wait_for 20 on n1 ms-migrate app n2 --dry-run
}

@test "refused: the destination has a certificate of another CA" {
	MS_CA_DIR=$T/ca run_ok "$TOP/scripts/ms-ca" init
	MS_CA_DIR=$T/ca run_ok "$TOP/scripts/ms-ca" node n2
	on n2 cp -a /etc/overlayd/pki "$T/pki"
	run_ok on n2 overlayd stop
	on n2 sh -c "cp $T/ca/ca.crt /etc/overlayd/pki/; cp $T/ca/n2.crt /etc/overlayd/pki/node.crt; cp $T/ca/n2.key /etc/overlayd/pki/node.key"
	run_ok on n2 overlayd start
	asked app n2
	run_ok on n2 overlayd stop
	on n2 sh -c "cp $T/pki/* /etc/overlayd/pki/"
	run_ok on n2 overlayd start
	answered 3 "n2.*certificate.*app goes on running on n1"
	wait_for 20 on n1 ms-migrate app n2 --dry-run
}

# with_bad NODE FILE CMD...: while FILE of the node cannot be used
with_bad() {
	local node=$1 file=$2
	shift 2
	run_ok on "$node" mv "$file" "$file.away"
	run_ok on "$node" sh -c "echo nonsense >$file"
	asked "$@"
	run_ok on "$node" mv "$file.away" "$file"
}

@test "not refused: the configuration's file has been spoilt since the daemons read it, here or there" {
	for n in n1 n2; do
		with_bad $n $CONF app n2 --dry-run
		answered 0 "app can move to n2"
		assert_eq "$(on $n stat -c '%a %U' $USED_CONF)" "600 root" "what the agents read"
	done
}

@test "refused: the agent cannot begin, here or there: its node's key or its daemon's configuration was spoilt meanwhile" {
	with_bad n1 /etc/overlayd/pki/node.key app n2
	answered 3 "node.key.*goes on running on n1"
	with_bad n1 $USED_CONF app n2
	answered 3 "overlayd.conf"
	with_bad n1 $USED_CONF app n2 --json
	answered 3 '"refusals":\["[^"]*overlayd.conf'
	with_bad n2 /etc/overlayd/pki/node.key app n2
	answered 3 "connection to n2.*app goes on running on n1"
	n2_empty
	assert_eq "$(on n1 find /run/overlayd/migrations -name '.*' -type f)" "" "files without a name"
	assert_eq "$(on n2 find /run/overlayd/migrations -name '.*' -type f)" "" "files without a name on n2"
	run_ok on n1 ms-migrate app n2 --dry-run
}

@test "refused: the agents speak different versions" {
	on n1 sh -c 'echo "src.version error" >/run/overlayd/fault'
	refused 3 "n1 runs a version of overlayd that this one .* does not understand"
}

@test "refused: a second migration of what is on its way" {
	on n1 sh -c 'echo "src.prepare pause" >/run/overlayd/fault'
	spawn first on n1 ms-migrate app n2
	wait_for 10 on n1 test -e /run/overlayd/fault.reached
	run_rc 3 on n1 ms-migrate app n3
	assert_match "$output" "app is part of migration [0-9a-f]{8} already"
	run_rc 1 on n1 overlayd netns del app --force
	on n1 rm -f /run/overlayd/fault.reached
	TIMEOUT=60 finish first none
	assert_eq "$status" 0 "the first migration: $(cat "$T/first.err")"
	assert_eq "$(where n3 app)" n2 "holder"
	move n2 app n1
	client_goes_on
	assert_eq "$(client_now '"\(.lost) \(.errors)"')" "0 0" "lost connections and errors of the client, after all this"
	assert_eq "$(query n3 far $VIP:2000 errors)" 0 "errors of the server"
}
