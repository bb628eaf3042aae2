#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2154
# What a move must carry beyond memory and connections, each thing by itself, end to end through ms-migrate. The programs
# (ms-probe, criuprobe, ms-testsrv) notice by themselves when they have been moved badly.
#
#	n1 (directory)   n2   n3      app 192.168.5.2 moves, from n1; far 192.168.5.5 on n3 is where clients run
#
# All nodes of a lab share the machine's processes, and its files but for /run: the pids of a moved program are always in use
# at its destination, and a path names the same file on each node.
#
# Needs a build with FAULTS=1 ($BUILD/faults; tests/run makes it): migrations are rolled back from their last possible moment.

load helpers

VIP=192.168.5.2

setup_file() {
	with_faults
	lab_up 3
}
teardown_file() { lab_down; }

setup() {
	T=$BATS_TEST_TMPDIR
	workload n1 app $VIP
}
teardown() {
	local n
	for n in n1 n2 n3; do on $n rm -f /run/overlayd/fault; done
	drop_workloads && end_spawned
}

# start NAME CMD...: the program, in the workload on n1; await_ready NAME WORD: until it has said so
start() {
	local name=$1
	shift
	spawn "$name" on n1 ip netns exec app "$@"
}
start_exec() {
	local name=$1
	shift
	spawn "$name" on n1 overlayd exec app -- "$@"
}
said() { wait_for "${3:-10}" grep -qE "$2" "$T/$1.out" || { cat "$T/$1.out" "$T/$1.err" >&2; return 1; }; }

far() { on n3 ip netns exec far "$@"; }
inside() { local n=$1; shift; on "$n" ip netns exec app "$@"; }
logged() { on "$1" grep -qE "$2" /run/overlayd/workloads/app/output.log; }

# roll_back NODE WHO TO: all but the commit
roll_back() {
	on "$3" sh -c 'echo "dst.stands error" >/run/overlayd/fault'
	TIMEOUT=60 run_rc 1 on "$1" ms-migrate "$2" "$3" || return 1
	assert_match "$output" "fault injected at dst.stands"
	assert_eq "$(where n3 app)" "$1" "holder after a roll-back"
}

# "tick N" lines of all files together count on by one
ticks_without_gap() {
	cat "$@" | tr -d '\r' | awk '$1 == "FAILED" { print; exit 1 }
		$1 == "tick" { if (seen && $2 != last + 1) { print "after " last " came " $2; exit 1 } last = $2; seen = 1 }
		END { exit !seen }'
}
last_tick() { awk '$1 == "tick" { n = $2 } END { print n + 0 }' "$1"; }
_ticked() { [ "$(last_tick "$1")" -gt "$2" ]; }
ticks_on() { wait_for "${2:-10}" _ticked "$1" $(($(last_tick "$1") + 10)) || { tail -n 3 "$1" >&2; return 1; }; }

# carries NAME: a ticking program goes on after a roll-back and after a move
carries() {
	ticks_on "$T/$1.out"
	roll_back n1 app n2
	ticks_on "$T/$1.out"
	move n1 app n2
	ticks_on "$T/$1.out"
	ticks_without_gap "$T/$1.out"
}

# talk: a connection from far to the probe; say TEXT: a line on it; heard REGEX: what came back
talk() {
	workload n3 far 192.168.5.5
	mkfifo "$T/in"
	# shellcheck disable=SC2016
	spawn talk on n3 ip netns exec far bash -c 'exec 3<>/dev/tcp/$0/$1; cat <&3 & exec cat <>"$2" >&3' $VIP "${1:-2000}" "$T/in"
}
say() { printf '%s\n' "$*" >"$T/in"; }
heard() { said talk "$1"; }

# ---- where descriptors lead ------------------------------------------------------------------------------------------

@test "handled: standard descriptors opened outside the workload, a file and /dev/null" {
	start prog criuprobe ticks
	carries prog
	assert_eq "$(readlink "/proc/$MOVED/fd/0")" /dev/null "standard input"
}

