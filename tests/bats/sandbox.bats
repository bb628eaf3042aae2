# SPDX-License-Identifier: Apache-2.0
# overlayd as its systemd unit confines it, with a launcher of its own that is not confined: bounding set, no_new_privs and filters
# of system calls are read from scripts/packaging/overlayd.service and put on by ms-unitbox, which kills where systemd refuses.
load helpers

SOCK=/run/overlayd/launcher.sock
UNIT=$TOP/scripts/packaging/overlayd.service
CAPS=0000000000281424	# DAC_READ_SEARCH, KILL, NET_BIND_SERVICE, NET_ADMIN, SYS_PTRACE, SYS_ADMIN

setup_file() {
	export SETS=$BATS_FILE_TMPDIR/sets
	systemd-analyze syscall-filter >"$SETS" 2>/dev/null || {
		SETS=-
		echo "# no systemd-analyze here: the unit's SystemCallFilter is not tried" >&3
	}
	lab_up 2
}
teardown_file() { lab_down; }
teardown() {
	local n
	for n in n1 n2; do on $n overlayd status >/dev/null 2>&1 || on $n overlayd start 3>&-; done
	drop_workloads
	for n in n1 n2; do [ ! -e "$BATS_TEST_TMPDIR/daemon-$n.pid" ] || on $n overlayd stop; done
	end_spawned
	for n in n1 n2; do on $n overlayd status >/dev/null 2>&1 || on $n overlayd start 3>&-; done
}

status_of() { # PID FIELD
	awk -v f="$2:" '$1 == f { print $2 }' "/proc/$1/status"
}
daemon() { on "$1" cat /run/overlayd/overlayd.pid; }
came_to() { [ "$(grep -c "has come" "$BATS_TEST_TMPDIR/launcher-$1.err")" = "$2" ]; } # NODE: so many daemons, to its launcher
launcher_is() { [ "$(on "$1" overlayd status --json | jq .launcher)" = "$2" ]; }
tunstack() { on "$1" overlayd netns list --json | jq '.[0].tunstack.pid'; }

launcher_start() { # NODE
	spawn "launcher-$1" on "$1" overlayd launcher $SOCK
	wait_for 10 grep -q "listens at $SOCK" "$BATS_TEST_TMPDIR/launcher-$1.err"
}
boxed() { echo "ms-unitbox $UNIT $SETS -- overlayd start --foreground --launcher $SOCK"; }
daemon_start() { # NODE
	# shellcheck disable=SC2046
	spawn "daemon-$1" on "$1" $(boxed)
	wait_for 20 launcher_is "$1" true || { cat "$BATS_TEST_TMPDIR/daemon-$1.err" >&2; return 1; }
}
sandboxed() { # NODE
	run_ok on "$1" overlayd stop
	launcher_start "$1"
	daemon_start "$1"
}

free() { # PID
	assert_eq "$(status_of "$1" NoNewPrivs)" 0 "no_new_privs of $1"
	assert_eq "$(status_of "$1" Seccomp)" 0 "seccomp of $1"
	assert_eq "$(status_of "$1" CapBnd)" "$(status_of $$ CapBnd)" "bounding set of $1"
}

@test "sandbox: with no more than the unit leaves it, overlayd makes a workload, moves it away and takes it back; it is free of all that" {
	local pid
	sandboxed n1
	sandboxed n2
	run_ok on n1 ms-unitbox "$UNIT" "$SETS" -- overlayd check-config
	for pid in $(daemon n1) $(daemon n2); do
		assert_eq "$(status_of "$pid" CapBnd)" $CAPS "bounding set of overlayd"
		assert_eq "$(status_of "$pid" NoNewPrivs)" 1 "no_new_privs of overlayd"
	done
	free "$(spawned launcher-n1)"
	workload n1 app 192.168.5.2
	assert_eq "$(status_of "$(tunstack n1)" CapBnd)" "$(status_of $$ CapBnd)" "bounding set of tunstack"
	server n1 app srv 192.168.5.2:2000
	client n2 - cli --interval 20 192.168.5.2:2000
	move n1 "$SERVER" n2
	free "$MOVED"
	free "$(status_of "$MOVED" PPid)"
	progress cli
	run_ok on n2 ms-unitbox "$UNIT" "$SETS" -- overlayd reload
	move n2 "$MOVED" n1
	free "$MOVED"
	progress cli
	client_ok cli
	run_ok on n1 overlayd netns del app --force
}

