#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# exec.bats - what CRIU alone would lose or refuse, through ms-migrate: `overlayd exec`, terminals, pipes, interrupted calls, attributes
#
#	n1 (directory)    n2    n3        workloads 192.168.5.0/24

load helpers

setup_file() { lab_up 3; }
teardown_file() { lab_down; }
setup() { T=$BATS_TEST_TMPDIR; }
teardown() { drop_workloads && end_spawned; }

# in_app NAME CMD...: `overlayd exec` in the background; its output is in $T/NAME.out, wherever the command is (/tmp is shared)
in_app() {
	local name=$1
	shift
	spawn "$name" on n1 overlayd exec app -- "$@"
}
# log NODE: what relays have copied since the workload came here
log() { on "$1" cat /run/overlayd/workloads/app/output.log; }
log_has() { log "$1" | grep -q -- "$2"; }
last_tick() { tr -d '\r' | awk '$1 == "tick" { n = $2 } END { print n + 0 }'; }
# log_goes_on NODE: more is copied there, wherever the count was when it came
_log_over() { [ "$(log "$1" | last_tick)" -gt "$2" ]; }
log_goes_on() { wait_for 10 _log_over "$1" 0 && wait_for 10 _log_over "$1" $(($(log "$1" | last_tick) + 20)); }
ticks_without_gap() { # "tick N" lines of standard input count on by one
	awk '$1 == "tick" { if (seen && $2 != last + 1) { print "after " last " came " $2; exit 1 } last = $2; seen = 1 } END { exit !seen }'
}

@test "exec: the tree moves with its own pids; status and output go on" {
	workload n1 app 192.168.5.2
	in_app probe criuprobe ticks
	wait_for 10 grep -q "tick 5" "$T/probe.out"
	move n1 app n2
	wait_for 10 grep -q "tick 60" "$T/probe.out"
	move n2 app n3
	wait_for 10 grep -q "tick 120" "$T/probe.out"
	ticks_without_gap <"$T/probe.out"
	run_ok on n3 overlayd exec app -- ps -e -o pid=,comm=
	assert_match "$output" "3 criuprobe"
	TIMEOUT=20 finish probe none	# the waiter at n1 ended with what it had started
	[ "$status" -ne 0 ]
}

@test "exec: two commands of one workload move in one transaction" {
	workload n1 app 192.168.5.2
	in_app one criuprobe ticks
	wait_for 10 grep -q "tick 3" "$T/one.out"
	in_app two criuprobe ticks
	wait_for 10 grep -q "tick 3" "$T/two.out"
	move n1 app n2
	assert_eq "$(on n2 ip netns pids app | xargs ps -o comm= -p | grep -c criuprobe)" 2 "probes at n2"
	assert_eq "$(on n1 ip netns list | grep -c app || true)" 0 "namespaces left at n1"
}

@test "exec: interrupted calls end in time" {
	local seconds
	# long enough to last until after the move, whatever that takes here
	for seconds in 5 20 60; do
		workload n1 app 192.168.5.2
		in_app probe criuprobe calls $seconds
		wait_for 10 grep -q up "$T/probe.out"
		move n1 app n2
		grep -q fine "$T/probe.out" || break
		[ $seconds != 60 ] || fail "the calls ended before the move"
		run_ok on n2 overlayd netns del app --force
		end_spawned
	done
	wait_for 90 grep -q "^end" "$T/probe.out"
	refute_match "$(cat "$T/probe.out")" "Interrupted|early"
	assert_eq "$(grep -c fine "$T/probe.out")" 9 "calls that ended in time"
}

@test "exec: affinity, priorities, slack, coredump_filter, SysV shared memory and PDEATHSIG come along, three times" {
	local from=n1 to n want="affinity 10 ioprio 4003 slack 123456 coredump 00000007 pid 3 child 1"
	workload n1 app 192.168.5.2
	in_app probe criuprobe attrs
	wait_for 10 grep -q "^3 shm" "$T/probe.out"
	for to in n2 n3 n1; do
		move $from app $to
		n=$(wc -l <"$T/probe.out")
		wait_for 10 eval "[ \$(wc -l <'$T/probe.out') -gt $((n + 3)) ]"
		from=$to
	done
	assert_eq "$(grep -cv "$want" "$T/probe.out" || true)" 0 "lines that differ"
	assert_eq "$(awk '$3 < last { print } { last = $3 }' "$T/probe.out")" "" "shared memory that went back"
}

@test "exec: a node that has the same pids in use" {
	workload n1 app 192.168.5.2
	workload n2 other 192.168.5.3
	spawn other on n2 overlayd exec other -- criuprobe ticks
	wait_for 10 grep -q "tick 3" "$T/other.out"
	in_app probe criuprobe ticks
	wait_for 10 grep -q "tick 3" "$T/probe.out"
	move n1 app n2
	wait_for 10 grep -q "tick 40" "$T/probe.out"
	wait_for 10 grep -q "tick 60" "$T/other.out"
}

# what ticks on a terminal of n1 moves twice: the terminal stays, no tick is missing in what came there and in the logs
terminal_is_left() { # WRAPPER...
	spawn term script -qfc "$TOP/scripts/lab exec n1 $* criuprobe ticks" "$T/typescript"
	wait_for 10 grep -q "tick 5" "$T/typescript"
	move n1 app n2
	log_goes_on n2
	move n2 app n3
	log_goes_on n3
	run_ok log n3
	ticks_without_gap < <(tr -d '\r' <"$T/typescript"; log n2; echo "$output")
}

@test "ip netns exec: a terminal that ends outside" {
	workload n1 app 192.168.5.2
	terminal_is_left ip netns exec app
}

@test "ip netns exec: a pipe that ends outside" {
	workload n1 app 192.168.5.2
	spawn outside bash -c "'$TOP/scripts/lab' exec n1 ip netns exec app criuprobe ticks | cat"
	wait_for 10 grep -q "tick 5" "$T/outside.out"
	move n1 app n2
	log_goes_on n2
	run_ok log n2
	ticks_without_gap < <(cat "$T/outside.out"; echo "$output")
}

@test "ip netns exec: output into a file opened outside, position kept" {
	workload n1 app 192.168.5.2
	spawn plain on n1 ip netns exec app criuprobe ticks
	wait_for 10 grep -q "tick 5" "$T/plain.out"
	move n1 app n2
	wait_for 10 grep -q "tick 60" "$T/plain.out"
	move n2 app n3
	wait_for 10 grep -q "tick 120" "$T/plain.out"
	ticks_without_gap <"$T/plain.out"
}

@test "exec: started on a terminal, with ^C before and output after" {
	workload n1 app 192.168.5.2
	cat >"$T/trap" <<-'TRAP'
		trap 'echo interrupted; exit 3' INT
		echo up
		while :; do sleep 0.05; done
	TRAP
	# script(1) hands its standard input to the terminal it makes: a ^C once the command is up
	spawn int bash -c "(until grep -qx \$'up\r' '$T/int.ts' 2>/dev/null; do sleep 0.05; done; printf '\\003'; sleep 2) |
		script -qefc '$TOP/scripts/lab exec n1 overlayd exec app -- sh $T/trap' '$T/int.ts'"
	finish int none
	assert_eq "$status" 3 "$(cat "$T/int.ts")"
	grep -q interrupted "$T/int.ts"
	terminal_is_left overlayd exec app --
}
