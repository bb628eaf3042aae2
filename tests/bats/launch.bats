# SPDX-License-Identifier: Apache-2.0
# The launcher: what it starts is free of what overlayd's own threads are denied; when it dies, and when overlayd does.
load helpers

setup_file() { lab_up 2; }
teardown_file() { lab_down; }
teardown() {
	local n
	for n in n1 n2; do restarted $n; done
	drop_workloads
	end_spawned
}

status_of() { # PID[/task/TID] FIELD
	awk -v f="$2:" '$1 == f { print $2 }' "/proc/$1/status"
}
daemon() { on "$1" cat /run/overlayd/overlayd.pid; }
launcher() { pgrep -P "$(daemon "$1")" -x overlayd-launch; }
gone() { ! kill -0 "$1" 2>/dev/null || [ "$(awk '$1 == "State:" { print $2 }' "/proc/$1/status")" = Z ]; }
launcher_is() { [ "$(on "$1" overlayd status --json | jq .launcher)" = "$2" ]; }

# an agent of NODE, stopped to be looked at
stopped_agent() {
	local pid
	pid=$(pgrep -P "$(launcher "$1")" -x ms-agent) && kill -STOP "$pid" && echo "$pid" >"$BATS_TEST_TMPDIR/agent"
}

# a node whose launcher is gone gets a new daemon, as an operator would give it one
restarted() {
	on "$1" overlayd status >/dev/null 2>&1 || on "$1" overlayd start 3>&-
	launcher_is "$1" true || { on "$1" overlayd stop && on "$1" overlayd start 3>&-; }
}

# not confined: nothing that overlayd's control thread lacks is missing
free() { # PID
	assert_eq "$(status_of "$1" NoNewPrivs)" 0 "no_new_privs of $1"
	assert_eq "$(status_of "$1" Seccomp)" 0 "seccomp of $1"
	assert_eq "$(status_of "$1" CapEff)" "$(status_of $$ CapEff)" "effective capabilities of $1"
	assert_eq "$(status_of "$1" CapBnd)" "$(status_of $$ CapBnd)" "bounding set of $1"
}

@test "launch: the launcher has all rights and nothing open but its socket; the daemon's threads are confined" {
	local pid fds
	pid=$(launcher n1)
	free "$pid"
	fds=$(find "/proc/$pid/fd" -lname '*' -printf '%f ' | tr ' ' '\n' | sort -n | tr '\n' ' ')
	assert_match "$fds" '^ ?0 1 2 3 $' "descriptors"
	assert_match "$(readlink "/proc/$pid/fd/3")" '^socket:'
}

@test "launch: agents, a workload that has moved and its ms-init are free of the daemon's confinement" {
	local init agent
	rm -f "$BATS_TEST_TMPDIR/agent"
	workload n1 app 192.168.5.2
	server n1 app srv 192.168.5.2:2000
	client n2 - cli --interval 20 192.168.5.2:2000
	spawn mover on n1 ms-migrate app n2 --hold-freeze 5000
	wait_for 60 stopped_agent n1
	agent=$(cat "$BATS_TEST_TMPDIR/agent")
	free "$agent"
	kill -CONT "$agent"
	TIMEOUT=120 finish mover none
	assert_eq "$status" 0 "exit status of ms-migrate"
	MOVED=$(on n2 ip netns pids app | xargs -r ps -o pid=,comm= -p | awk '/ms-testsrv/ { print $1 }')
	free "$MOVED"
	init=$(status_of "$MOVED" PPid)
	free "$init"
	assert_eq "$(status_of "$(on n2 overlayd netns list --json | jq '.[0].tunstack.pid')" CapBnd)" "$(status_of $$ CapBnd)"
	progress cli
	client_ok cli
}

@test "launch: without its launcher a node says so, refuses moves clearly, loses no packet, and is well after a restart" {
	local pid
	workload n1 app 192.168.5.2
	workload n2 back 192.168.5.3
	server n1 app srv 192.168.5.2:2000
	server n2 back other 192.168.5.3:2000
	client n2 - cli --interval 20 192.168.5.2:2000
	pid=$(daemon n1)
	refute_match "$(on n1 cat /run/overlayd/overlayd.log)" "the launcher has died"
	kill -KILL "$(launcher n1)"
	wait_for 10 launcher_is n1 false
	assert_match "$(on n1 overlayd status)" "LAUNCHER DEAD"
	wait_for 10 on n1 grep -q "the launcher has died" /run/overlayd/overlayd.log
	run_fail on n1 ms-migrate app n2
	assert_match "$output" "launcher of overlayd has died"
	assert_match "$output" "until overlayd is restarted"
	run_fail on n2 ms-migrate back n1
	assert_match "$output" "n1: the launcher of overlayd has died"
	run_fail on n1 overlayd netns add new 192.168.5.9
	assert_match "$output" "launcher of overlayd has died"
	assert_eq "$(daemon n1)" "$pid" "the daemon"
	progress cli
	run_ok on n1 overlayd stop
	run_ok on n1 overlayd start
	launcher_is n1 true
	run_ok on n1 overlayd netns add new 192.168.5.9
	move n1 app n2
	progress cli
	client_ok cli
}

@test "launch: in the foreground a daemon whose launcher dies ends with status 1, to be started again; its workload lives on" {
	workload n1 app 192.168.5.2
	server n1 app srv 192.168.5.2:2000
	client n2 - cli --interval 20 192.168.5.2:2000
	run_ok on n1 overlayd stop
	spawn fg on n1 overlayd start --foreground
	wait_for 10 launcher_is n1 true
	kill -KILL "$(launcher n1)"
	finish fg none
	assert_eq "$status" 1 "exit status"
	assert_match "$(cat "$BATS_TEST_TMPDIR/fg.err")" "the launcher has died: ending, to be started again; workloads stay"
	run_ok on n1 overlayd start
	assert_eq "$(on n1 overlayd netns list --json | jq -r '.[0].name')" app
	progress cli
	client_ok cli
}

@test "launch: the launcher of a daemon that was killed ends, what it started lives on, and the next daemon has its own" {
	local old tunstack
	workload n1 app 192.168.5.2
	tunstack=$(on n1 overlayd netns list --json | jq '.[0].tunstack.pid')
	old=$(launcher n1)
	kill -KILL "$(daemon n1)"
	wait_for 10 gone "$old"
	run_ok on n1 overlayd start
	launcher_is n1 true
	[ "$(launcher n1)" != "$old" ]
	assert_eq "$(on n1 overlayd netns list --json | jq '.[0].tunstack.pid')" "$tunstack" "tunstack"
	kill -KILL "$tunstack"
	wait_for 10 eval "[ \"\$(on n1 overlayd netns list --json | jq '.[0].tunstack.pid')\" -gt 1 ] &&
		[ \"\$(on n1 overlayd netns list --json | jq '.[0].tunstack.pid')\" != $tunstack ]"
}