@test "sandbox: overlayd is killed and started again: launcher, tunstack and workload are the same, and move" {
	local launcher tunstack
	sandboxed n1
	workload n1 app 192.168.5.2
	server n1 app srv 192.168.5.2:2000
	client n2 - cli --interval 20 192.168.5.2:2000
	launcher=$(spawned launcher-n1)
	tunstack=$(tunstack n1)
	kill -KILL "$(daemon n1)"
	finish daemon-n1 none
	wait_for 10 grep -q "has gone" "$BATS_TEST_TMPDIR/launcher-n1.err"
	daemon_start n1
	kill -0 "$launcher"
	wait_for 10 came_to n1 2 # it says so when it has let it in
	assert_eq "$(tunstack n1)" "$tunstack" "tunstack"
	progress cli
	run_ok on n1 overlayd stop
	finish daemon-n1 none
	assert_eq "$status" 0 "exit status of overlayd"
	daemon_start n1
	kill -0 "$launcher"
	# agents go by what the daemon runs with, not by what has become of the file
	run_ok on n1 cp /etc/overlayd/overlayd.conf "$BATS_TEST_TMPDIR/conf"
	run_ok on n1 sh -c 'echo nonsense >>/etc/overlayd/overlayd.conf'
	move n1 app n2
	run_ok on n1 cp "$BATS_TEST_TMPDIR/conf" /etc/overlayd/overlayd.conf
	progress cli
	client_ok cli
}

@test "sandbox: the launcher is killed: overlayd ends with status 1; another launcher, another overlayd, and the workload lives" {
	sandboxed n1
	workload n1 app 192.168.5.2
	server n1 app srv 192.168.5.2:2000
	client n2 - cli --interval 20 192.168.5.2:2000
	kill -KILL "$(spawned launcher-n1)"
	finish daemon-n1 none
	assert_eq "$status" 1 "exit status of overlayd"
	assert_match "$(cat "$BATS_TEST_TMPDIR/daemon-n1.err")" "the launcher has died: ending, to be started again; workloads stay"
	finish launcher-n1 none
	# shellcheck disable=SC2046
	run_fail on n1 $(boxed)
	assert_match "$output" "launcher at $SOCK: Connection refused: is overlayd-launcher started"
	launcher_start n1
	daemon_start n1
	progress cli
	move n1 app n2
	client_ok cli
	# told to end, it does
	finish launcher-n1 TERM
	finish daemon-n1 none
	assert_eq "$status" 1 "exit status of overlayd"
}

@test "sandbox: in the background overlayd goes on without its launcher, and says so" {
	run_ok on n1 overlayd stop
	launcher_start n1
	run_ok on n1 overlayd start --launcher $SOCK
	launcher_is n1 true
	kill -KILL "$(spawned launcher-n1)"
	wait_for 10 launcher_is n1 false
	assert_match "$(on n1 overlayd status)" "LAUNCHER DEAD"
	run_ok on n1 overlayd stop
}

@test "sandbox: no launcher, another user's, a second one, a second overlayd: each is told" {
	local theirs=$BATS_TEST_TMPDIR/theirs
	sandboxed n1
	# shellcheck disable=SC2046
	run_fail on n1 $(boxed)
	assert_match "$output" "overlayd runs on this node already"
	run_fail on n1 overlayd launcher $SOCK
	assert_match "$output" "one listens at $SOCK already"
	launcher_is n1 true
	run_ok on n1 overlayd stop
	run_fail on n1 overlayd start --foreground --launcher /run/nobody.sock
	assert_match "$output" "launcher at /run/nobody.sock: No such file or directory: is overlayd-launcher started"
	run_fail on n1 overlayd start --launcher /run/nobody.sock
	assert_match "$output" "launcher at /run/nobody.sock: No such file"
	run_rc 2 on n1 overlayd launcher
	run_ok on n1 install -d -o 65534 /run/theirs
	spawn theirs on n1 setpriv --reuid=65534 --regid=65534 --clear-groups /usr/bin/python3 -c "
import socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.bind('/run/theirs/sock')
s.listen()
print('listens', flush=True)
s.accept()[0].recv(1)"
	wait_for 10 grep -q listens "$theirs.out"
	run_fail on n1 overlayd start --foreground --launcher /run/theirs/sock
	assert_match "$output" "launcher at /run/theirs/sock: process [0-9]+ of user 65534, not of root"
	run_ok on n1 rm -r /run/theirs
	# and the one that is there still serves
	daemon_start n1
}
