#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# refusals.bats - what ms-migrate refuses, in what words, and that nobody is harmed by it
#
#	n1 (directory)    n2: the workload    n3: where it should go        a client on n1 that checks every byte, throughout
#
# Each test brings an obstacle about beside a server with a connection, is refused for it by name, sees the connection go on, and
# (where the obstacle can be taken away) moves the same workload after all.

load helpers

setup_file() { lab_up 3; }
teardown_file() { lab_down; }

setup() {
	T=$BATS_TEST_TMPDIR
	workload n2 app 192.168.5.2
	workload n1 far 192.168.5.5
	server n2 app srv 192.168.5.2:2000
	client n1 far c1 192.168.5.2:2000
}

teardown() {
	on n3 umount "$T" 2>/dev/null || true
	drop_workloads && end_spawned
}

is_ready() { grep -q '^ready' "$T/$1.out"; }

# beside NAME SITUATION...: another program in the workload; its pid in $PID
beside() {
	local name=$1
	shift
	spawn "$name" on n2 ip netns exec app "$@"
	wait_for 10 is_ready "$name" || { cat "$T/$name.err" >&2; return 1; }
	PID=$(awk '/^ready/ { print $2 }' "$T/$name.out")
}

# refused REGEX...: exit status 3, each text is told; and the connection goes on
refused() {
	local text
	TIMEOUT=60 run_rc 3 on n2 ms-migrate app n3
	for text in "$@"; do
		assert_match "$output" "$text"
	done
	progress c1
	assert_eq "$(where n1 app)" n2 "holder after a refusal"
}

moves_after_all() {
	move n2 app n3
	progress c1
	client_ok c1
}

@test "refused: io_uring, MPTCP, UNIX stream to a process outside, traced, vsock: all at once, each by name" {
	local outside uring mptcp unix traced vsock
	spawn out on n2 situation unix-server "$T/out.sock"
	wait_for 10 is_ready out
	outside=$(awk '/^ready/ { print $2 }' "$T/out.out")
	beside uring situation io_uring; uring=$PID
	beside mptcp situation mptcp; mptcp=$PID
	beside unix situation unix-client "$T/out.sock"; unix=$PID
	beside traced situation plain; traced=$PID
	spawn tracer on n2 strace -o /dev/null -p "$traced"
	wait_for 10 grep -q '^TracerPid:.*[1-9]' "/proc/$traced/status"
	beside vsock situation vsock; vsock=$PID
	refused 'for 5 reasons' \
		"situation.$uring. fd 3: .io_uring. cannot be moved: switch io_uring off" \
		"situation.$mptcp. fd 3: a multipath TCP socket cannot be moved.*GODEBUG=multipathtcp=0" \
		"situation.$unix. fd 3: a UNIX stream connection.* to situation.$outside., which is not part of the workload" \
		"situation.$traced. is traced by strace.[0-9]+.: detach the debugger" \
		"situation.$vsock. fd 3: a socket of family 40 .AF_VSOCK."
	# a dry run says the same
	run_rc 3 on n2 sh -c 'ms-migrate app n3 --dry-run --json 2>/dev/null'
	assert_eq "$(json '.refusals | length')" 5 "refusals in $output"
	local name
	for name in uring mptcp unix traced vsock; do finish "$name" KILL; done
	finish tracer none
	moves_after_all
}

@test "refused: a program that is missing or of another size at the destination, and what it writes to" {
	local f
	cp "$BUILD/bin/situation" "$T/prog"
	beside prog "$T/prog" plain
	on n3 mount -t tmpfs none "$T"
	refused "n3: $T/prog is missing .prog.$PID. needs it"
	on n3 sh -c "head -c 1000 '$BUILD/bin/situation' >'$T/prog'; chmod 755 '$T/prog'"
	refused "n3: $T/prog has 1000 bytes, $(stat -c %s "$BUILD/bin/situation") at n2"
	on n3 cp "$BUILD/bin/situation" "$T/prog"
	on n3 chmod 700 "$T/prog"
	refused "n3: $T/prog has mode 0700, 0755 at n2"
	# a copy of the same build is as good as the file itself; what the programs write their output to must be there
	on n3 chmod 755 "$T/prog"
	refused "n3: $T/srv.out, which ms-testsrv.[0-9]+. was started with, is missing: create it there"
	for f in srv.out srv.err prog.out prog.err; do
		on n3 touch "$T/$f"
	done
	refused "n3: $T/prog.out has 0 bytes, $(stat -c %s "$T/prog.out") at n2: copy it over"
	on n3 truncate -s "$(stat -c %s "$T/prog.out")" "$T/prog.out"
	move n2 app n3
	progress c1
	client_ok c1
}

@test "refused: a host nobody knows, the host it is on, one that does not answer" {
	run_fail on n2 ms-migrate app nowhere
	assert_match "$output" 'nowhere'
	run_fail on n2 ms-migrate app n2
	assert_match "$output" 'n2'
	lab cut n3
	run_fail on n2 ms-migrate app n3
	assert_match "$output" 'n3'
	lab heal n3
	progress c1
	wait_for 20 can_move
	moves_after_all
}
can_move() { on n2 ms-migrate app n3 --dry-run; }

@test "refused: somebody who is not root; a pinned workload; a name nobody has" {
	run_fail on n2 setpriv --reuid 65534 --clear-groups ms-migrate app n3
	assert_match "$output" 'not permitted|ermission|root'
	run_fail on n2 ms-migrate nosuch n3
	assert_match "$output" 'nosuch'
	run_ok on n2 overlayd pin app
	run_fail on n2 ms-migrate app n3
	assert_match "$output" 'pinned'
	run_ok on n2 overlayd unpin app
	progress c1
	moves_after_all
}

@test "refused: the directory is away" {
	lab stop n1 >/dev/null
	run_fail on n2 ms-migrate app n3
	assert_match "$output" 'director'
	lab start n1 >/dev/null
	progress c1 20
	wait_for 20 can_move
	moves_after_all
}

@test "not refused: a FIFO whose reader is outside; its output goes on in the log" {
	mkfifo "$T/fifo"
	spawn reader on n2 cat "$T/fifo"
	spawn writer on n2 ip netns exec app bash -c "trap '' PIPE; while :; do echo tick; sleep 0.1; done >$T/fifo"
	wait_for 10 grep -q tick "$T/reader.out"
	run_ok on n2 ms-migrate app n3 --dry-run
	assert_match "$output" 'a FIFO to cat.[0-9]+., outside the workload'
	move n2 app n3
	finish reader
	wait_for 10 on n3 grep -q tick /run/overlayd/workloads/app/output.log
	progress c1
	client_ok c1
}