@test "handled: a terminal that ends outside, its output goes on in the log" {
	spawn term on n1 script -qfc "ip netns exec app criuprobe ticks" "$T/typescript"
	ticks_on "$T/typescript"
	roll_back n1 app n2
	ticks_on "$T/typescript"
	move n1 app n2
	wait_for 10 logged n2 "^tick $(($(last_tick "$T/typescript") + 20))"
	on n2 cat /run/overlayd/workloads/app/output.log >"$T/log"
	ticks_without_gap "$T/typescript" "$T/log"
	assert_match "$(readlink "/proc/$MOVED/fd/1")" '^/dev/pts/'
}

@test "handled: a pipe to a process outside, the output goes on in the log" {
	spawn outside on n1 bash -c "ip netns exec app criuprobe ticks | cat"
	ticks_on "$T/outside.out"
	roll_back n1 app n2
	ticks_on "$T/outside.out"
	move n1 app n2
	wait_for 10 logged n2 "^tick $(($(last_tick "$T/outside.out") + 20))"
	on n2 cat /run/overlayd/workloads/app/output.log >"$T/log"
	ticks_without_gap "$T/outside.out" "$T/log"
}

# ---- system calls ----------------------------------------------------------------------------------------------------

@test "handled: interrupted system calls go on after a roll-back and after a move" {
	local seconds
	# long enough to last until after the move, whatever that takes here
	for seconds in 7 20 60; do
		start_exec calls criuprobe calls $seconds
		said calls up
		roll_back n1 app n2
		move n1 app n2
		grep -q fine "$T/calls.out" || break
		[ $seconds != 60 ] || fail "the calls ended before the move"
		run_ok on n2 overlayd netns del app --force
		end_spawned
		workload n1 app $VIP
	done
	said calls end 90
	refute_match "$(cat "$T/calls.out")" "Interrupted|early"
	assert_eq "$(grep -c fine "$T/calls.out")" 9 "calls that ended in time"
}

@test "handled: reads blocked with MSG_PEEK, MSG_WAITALL and nothing, and MSG_DONTWAIT, across a roll-back and a move" {
	workload n3 far 192.168.5.5
	start probe ms-probe reads $VIP 2000
	said probe listening
	spawn feed on n3 ip netns exec far python3 -c "
import os, socket, sys, time
c = [socket.create_connection(('$VIP', 2000)) for _ in range(5)]
c[4].sendall(b'first')
print('fed', flush=True)
while not os.path.exists('$T/go'): time.sleep(0.02)
for i, text in enumerate((b'glance', b'all of ', b'now', b'plain', b' second')): c[i].sendall(text)
c[1].sendall(b'twelve')
while c[0].recv(1): pass"
	said feed fed
	said probe blocked
	roll_back n1 app n2
	move n1 app n2
	touch "$T/go"
	said probe end
	assert_eq "$(sort "$T/probe.out" | tr '\n' ' ')" \
		"blocked dontwait now end listening peek glance read plain rest first second waitall all of twelv " "what was read"
}

# ---- locks, names, options, attributes -------------------------------------------------------------------------------

@test "handled: a flock is held throughout, and let go at the end" {
	start lock situation flock "$T/lock"
	said lock ready
	run_fail flock -n "$T/lock" true
	roll_back n1 app n2
	run_fail flock -n "$T/lock" true
	move n1 app n2
	run_fail flock -n "$T/lock" true
	move n2 app n3
	run_fail flock -n "$T/lock" true
	kill "$MOVED"
	wait_for 5 flock -n "$T/lock" true
}

_greeted() {
	python3 -c 'import socket, sys
s = socket.socket(socket.AF_UNIX); s.settimeout(60); s.connect(sys.argv[1]); assert s.recv(1) == b"k"' "$1"
}

