#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# session.bats - the family of a process moves with it: one whose session's leader has ended (a daemon that forked twice) stays in its
# tree, move after move; a child that has ended can be waited for where its parent is by then
#
#	n1 (directory)    n2    n3        workload app 192.168.5.2, moved around

load helpers

setup_file() { lab_up 3; }
teardown_file() { lab_down; }
setup() { T=$BATS_TEST_TMPDIR; }
teardown() { drop_workloads && end_spawned; }

# daemon_of NODE: "PPID's-name SESSION" of the process whose pid inside is in $T/daemon
daemon_of() {
	local pid
	for pid in $(on "$1" ip netns pids app); do
		[ "$(awk '$1 == "NSpid:" { print $NF }' "/proc/$pid/status" 2>/dev/null)" = "$(cat "$T/daemon")" ] || continue
		awk '$1 == "NSsid:" { print $NF }' "/proc/$pid/status" >"$T/session"
		echo "$(cat "/proc/$(awk '$1 == "PPid:" { print $2 }' "/proc/$pid/status")/comm") $(cat "$T/session")"
	done
}
beats() { wc -l <"$T/beats"; }
_more_beats() { [ "$(beats)" -gt "$1" ]; }
goes_on() { wait_for 20 _more_beats $(($(beats) + 5)); }

@test "session: a daemon that shares a pipe with the program moves with it a second and a third time" {
	local before
	workload n1 app 192.168.5.2
	# shellcheck disable=SC2016 # for the shell inside
	spawn app on n1 overlayd exec app -- bash -c '
		setsid -w bash -c "while :; do echo beat; sleep 0.05; done & echo \$! >$1/daemon.new" |
			while read -r b; do echo "$b" >>$1/beats; done' app "$T"
	wait_for 20 test -s "$T/daemon.new"
	mv "$T/daemon.new" "$T/daemon"
	wait_for 20 test -s "$T/beats"
	goes_on
	before=$(daemon_of n1)
	assert_match "$before" "^ms-root "
	move n1 app n2
	goes_on
	assert_eq "$(daemon_of n2)" "$before" "parent and session after a move"
	move n2 app n3
	goes_on
	assert_eq "$(daemon_of n3)" "$before" "parent and session after two moves"
	move n3 app n1
	goes_on
	assert_eq "$(daemon_of n1)" "$before" "parent and session after three moves"
}

@test "session: a child that has ended and was not waited for moves along, with its exit status" {
	workload n1 app 192.168.5.2
	spawn app on n1 ip netns exec app python3 -c '
import os, sys, time
child = os.fork()
if child == 0:
    os._exit(7)
os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
open(sys.argv[1] + "/ended", "w").close()
while not os.path.exists(sys.argv[1] + "/wait"):
    time.sleep(0.02)
with open(sys.argv[1] + "/status.new", "w") as f:
    f.write(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])))
os.rename(sys.argv[1] + "/status.new", sys.argv[1] + "/status")
time.sleep(1000)' "$T"
	wait_for 20 test -e "$T/ended"
	move n1 app n2
	move n2 app n3
	touch "$T/wait"
	wait_for 20 test -e "$T/status"
	assert_eq "$(cat "$T/status")" 7 "exit status of the child"
}
