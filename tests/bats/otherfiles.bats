#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# otherfiles.bats - moves between nodes that do not see the same files, and files whose other end is outside
#
#	n1 (directory)    n2: the workload    n3: where it goes        a client on n1 that checks every byte, throughout

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
	drop_workloads && end_spawned
	on n3 umount "$T" 2>/dev/null || true
}

is_ready() { grep -q '^ready' "$T/$1.out"; }

# refused REGEX...: exit status 3, each text is told; and the connection goes on
refused() {
	local text
	TIMEOUT=60 run_rc 3 on n2 ms-migrate app n3
	for text in "$@"; do
		assert_match "$output" "$text"
	done
	progress c1
}

@test "other files: told one by one until all fit; a copy of the same build is as good as the file itself" {
	local f pid
	cp "$BUILD/bin/situation" "$T/prog"
	spawn prog on n2 ip netns exec app "$T/prog" plain
	wait_for 10 is_ready prog
	pid=$(awk '/^ready/ { print $2 }' "$T/prog.out")
	on n3 mount -t tmpfs none "$T"
	refused "n3: $T/prog is missing .prog.$pid. needs it" \
		"n3: $T/srv.out, which ms-testsrv.[0-9]+. was started with, is missing: create it there"
	on n3 sh -c "head -c 1000 '$BUILD/bin/situation' >'$T/prog'; chmod 755 '$T/prog'"
	refused "n3: $T/prog has 1000 bytes, $(stat -c %s "$BUILD/bin/situation") at n2"
	on n3 cp "$BUILD/bin/situation" "$T/prog"
	on n3 chmod 700 "$T/prog"
	refused "n3: $T/prog has mode 0700, 0755 at n2"
	on n3 chmod 755 "$T/prog"
	for f in srv.out srv.err prog.out prog.err; do
		on n3 touch "$T/$f"
	done
	refused "n3: $T/prog.out has 0 bytes, $(stat -c %s "$T/prog.out") at n2: copy it over"
	on n3 truncate -s "$(stat -c %s "$T/prog.out")" "$T/prog.out"
	move n2 app n3
	progress c1
	client_ok c1
}

@test "other files: a FIFO whose reader is outside; its output goes on in the log" {
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