@test "handled: the path of a listening UNIX socket" {
	start unix ms-probe unix "$T/sock"
	said unix listening
	inside n1 bash -c "$(declare -f _greeted); _greeted $T/sock"
	roll_back n1 app n2
	inside n1 bash -c "$(declare -f _greeted); _greeted $T/sock"
	move n1 app n2
	inside n2 bash -c "$(declare -f _greeted); _greeted $T/sock"
	assert_eq "$(find "$T" -name 'sock*')" "$T/sock" "names"
}

@test "handled: socket options, a table of 33" {
	local before
	start probe ms-probe options $VIP 2000
	said probe listening
	talk
	say before
	heard user_timeout
	before=$(cat "$T/talk.out")
	assert_eq "$(wc -w <<<"$before")" 33 "options"
	assert_match "$before" "user_timeout=31000 congestion=reno tos=16 "
	roll_back n1 app n2
	: >"$T/talk.out"
	say again
	heard user_timeout
	assert_eq "$(tr -d '\0' <"$T/talk.out")" "$before" "options after a roll-back"
	move n1 app n2
	: >"$T/talk.out"
	say after
	heard user_timeout
	assert_eq "$(tr -d '\0' <"$T/talk.out")" "$before" "options after a move"
}

@test "handled: CPU affinity, I/O priority, timer slack, coredump_filter" {
	local line
	start_exec attrs criuprobe attrs
	said attrs '^3 shm'
	for line in "n1 n2" "n2 n3"; do
		# shellcheck disable=SC2086
		set -- $line
		move "$1" app "$2"
		line=$(wc -l <"$T/attrs.out")
		wait_for 5 eval "[ \$(wc -l <'$T/attrs.out') -gt $((line + 2)) ]"
		assert_match "$(tail -n 1 "$T/attrs.out")" "affinity 10 ioprio 4003 slack 123456 coredump 00000007 pid 3 child 1"
	done
}

# ---- processes -------------------------------------------------------------------------------------------------------

@test "handled: a child with PR_SET_PDEATHSIG lives on, and still dies with its parent" {
	start family ms-probe deathsig
	carries family
	kill -KILL "$MOVED"
	wait_for 5 eval "! pgrep -P $MOVED && [ -z \"\$(on n2 ip netns pids app | xargs -r ps -o comm= -p | grep the-child)\" ]"
}

@test "handled: System V semaphores, shared memory and message queues" {
	start_exec sysv ms-probe sysv
	carries sysv
	move n2 app n3
	ticks_on "$T/sysv.out"
	ticks_without_gap "$T/sysv.out"
}

@test "handled: a program of thirty threads" {
	start threads ms-probe threads 30
	carries threads
	assert_eq "$(find "/proc/$MOVED/task" -maxdepth 1 -mindepth 1 | wc -l)" 30 threads
}

@test "handled: epoll, timerfd, eventfd, signalfd" {
	start objects ms-probe objects
	carries objects
}

@test "handled: an open file that was removed" {
	start deleted ms-probe deleted "$T/removed"
	carries deleted
	assert_eq "$(find "$T" -name '*removed*')" "" "names left behind"
}

@test "handled: a file mapped shared and private" {
	start mapped ms-probe mapped "$T/mapped"
	carries mapped
	assert_le "$(last_tick "$T/mapped.out")" "$(od -An -t d8 -N 8 "$T/mapped")" "count in the file"
}

@test "handled: a stopped process stays stopped" {
	start prog criuprobe ticks
	ticks_on "$T/prog.out"
	kill -STOP "$(on n1 ip netns pids app)"
	move n1 app n2
	assert_match "$(cat "/proc/$MOVED/status")" "State:.T \(stopped\)"
	kill -CONT "$MOVED"
	ticks_on "$T/prog.out"
	ticks_without_gap "$T/prog.out"
}

