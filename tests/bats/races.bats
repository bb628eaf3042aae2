#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2154
# What happens at the same moment as something else: between the check and the freeze, during it, and two commands at once
#
#	n1, n2: workloads move between them    n3: the directory
#
# Needs a build with FAULTS=1 ($BUILD/faults; tests/run makes it): a move is held up at a point.

load helpers

VIP=192.168.5.2

setup_file() {
	with_faults
	lab_up 3 --subnet 192.168.5.0/24=n3
}
teardown_file() { lab_down; }
setup() { T=$BATS_TEST_TMPDIR; }
teardown() {
	local n
	for n in n1 n2; do
		on $n rm -f /run/overlayd/fault /run/overlayd/fault.reached
		on $n overlayd status >/dev/null 2>&1 || on $n overlayd start
	done
	drop_workloads && end_spawned
}

# held POINT: a move of app to n2 that waits there; let_go
held() {
	on n1 sh -c "echo '$1 pause' >/run/overlayd/fault"
	spawn mover on n1 ms-migrate app n2
	wait_for 20 on n1 test -e /run/overlayd/fault.reached || { cat "$T/mover.err" >&2; return 1; }
}
let_go() { on n1 rm -f /run/overlayd/fault.reached; }
mover_ends() { # STATUS
	TIMEOUT=60 finish mover none || return 1
	assert_eq "$status" "$1" "exit status of ms-migrate: $(cat "$T/mover.err")"
}
no_cgroup() { [ "$(on "$1" find /sys/fs/cgroup -maxdepth 1 -name 'overlayd-*')" = "" ]; }

@test "races: two first commands in a workload find themselves under one ms-init" {
	local i
	for i in 1 2 3 4 5 6; do
		workload n1 app $VIP
		# shellcheck disable=SC2016
		spawn a on n1 overlayd exec app -- sh -c 'readlink /proc/self/ns/pid; exec sleep 100'
		# shellcheck disable=SC2016
		spawn b on n1 overlayd exec app -- sh -c 'readlink /proc/self/ns/pid; exec sleep 100'
		wait_for 10 grep -q pid "$T/a.out"
		wait_for 10 grep -q pid "$T/b.out"
		assert_eq "$(cat "$T/a.out")" "$(cat "$T/b.out")" "their PID namespaces"
		drop_workloads
		end_spawned
	done
}

@test "races: a command after one that failed to start makes the ms-init" {
	workload n1 app $VIP
	run_fail on n1 overlayd exec app -- /nonexistent/program
	run_ok on n1 overlayd exec app -- true
	run_rc 7 on n1 overlayd exec app -- sh -c 'exit 7'
}

# says its pid to whoever connects, at a name it binds when it is told to
late_server() {
	spawn late on n1 ip netns exec app python3 -c "
import os, socket, time
open('$T/late.ready', 'w').close()
while not os.path.exists('$T/late.go'): time.sleep(0.01)
s = socket.socket(socket.AF_UNIX)
s.bind('$T/late.name')
s.listen()
while True:
	c, _ = s.accept()
	c.sendall(b'here')
	c.close()"
	wait_for 10 test -e "$T/late.ready"
}
late_answers() {
	[ "$(on "$1" python3 -c "
import socket
s = socket.socket(socket.AF_UNIX)
s.settimeout(60)
s.connect('$T/late.name')
print(s.recv(10).decode())")" = here ]
}

@test "races: a UNIX name bound between the check and the freeze is put aside, and back, like the others" {
	workload n1 app $VIP
	late_server
	# its copy binds the name, which is on a filesystem both nodes see, and then the move fails
	on n2 sh -c "echo 'dst.stands error' >/run/overlayd/fault"
	held src.freeze
	touch "$T/late.go"
	wait_for 10 test -S "$T/late.name"
	let_go
	mover_ends 1
	late_answers n1
	assert_eq "$(find "$T" -name 'late.name*')" "$T/late.name" "names"
	move n1 app n2
	late_answers n2
	assert_eq "$(find "$T" -name 'late.name*')" "$T/late.name" "names after the move"
}

@test "races: ms-init is killed while its workload is frozen: nothing of it is left, no cgroup either" {
	local init point
	for point in src.captured src.dump src.commit; do
		workload n1 app $VIP
		spawn app on n1 overlayd exec app -- ms-testsrv --ready "$T/ready" $VIP:2000
		wait_for 10 test -e "$T/ready"
		held $point
		# shellcheck disable=SC2016
		init=$(on n1 sh -c 'for p in $(ip netns pids app); do ! grep -qx ms-init /proc/$p/comm || echo $p; done')
		[ "$init" -gt 1 ]
		kill -KILL "$init"
		let_go
		TIMEOUT=60 finish mover none
		wait_for 20 eval '[ "$(on n1 overlayd status --json | jq ".migrations | length")" = 0 ]'
		wait_for 10 no_cgroup n1 || fail "a cgroup is left after $point: $(on n1 find /sys/fs/cgroup -maxdepth 1 -name 'overlayd-*')"
		assert_eq "$(on n1 find /run/overlayd/migrations -mindepth 1 -type d)" "" "journals after $point"
		drop_workloads
		end_spawned
		rm -f "$T/ready"
	done
}

@test "races: a node that was away is reached at the first attempt when it is back" {
	local i
	workload n1 app $VIP
	server n1 app srv $VIP:2000
	run_ok on n2 overlayd stop
	# fails, and fails, and so is dialled less and less often
	for i in 1 2; do
		TIMEOUT=40 run_rc 3 on n1 ms-migrate app n2 --dry-run
	done
	run_ok on n2 overlayd start
	TIMEOUT=40 run_ok on n1 ms-migrate app n2 --dry-run
}
