# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2154
# criu.bats - dump and restore as one transaction, on real programs, through the rooms an agent uses (tests/lib/criutool.c)
#
#   $TAG-a, $TAG-b   where the workload lives: same address 192.168.77.2, same MAC   va ─┐
#   $TAG-c           the client, 192.168.77.9                                       vc ──┼─ br0 in $TAG-h
#   the hook takes va (vb) off the bridge at network-lock and puts vb (va) on it at the commit     vb ─┘
load helpers

setup_file() {
	need_root
	local n ip mac
	! mountpoint -q /run/netns || touch "$BATS_FILE_TMPDIR/had-netns"
	for n in a b c h; do
		ip netns add "$TAG-$n"
		ip -n "$TAG-$n" link set lo up
	done
	ip -n "$TAG-h" link add br0 type bridge
	ip -n "$TAG-h" link set br0 up
	for n in a b c; do
		ip -n "$TAG-h" link add "v$n" type veth peer name eth0 netns "$TAG-$n"
		ip -n "$TAG-h" link set "v$n" up
		ip=2 mac=02
		[ $n != c ] || ip=9 mac=09
		ip -n "$TAG-$n" link set eth0 address "02:00:00:00:00:$mac"
		ip -n "$TAG-$n" addr add "192.168.77.$ip/24" dev eth0
		ip -n "$TAG-$n" link set eth0 up
	done
	for n in a c; do ip -n "$TAG-h" link set "v$n" master br0; done
	cat >"$BATS_FILE_TMPDIR/hook" <<-HOOK
		#!/bin/sh
		case \$1 in
		network-lock) ip -n $TAG-h link set v\$FROM nomaster ;;
		commit) [ -e $BATS_FILE_TMPDIR/unplugged ] || ip -n $TAG-h link set v\$TO master br0 ;;
		rollback) ip -n $TAG-h link set v\$FROM master br0 ;;
		esac
	HOOK
	chmod +x "$BATS_FILE_TMPDIR/hook"
}

teardown_file() {
	local n
	for n in a b c h; do ip netns del "$TAG-$n"; done
	# `ip netns add` makes it a mount of itself when it is the first to use it
	[ -e "$BATS_FILE_TMPDIR/had-netns" ] || umount /run/netns
}

setup() {
	LOG=$BATS_TEST_TMPDIR/log
	mkdir "$LOG"
	FROM=a TO=b
	SHIM=$BUILD/lib/criushim.so
	CRIU=/opt/overlayd/criu/criu
	[ -x $CRIU ] || CRIU=$(command -v criu)
	export FROM TO
}

teardown() {
	local n p
	for n in a b; do
		for p in $(ip netns pids "$TAG-$n"); do kill -KILL "$p" 2>/dev/null || true; done
	done
	for n in a b; do wait_for 5 nobody "$TAG-$n" || return 1; done
	end_spawned
	rm -f "$BATS_FILE_TMPDIR/unplugged"
	ip -n "$TAG-h" link set vb nomaster
	ip -n "$TAG-h" link set va master br0
	local group
	group=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)/$TAG-fence
	if [ -d "$group" ]; then rmdir "$group"; return 1; fi
}

nobody() { [ -z "$(ip netns pids "$1")" ]; }
field() { sed -n "s/^$1=//p" <<<"$output"; }

# start NAME CMD...: the plain way, by hand; pid of the program in $PID
start() {
	local name=$1
	shift
	spawn "$name" ip netns exec "$TAG-$FROM" "$@"
	PID=$SPAWNED
}

# exec_in NAME CMD...: the way of `overlayd exec`, detached; root of the tree in $PID, ms-init in $INIT
exec_in() {
	local name=$1
	shift
	run_ok "$BUILD/bin/ms-init" --exec --netns "/run/netns/$TAG-$FROM" --detach --log "$LOG/output.log" \
		--pid-file "$LOG/$name.init" -- "$@"
	INIT=$(cat "$LOG/$name.init")
	wait_for 5 root_of "$INIT"
	PID=$(root_of "$INIT")
}
root_of() { awk 'NF { print $1; ok = 1 } END { exit !ok }' "/proc/$1/task/$1/children"; }

