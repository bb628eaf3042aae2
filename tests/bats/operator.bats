#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# What operators do in odd orders and at the same moment: names that mislead, two commands at once, hands off what moves

#
# Needs a build with FAULTS=1 ($BUILD/faults; tests/run makes it): a move is held up in its middle.

load helpers

setup_file() {
	with_faults
	lab_up 3
}
teardown_file() { lab_down; }
teardown() {
	on n1 rm -f /run/overlayd/fault /run/overlayd/fault.reached
	drop_workloads && end_spawned
}
tunstack_of() { on "$1" overlayd netns list --json | jq -r ".[] | select(.name == \"$2\") | .tunstack.pid"; }
tunstack_new() { local pid; pid=$(tunstack_of "$1" "$2"); [ "$pid" -gt 1 ] && [ "$pid" != "$3" ]; }
state_of() { on "$1" overlayd resolve "$2" --json | jq -r '.[0].state'; }
is_state() { [ "$(state_of "$1" "$2")" = "$3" ]; }

@test "operator: status 6 means no daemon and nothing else" {
	run_rc 1 on n1 overlayd where nosuch
	run_rc 1 on n1 overlayd exec nosuch -- true
	run_rc 1 on n1 overlayd pin nosuch
	run_ok on n3 overlayd stop
	run_rc 6 on n3 overlayd status
	run_rc 6 on n3 ms-migrate app n1
	run_ok on n3 overlayd start
}

@test "operator: names that would be taken for something else are refused, odd ones work" {
	run_rc 1 on n1 overlayd netns add 4711 192.168.5.10
	assert_match "$output" "process id"
	run_rc 1 on n1 overlayd netns add n1 192.168.5.10
	assert_match "$output" "own name"
	run_rc 1 on n1 overlayd netns add ../x 192.168.5.10
	workload n1 A.b-C_d.0 192.168.5.10
	workload n1 "$(printf 'x%.0s' {1..63})" 192.168.5.11
	run_rc 1 on n1 overlayd netns add "$(printf 'x%.0s' {1..64})" 192.168.5.12
	workload n1 many "$(seq -s, -f 192.168.5.%g 30 45)"
	run_ok on n1 ip netns exec A.b-C_d.0 ping -c 1 -W 20 192.168.5.45
}

@test "operator: a workload without a process does not move, and is not said to run" {
	workload n1 app 192.168.5.2
	run_rc 3 on n1 ms-migrate app n2
	assert_match "$output" "app has no process on n1"
}

@test "operator: two nodes, one address, one moment: exactly one has it" {
	local i got
	for i in 1 2 3; do
		spawn a on n2 overlayd netns add one 192.168.5.7
		spawn b on n3 overlayd netns add two 192.168.5.7
		finish a none; got=$status
		finish b none; got=$((got + status))
		assert_eq "$got" 1 "one succeeds, one is refused"
		drop_workloads
	done
}

@test "operator: one name, two addresses, one moment: the loser's address is free again" {
	spawn a on n2 overlayd netns add one 192.168.5.7
	spawn b on n2 overlayd netns add one 192.168.5.8
	finish a none
	finish b none
	drop_workloads
	workload n3 seven 192.168.5.7
	workload n3 eight 192.168.5.8
}

# the node's /run takes nothing more | is as before
run_is_full() {
	local kb
	kb=$(on "$1" df -k --output=used /run | tail -n 1)
	run_ok on "$1" mount -o "remount,size=$((kb + 256))k" /run
	run_rc 1 on "$1" dd if=/dev/zero of=/run/filler bs=4k
}
run_has_room() { on "$1" sh -c 'rm /run/filler; mount -o remount,size=50% /run'; }

@test "operator: what could not be put on file has not happened" {
	workload n1 app 192.168.5.2
	run_is_full n1
	_run on n1 overlayd pin app
	run_has_room n1
	assert_eq "$status" 1 "pinning with a full /run: $output"
	assert_match "$output" "No space left"
	assert_eq "$(on n1 overlayd netns list --json | jq '.[0].pinned')" false "pinned"
	run_ok on n1 overlayd pin app
	assert_eq "$(on n1 overlayd netns list --json | jq '.[0].pinned')" true "pinned"
}