@test "handled: a daemon that has double-forked moves with the program that started it" {
	workload n3 far 192.168.5.5
	start both bash -c "(setsid ms-testsrv --ready $T/ready $VIP:2000 >/dev/null 2>&1 &); exec criuprobe ticks"
	wait_for 10 test -e "$T/ready"
	client n3 far c1 $VIP:2000
	ticks_on "$T/both.out"	# nobody is on the way to what it will be
	move n1 app n2
	assert_eq "$(json .processes)" 2 processes
	progress c1
	client_ok c1
	ticks_on "$T/both.out"
	ticks_without_gap "$T/both.out"
	assert_eq "$(on n1 overlayd netns list --json)" "[]" "workloads of n1"
}

@test "handled: several process trees, started separately" {
	workload n3 far 192.168.5.5
	server n1 app one $VIP:2000
	server n1 app two $VIP:2001
	client n3 far c1 $VIP:2000
	client n3 far c2 $VIP:2001
	roll_back n1 app n2
	for c in c1 c2; do progress $c; done
	move n1 app n2
	for c in c1 c2; do progress $c; client_ok $c; done
}

@test "handled: a connection and a listener that parent and child share" {
	local who=""
	start probe ms-probe shared $VIP 2000
	said probe listening
	talk
	say parent-1
	heard "parent says parent-1"
	roll_back n1 app n2
	say child-1
	heard "child says child-1"
	move n1 app n2
	say child-2
	heard "child says child-2"
	say parent-2
	heard "parent says parent-2"
	for _ in {1..400}; do
		who+=$(far bash -c "cat </dev/tcp/$VIP/2000")
		if [[ $who == *parent* && $who == *child* ]]; then break; fi
	done
	assert_match "$who" "(parent.*child|child.*parent)" "who accepted connections"
}

# ---- connections -----------------------------------------------------------------------------------------------------

@test "handled: a busy accept queue, ten moves, no connection refused or lost" {
	local here=1 there c
	workload n3 far 192.168.5.5
	server n1 app srv --slow-accept 5 $VIP:2000
	client n3 far c1 $VIP:2000
	for c in a b; do
		spawn "churn$c" on n3 ip netns exec far bash -c "
			n=0; while [ ! -e $T/enough ] || [ \$n -le 10 ]; do ms-testcli -n 3 --rounds 1 $VIP:2000 >$T/$c.last || exit 1; n=\$((n + 1)); done; echo \$n"
	done
	for _ in {1..10}; do
		there=$((here % 3 + 1))
		move n$here app n$there
		here=$there
	done
	touch "$T/enough"
	for c in a b; do
		finish "churn$c" none
		assert_eq "$status" 0 "new connections: $(cat "$T/churn$c.err" "$T/$c.last")"
		[ "$output" -gt 10 ]
	done
	assert_eq "$(query n3 far $VIP:2000 lost)" 0 "connections lost at the server"
	client_ok c1
}

@test "handled: urgent data, sent before and after a move" {
	workload n3 far 192.168.5.5
	start probe ms-probe urgent $VIP 2000
	said probe listening
	spawn feed on n3 ip netns exec far python3 -c "
import os, socket, time
s = socket.create_connection(('$VIP', 2000))
def feed(text, urgent):
    s.sendall(text); s.send(urgent, socket.MSG_OOB)
feed(b'one', b'!')
while not os.path.exists('$T/go'): time.sleep(0.02)
feed(b'two', b'?')
s.recv(1)"
	said probe "urgent !"
	said probe "data one"
	move n1 app n2
	touch "$T/go"
	said probe 'urgent \?'
	said probe "data two"
}

@test "handled: urgent data unread is named and refused, --allow-urgent-loss moves without it" {
	workload n3 far 192.168.5.5
	start probe ms-probe urgent $VIP 2000
	said probe listening
	spawn feed on n3 ip netns exec far python3 -c "
import os, socket, time
s = socket.create_connection(('$VIP', 2000))
while not os.path.exists('$T/go'): time.sleep(0.02)
s.sendall(b'kept'); s.send(b'!', socket.MSG_OOB); print('sent', flush=True); s.recv(1)"
	said probe connected
	kill -USR1 "$(on n1 ip netns pids app)"
	said probe held
	touch "$T/go"
	said feed sent
	wait_for 5 eval "inside n1 ss -Htn 'sport = :2000' | awk '\$2 >= 4 { ok = 1 } END { exit !ok }'"
	run_rc 3 on n1 ms-migrate app n2
	assert_match "$output" "ms-probe\[[0-9]+\] fd [0-9]+: urgent \(out of band\) data"
	assert_match "$output" "allow-urgent-loss"
	move n1 app n2 --allow-urgent-loss
	kill -USR1 "$MOVED"
	said probe "data kept"
}