# tool [RC] OPTIONS...: move $PID from $FROM to $TO; on success $PID is the new one and the two are swapped
tool() {
	local rc=0 x
	if [[ $1 =~ ^[0-9]+$ ]]; then rc=$1; shift; fi
	# shellcheck disable=SC2086
	TIMEOUT=60 run_rc "$rc" "$BUILD/bin/criutool" --criu "$CRIU" --preload "$SHIM" --netns "$TAG-$FROM" --to "$TAG-$TO" \
		--log "$LOG" --hook "$BATS_FILE_TMPDIR/hook" --fence "$TAG-fence" "$@" $PID ||
		{ tail -n 5 "$LOG"/*.log >&2; return 1; }
	if [ "$(field outcome)" = moved ]; then
		# shellcheck disable=SC2046
		PID=$(echo $(sed -n 's/^pid[0-9]*=//p' <<<"$output"))
		INIT=$(field init)
		x=$FROM FROM=$TO TO=$x
	fi
}

server_and_client() { # [client args]
	start srv ms-testsrv --ready "$BATS_TEST_TMPDIR/srv.ready" 192.168.77.2:7000
	wait_for 10 test -e "$BATS_TEST_TMPDIR/srv.ready"
	PID=$(cat "$BATS_TEST_TMPDIR/srv.ready")
	spawn cli ip netns exec "$TAG-c" ms-testcli --ready "$BATS_TEST_TMPDIR/cli.ready" --status "$BATS_TEST_TMPDIR/cli.json" \
		"$@" 192.168.77.2:7000
	wait_for 10 test -e "$BATS_TEST_TMPDIR/cli.ready"
}

logged() { grep -q -- "$1" "$LOG/output.log"; }
last_tick() { awk '$1 == "tick" { n = $2 + 0 } END { print n + 0 }' "$1"; }
_over() { [ "$(last_tick "$1")" -gt "$2" ]; }
log_goes_on() { wait_for 5 _over "$LOG/output.log" 0 && wait_for 5 _over "$LOG/output.log" $(($(last_tick "$LOG/output.log") + 20)); }
ticks_without_gap() { # FILE...: "tick N" lines of all files together count on by one
	cat "$@" | awk '$1 == "tick" { if (seen && $2 != last + 1) { print "after " last " came " $2; exit 1 } last = $2; seen = 1 }
		END { exit !seen }'
}

@test "criu: version, kernel and CPU are checked; another CPU's image and a missing program are refused" {
	run_ok "$BUILD/bin/criutool" --criu "$CRIU" --check
	assert_match "$(field version)" '^4[0-9]{4}$'
	[ -n "$(field refused)" ]
	[ -s /run/criu.kdat ]
	run_rc 1 "$BUILD/bin/criutool" --criu /nonexistent/criu --check
	assert_match "$output" "/nonexistent/criu: No such file"
	run_rc 1 "$BUILD/bin/criutool" --criu /bin/false --check
	assert_match "$output" "/bin/false --version: exit status 1"
}

@test "criu: a server with clients moves there and back and again, nobody loses a byte" {
	server_and_client -n 8
	for _ in 1 2 3; do
		tool
		assert_eq "$(field outcome)" moved
		progress cli
		nobody "$TAG-$TO"
	done
	echo "# frozen $(field frozen_ms) ms, dump $(field dump_ms), restore $(field restore_ms)" >&3
	client_ok cli
}

@test "criu: a roll-back at the destination's post-restore leaves everything as it was" {
	server_and_client -n 4
	for _ in 1 2; do
		tool 3 --rollback
		assert_eq "$(field outcome)" rolled-back
		nobody "$TAG-b"
		progress cli
	done
	tool
	assert_eq "$(field outcome)" moved
	progress cli
	client_ok cli
}

@test "criu: a restore that cannot be (port taken) is reported by name and undone" {
	server_and_client
	spawn thief ip netns exec "$TAG-b" python3 -c 'import socket,time
s = socket.socket(); s.bind(("192.168.77.2", 7000)); s.listen(); print("up", flush=True); time.sleep(60)'
	wait_for 5 grep -q up "$BATS_TEST_TMPDIR/thief.out"
	tool 3
	assert_match "$(field restore_error)" "Address already in use"
	progress cli
	client_ok cli
}

@test "criu: a restore out of time is given up and nothing of it stays" {
	server_and_client
	tool 3 --timeout 1
	assert_match "$(field restore_error)" "no result in the time given"
	nobody "$TAG-b"
	progress cli
	client_ok cli
}

@test "criu: the copy's pid 1 is killed while it is restored: undone" {
	server_and_client
	tool 3 --kill-init
	[ -n "$(field restore_error)" ]
	nobody "$TAG-b"
	progress cli
	client_ok cli
}

@test "criu: the driver dies while everything is frozen: the source goes on, no copy stays" {
	local point
	server_and_client
	for point in network-lock post-dump post-restore; do
		tool 9 --die $point
		wait_for 10 nobody "$TAG-b"
		ip -n "$TAG-h" link set va master br0
		progress cli 20
		group=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)/$TAG-fence
		for p in $(cat "$group/cgroup.procs"); do echo "$p" >"$group/../cgroup.procs"; done
		rmdir "$group"
	done
	client_ok cli
}

@test "criu: the driver dies between the commit and its answer: no copy stays, the source waits behind the fence" {
	server_and_client
	# when the copy has ended nobody may answer in its place, with a reset: its namespace is an open one here, and has its address
	touch "$BATS_FILE_TMPDIR/unplugged"
	tool 9 --die kept
	wait_for 10 nobody "$TAG-b"
	group=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)/$TAG-fence
	grep -q "frozen 1" "$group/cgroup.events"
	assert_eq "$(cat "$group/cgroup.procs")" "$PID"
	# what recovery does: the directory says it is ours again
	ip -n "$TAG-h" link set va master br0
	echo 0 >"$group/cgroup.freeze"
	progress cli 20
	echo "$PID" >"$group/../cgroup.procs"
	rmdir "$group"
	client_ok cli
}

@test "criu: the driver dies after the commit: the copy lives, the source's tasks stay behind the fence" {
	server_and_client
	tool 9 --die committed
	progress cli 20
	assert_eq "$(wc -w <<<"$(ip netns pids "$TAG-b")")" 2 "ms-init and the server"
	group=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)/$TAG-fence
	grep -q "frozen 1" "$group/cgroup.events"
	assert_eq "$(cat "$group/cgroup.procs")" "$PID"
	echo 1 >"$group/cgroup.kill"
	wait_for 5 rmdir "$group"
	client_ok cli
}

@test "criu: memory goes through the page-server" {
	server_and_client
	tool --page-server
	assert_eq "$(field outcome)" moved
	assert_le "$(field image_bytes)" 500000 "bytes left in files"
	progress cli
	client_ok cli
}

@test "criu: a dry run dumps and lets go" {
	server_and_client
	tool --leave-running
	assert_eq "$(field outcome)" dumped
	ip -n "$TAG-h" link set va master br0
	progress cli
	client_ok cli
}

# calls SECONDS: blocking calls that last as long, or longer where it takes long to start and to move something
calls() {
	local began=$SECONDS
	exec_in first criuprobe ticks
	tool 3 --rollback
	kill -KILL "$INIT"
	wait_for 5 nobody "$TAG-a"
	exec_in probe criuprobe calls $(($1 + 4 * (SECONDS - began)))
	wait_for 5 logged up
}

@test "criu: interrupted calls go on, after a roll-back and after a move" {
	calls 6
	tool 3 --rollback
	tool
	wait_for 15 logged end
	refute_match "$(cat "$LOG/output.log")" "Interrupted|early"
	assert_eq "$(grep -c fine "$LOG/output.log")" 9 "calls that ended in time"
}

@test "criu: calls that a debugger or a job stop had put into restart_syscall() go on after a move" {
	local probe call
	calls 4
	probe=$(root_of "$PID")
	kill -STOP "$probe"
	wait_for 5 grep -q "State:.T" "/proc/$probe/status"
	kill -CONT "$probe"	# some of the calls fail by that alone (signal(7)), these do not:
	tool
	wait_for 15 logged end
	for call in poll nanosleep clock_nanosleep select; do logged "^$call fine"; done
}

@test "criu: affinity, priority, slack, coredump_filter, SysV shared memory, PDEATHSIG: three moves" {
	local line want sum=0 now
	exec_in probe criuprobe attrs
	wait_for 5 logged "^3 shm"
	want="affinity 10 ioprio 4003 slack 123456 coredump 00000007 pid 3 child 1"
	for _ in 1 2 3; do
		tool
		line=$(wc -l <"$LOG/output.log")
		wait_for 5 eval "[ \$(wc -l <'$LOG/output.log') -gt $((line + 2)) ]"
		line=$(tail -n 1 "$LOG/output.log")
		assert_match "$line" "$want"
		now=$(awk '{ print $3 }' <<<"$line")
		[ "$now" -gt "$sum" ]
		sum=$now
	done
}

@test "criu: a pipeline started by hand moves with its descriptors opened outside" {
	start pipe bash -c 'criuprobe ticks | while read -r a b; do echo "$a $b"; done'
	wait_for 5 grep -q "tick 5" "$BATS_TEST_TMPDIR/pipe.out"
	tool
	assert_match "$output" "external=file"
	wait_for 5 grep -q "tick 60" "$BATS_TEST_TMPDIR/pipe.out"
	tool
	wait_for 5 grep -q "tick 120" "$BATS_TEST_TMPDIR/pipe.out"
	ticks_without_gap "$BATS_TEST_TMPDIR/pipe.out"
}

@test "criu: output into a pipe that ends outside goes on in the log" {
	spawn outside bash -c "ip netns exec $TAG-a criuprobe ticks | cat"
	wait_for 5 grep -q "tick 5" "$BATS_TEST_TMPDIR/outside.out"
	PID=$(ip netns pids "$TAG-a")
	tool
	assert_match "$output" "external=pipe"
	log_goes_on
	ticks_without_gap "$BATS_TEST_TMPDIR/outside.out" "$LOG/output.log"
}

@test "criu: a terminal that ends outside becomes one of ms-init, twice" {
	spawn term script -qfc "ip netns exec $TAG-a criuprobe ticks" "$BATS_TEST_TMPDIR/typescript"
	wait_for 5 grep -q "tick 5" "$BATS_TEST_TMPDIR/typescript"
	PID=$(ip netns pids "$TAG-a" | tail -n 1)
	tool
	assert_match "$output" "external=tty"
	assert_match "$(readlink "/proc/${PID##* }/fd/1")" '^/dev/pts/(6[4-9]|[7-9])'
	log_goes_on
	tool
	log_goes_on
	tr -d '\r' <"$BATS_TEST_TMPDIR/typescript" >"$BATS_TEST_TMPDIR/before"
	ticks_without_gap "$BATS_TEST_TMPDIR/before" "$LOG/output.log"
}

@test "criu: two trees of one workload move in one transaction, and again" {
	exec_in one criuprobe ticks
	run_ok "$BUILD/bin/ms-init" --exec --netns "/run/netns/$TAG-a" --join "$INIT" --detach --log "$BATS_TEST_TMPDIR/two.log" \
		-- sh -c 'exec criuprobe ticks'
	wait_for 5 grep -q "tick" "$BATS_TEST_TMPDIR/two.log"
	for p in $(ip netns pids "$TAG-a"); do
		[[ $(tr '\0' ' ' <"/proc/$p/cmdline") == "ms-root sh "* ]] && PID="$PID $p"
	done
	assert_eq "$(wc -w <<<"$PID")" 2
	for _ in 1 2; do
		tool
		assert_eq "$(wc -w <<<"$PID")" 2
		wait_for 5 _over "$BATS_TEST_TMPDIR/two.log" $(($(last_tick "$BATS_TEST_TMPDIR/two.log") + 20))
	done
	ticks_without_gap "$LOG/output.log"
	ticks_without_gap "$BATS_TEST_TMPDIR/two.log"
}

@test "criu: pids of the tree are in use at the destination by others" {
	exec_in probe criuprobe ticks
	tool
	FROM=a TO=b PID_KEEP=$PID
	exec_in other criuprobe ticks	# same inner pids 2 and 3, now in the other namespace
	tool
	[ -d "/proc/$PID_KEEP" ]
}

@test "criu: python3 -m http.server, a download across a move is whole" {
	head -c 30000000 /dev/urandom >"$BATS_TEST_TMPDIR/file"
	start http python3 -m http.server -d "$BATS_TEST_TMPDIR" 8000 --bind 192.168.77.2
	wait_for 5 ip netns exec "$TAG-c" curl -s -o /dev/null http://192.168.77.2:8000/hook
	spawn get ip netns exec "$TAG-c" curl -s --limit-rate 15M -o "$BATS_TEST_TMPDIR/copy" http://192.168.77.2:8000/file
	wait_for 5 test -s "$BATS_TEST_TMPDIR/copy"
	tool
	finish get none
	assert_eq "$status" 0 curl
	cmp "$BATS_TEST_TMPDIR/file" "$BATS_TEST_TMPDIR/copy"
}

# ---- ms-init --exec --------------------------------------------------------------------------------------------------

inside() { "$BUILD/bin/ms-init" --exec --netns "/run/netns/$TAG-a" "$@"; }

@test "exec: a command has its own pids, IPC, terminals and the workload's network; its status comes back" {
	# shellcheck disable=SC2016
	run_rc 3 inside -- sh -c 'echo "pid $$"; ls /sys/class/net; ls /dev/pts; readlink /proc/self/ns/ipc; exit 3'
	assert_match "$output" "pid 3"
	assert_match "$output" "eth0"
	refute_match "$output" "$(readlink /proc/self/ns/ipc | tr -d '[]')"
	run_rc 127 inside -- /nonexistent
	run_rc 126 inside -- /etc/passwd
	run_rc 125 inside
	# shellcheck disable=SC2016
	run_rc 137 inside -- sh -c 'kill -9 $$'
	wait_for 5 nobody "$TAG-a"
}

@test "exec: signals reach the command, and what it leaves behind stays in the workload" {
	spawn trap "$BUILD/bin/ms-init" --exec --netns "/run/netns/$TAG-a" -- sh -c 'trap "echo got it; exit 7" TERM; echo up; while :; do sleep 0.05; done'
	wait_for 5 grep -q up "$BATS_TEST_TMPDIR/trap.out"
	finish trap TERM
	assert_eq "$status" 7
	assert_match "$output" "got it"
	run_rc 4 inside -- sh -c 'setsid sleep 30 >/dev/null 2>&1 & exit 4'
	# those of the command before may take a moment to go, and what is left behind may still be on its way to sleep
	wait_for 5 left_behind
}
left_behind() { [[ $(ip netns pids "$TAG-a" | xargs ps -o comm= -p | sort | xargs) =~ ^ms-init\ ms-root[^\ ]*\ sleep$ ]]; }

@test "exec: a second command joins the first one's namespaces" {
	exec_in first criuprobe ticks
	wait_for 5 logged tick
	run_rc 5 inside --join "$INIT" -- sh -c 'ps -e -o comm=; exit 5'
	assert_match "$output" "criuprobe"
	tool
	TAG_A=$TAG-$FROM
	run_rc 6 "$BUILD/bin/ms-init" --exec --netns "/run/netns/$TAG_A" --join "$INIT" -- sh -c 'ps -e -o comm=; exit 6'
	assert_match "$output" "criuprobe"
}

@test "exec: a shell on a terminal has job control, the caller's size, and gives the terminal back" {
	cat >"$BATS_TEST_TMPDIR/typing" <<-'TYPING'
		seen() { until grep -q "$1" "$TS" 2>/dev/null; do sleep 0.05; done; }
		# ^Z is for who has the terminal: it has said so itself
		seen 'ready[$]' && printf 'tty; stty size; sh -c "echo sleeper\$((1+1)); exec sleep 100"\n'
		seen '33 77' && seen 'sleeper2' && printf '\032'
		seen 'Stopped' && printf 'echo sum$((1+1))\nexit 5\nexit 5\n'
		seen 'rc 5'
	TYPING
	cat >"$BATS_TEST_TMPDIR/session" <<-SESSION
		stty rows 33 cols 77
		PS1='ready$' "$BUILD/bin/ms-init" --exec --netns "/run/netns/$TAG-a" -- bash --norc -i
		echo "rc \$?"
		stty -a
	SESSION
	TS=$BATS_TEST_TMPDIR/typescript spawn typing bash -c "timeout 100 bash '$BATS_TEST_TMPDIR/typing' |
		timeout 100 script -qefc 'bash $BATS_TEST_TMPDIR/session' '$BATS_TEST_TMPDIR/typescript'"
	finish typing none
	output=$(tr -d '\r' <"$BATS_TEST_TMPDIR/typescript")
	assert_match "$output" "/dev/pts/0"
	assert_match "$output" "sum2"
	assert_match "$output" "rc 5"
	assert_match "$output" "[^-]icanon"
	wait_for 5 nobody "$TAG-a"
}