@test "operator: an outcome of days ago that says RUNNING is kept, for a source that may still ask" {
	local dir=/run/overlayd/migrations gone=00000000000000000000000000000001 runs=00000000000000000000000000000002
	run_ok on n3 overlayd stop
	on n3 sh -c "echo '{\"outcome\": 3, \"pid\": 0}' >$dir/$gone.outcome; echo '{\"outcome\": 2, \"pid\": 7}' >$dir/$runs.outcome"
	run_ok on n3 touch -d '3 days ago' $dir/$gone.outcome $dir/$runs.outcome
	run_ok on n3 overlayd start
	run_rc 1 on n3 test -e $dir/$gone.outcome
	run_ok on n3 test -e $dir/$runs.outcome
	run_ok on n3 rm $dir/$runs.outcome
}

@test "operator: what moves is not removed, pinned, moved again or started into" {
	workload n1 app 192.168.5.2
	workload n3 far 192.168.5.5
	server n1 app srv 192.168.5.2:2000
	client n3 far c1 192.168.5.2:2000
	on n1 sh -c 'echo "src.dump pause" >/run/overlayd/fault'
	spawn move on n1 ms-migrate app n2 --json
	wait_for 10 on n1 test -e /run/overlayd/fault.reached
	run_rc 1 on n1 overlayd netns del app --force
	assert_match "$output" "part of migration"
	run_rc 1 on n1 overlayd pin app
	run_rc 1 on n1 overlayd exec app -- true
	run_rc 3 on n1 ms-migrate app n3
	run_ok on n1 overlayd reload
	on n1 rm -f /run/overlayd/fault.reached
	TIMEOUT=60 finish move none
	assert_eq "$status" 0 "the move: $(cat "$BATS_TEST_TMPDIR/move.err")"
	progress c1
	client_ok c1
}

@test "operator: Ctrl-C at any moment before the commit leaves it where it is" {
	local delay
	workload n1 app 192.168.5.2
	workload n3 far 192.168.5.5
	server n1 app srv 192.168.5.2:2000
	client n3 far c1 192.168.5.2:2000
	for delay in 0.02 0.06 0.15; do
		run_ok on n1 python3 -c "
import signal, subprocess, time
p = subprocess.Popen(['ms-migrate', 'app', 'n2'])
time.sleep($delay)
p.send_signal(signal.SIGINT)
print('status', p.wait())"
		assert_match "$output" "status (4|-2|0)"
		[[ $output =~ "status 4" ]] || break
		assert_eq "$(where n3 app)" n1 "holder after a cancelled move"
	done
	progress c1
	client_ok c1
}

@test "operator: a tunstack that dies again and again comes back" {
	local i pid
	workload n1 app 192.168.5.2
	for i in 1 2 3; do
		pid=$(tunstack_of n1 app)
		kill -KILL "$pid"
		wait_for 5 tunstack_new n1 app "$pid"
	done
	server n1 app srv 192.168.5.2:2000
	move n1 app n2
	assert_eq "$(where n3 app)" n2 holder
}

@test "operator: a node that was away until its address was freed takes it again" {
	workload n3 app 192.168.5.2
	run_ok on n3 overlayd stop
	wait_for 40 is_state n1 192.168.5.2 suspect
	run_ok on n1 overlayd release 192.168.5.2
	run_ok on n3 overlayd start
	wait_for 15 is_state n1 192.168.5.2 live
	assert_eq "$(where n1 app)" n3 holder
}

@test "operator: netns add that got no answer leaves no address taken" {
	local pid
	pid=$(on n1 cat /run/overlayd/directoryd.pid)
	kill -STOP "$pid"
	run_rc 1 on n2 overlayd netns add late 192.168.5.9
	kill -CONT "$pid"
	assert_match "$output" "does not answer"
	wait_for 15 on n3 overlayd netns add other 192.168.5.9
}

@test "operator: stop --purge in the middle of a move takes everything down, the other side too" {
	workload n1 app 192.168.5.2
	server n1 app srv 192.168.5.2:2000
	on n1 sh -c 'echo "src.dump pause" >/run/overlayd/fault'
	spawn move on n1 ms-migrate app n2
	wait_for 10 on n1 test -e /run/overlayd/fault.reached
	run_ok on n1 overlayd stop --purge
	finish move none
	run_ok on n1 sh -c '! ip netns | grep . && ! ip link show ms0 && ! ls /sys/fs/cgroup | grep overlayd- &&
		[ ! -e /run/overlayd/workloads ] && [ ! -e /run/overlayd/migrations ]'
	wait_for 10 on n2 sh -c '! ip netns | grep -w app'
	run_ok on n1 overlayd start
}