@test "handled: O_ASYNC, SIGIO comes after a roll-back and after a move" {
	start probe ms-probe sigio $VIP 2000
	said probe listening
	talk
	said probe connected
	say before
	said probe "sigio before"
	roll_back n1 app n2
	say back
	said probe "sigio back"
	move n1 app n2
	say after
	said probe "sigio after"
}

# ---- overlayd exec ---------------------------------------------------------------------------------------------------

@test "exec: its exit status, and signals passed on" {
	run_rc 7 on n1 overlayd exec app -- sh -c 'exit 7'
	run_rc 127 on n1 overlayd exec app -- /nonexistent
	run_rc 1 on n1 overlayd exec nobody -- true
	assert_match "$output" "no workload nobody"
	start_exec trap sh -c 'trap "echo got it; exit 9" TERM; echo up; while :; do sleep 0.05; done'
	said trap up
	finish trap TERM
	assert_eq "$status" 9 "exit status"
	assert_match "$output" "got it"
}

@test "exec: a command moves, a second one joins it before and after" {
	workload n3 far 192.168.5.5
	start_exec srv ms-testsrv --ready "$T/ready" $VIP:2000
	wait_for 10 test -e "$T/ready"
	client n3 far c1 $VIP:2000
	run_rc 5 on n1 overlayd exec app -- sh -c 'ps -e -o comm=; exit 5'
	assert_match "$output" ms-testsrv
	start_exec ticks criuprobe ticks
	ticks_on "$T/ticks.out"
	roll_back n1 app n2
	move n1 app n2
	run_rc 6 on n2 overlayd exec app -- sh -c 'ps -e -o comm=; exit 6'
	assert_match "$output" ms-testsrv
	assert_match "$output" criuprobe
	move n2 app n3
	progress c1
	client_ok c1
	ticks_on "$T/ticks.out"
	ticks_without_gap "$T/ticks.out"
}

@test "exec: whoever waits for a command that moves away is told, and not held up" {
	start_exec prog criuprobe ticks
	ticks_on "$T/prog.out"
	move n1 app n2
	finish prog none
	ticks_on "$T/prog.out"
	assert_eq "$status" 137 "exit status of the waiter"
}

# ---- ms-migrate ------------------------------------------------------------------------------------------------------

@test "ms-migrate: ten moves, by the pid that the last one printed" {
	local here=1 there pid
	workload n3 far 192.168.5.5
	server n1 app srv $VIP:2000
	client n3 far c1 -n 2 $VIP:2000
	pid=$SERVER
	for _ in {1..10}; do
		there=$((here % 3 + 1))
		TIMEOUT=60 run_ok on n$here ms-migrate "$pid" n$there
		assert_match "$output" "app runs on n$there, pid [0-9]+"
		pid=$(sed -n 's/.*, pid \([0-9]*\):.*/\1/p' <<<"$output")
		assert_eq "$(cat "/proc/$pid/comm")" ms-testsrv "the process that was printed"
		here=$there
	done
	progress c1
	client_ok c1
}

@test "ms-migrate: to a node that has the same process ids in use" {
	local inner
	workload n2 other 192.168.5.6
	workload n3 far 192.168.5.5
	start_exec one ms-testsrv --ready "$T/one.ready" $VIP:2000
	spawn two on n2 overlayd exec other -- ms-testsrv --ready "$T/two.ready" 192.168.5.6:2000
	wait_for 10 test -e "$T/one.ready"
	wait_for 10 test -e "$T/two.ready"
	client n3 far c1 $VIP:2000
	client n3 far c2 192.168.5.6:2000
	inner=$(cat "$T/one.ready")
	assert_eq "$inner" "$(cat "$T/two.ready")" "their own pids"
	move n1 app n2
	move n2 other n3
	move n2 app n3
	for c in c1 c2; do progress $c; client_ok $c; done
}

@test "ms-migrate: --self from inside, by ip netns exec and by overlayd exec" {
	# shellcheck disable=SC2016
	spawn self on n1 ip netns exec app bash -c 'ms-migrate --self n2; echo "status $?"; exec criuprobe ticks'
	said self "status 0"
	wait_for 15 eval '[ "$(where n3 app)" = n2 ]'
	ticks_on "$T/self.out"
	ticks_without_gap "$T/self.out"
	workload n1 two 192.168.5.7
	# shellcheck disable=SC2016
	spawn self2 on n1 overlayd exec two -- bash -c 'ms-migrate --self n3; echo "status $?"; exec criuprobe ticks'
	said self2 "status 0"
	wait_for 15 eval '[ "$(where n3 two)" = n3 ]'
	ticks_on "$T/self2.out"
	ticks_without_gap "$T/self2.out"
}

@test "ms-migrate: --dry-run lists what would move and touches nothing" {
	local lines
	workload n3 far 192.168.5.5
	server n1 app srv $VIP:2000
	client n3 far c1 $VIP:2000
	lines=$(on n1 cat /run/overlayd/overlayd.log | wc -l)
	run_ok on n1 ms-migrate app n2 --dry-run
	assert_match "$output" "app can move to n2: 1 process in 1 tree, [0-9]+ sockets, [0-9.]+ MB"
	run_ok on n1 ms-migrate "$SERVER" n2 --dry-run --json
	output=$(tail -n 1 <<<"$output")
	assert_eq "$(json '"\(.processes[0].pid) \(.processes[0].command) \(.to) \(.exit_status)"')" "$SERVER ms-testsrv n2 0"
	assert_eq "$(where n3 app)" n1 "holder"
	assert_eq "$(on n2 overlayd netns list --json)" "[]" "workloads of n2"
	# what is stopped would be seen: no stage after the check was begun, and the client felt nothing
	client_ok c1
	best_of 10 unfelt
	refute_match "$(on n1 tail -n "+$((lines + 1))" /run/overlayd/overlayd.log)" "prepare|freeze"
}
unfelt() {
	client n3 far c2 $VIP:2000 && run_ok on n1 ms-migrate app n2 --dry-run && progress c2 && client_ok c2 &&
		assert_le "$(json .longest_gap_ms)" 200 "longest gap of the client, ms"
}

@test "ms-migrate: by name, and what --json tells" {
	local id
	workload n3 far 192.168.5.5
	server n1 app srv $VIP:2000
	client n3 far c1 -n 3 $VIP:2000
	move n1 app n2
	assert_eq "$(json '[.workload, .from, .to, .processes, .connections, .sockets_checked >= 4, .exit_status] | map(tostring) | join(" ")')" \
		"app n1 n2 1 3 true 0"
	assert_eq "$(json '[.frozen_ms, .longest_gap_ms, .stop_ms, .dump_ms, .transfer_ms, .restore_ms, .commit_ms, .total_ms, .bytes] |
		map(type == "number" and . >= 0) | all')" true "numbers in $output"
	assert_eq "$(json '.frozen_ms > 0 and .total_ms >= .frozen_ms')" true "times in $output"
	assert_eq "$(json '[.ledger[] | select(.socket and .rcv_nxt and .write_seq)] | length >= 3')" true "ledger in $output"
	assert_eq "$(cat "/proc/$(json .pid)/comm")" ms-testsrv "pid"
	id=$(json .migration)
	assert_match "$id" '^[0-9a-f]{32}$'
	progress c1
	client_ok c1
}
