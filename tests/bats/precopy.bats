#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# precopy.bats - memory that goes to the destination while its processes still run, and changes meanwhile

load helpers

setup_file() { lab_up 3; }
teardown_file() { lab_down; }
teardown() { drop_workloads && end_spawned; }
setup() { T=$BATS_TEST_TMPDIR; }

rounds() { grep -c "^round" "$T/$1.out" || true; }
rounds_over() { [ "$(rounds "$1")" -gt "$2" ]; }
# each of its threads has looked at all its memory since
looked_again() { # NAME THREADS
	wait_for 60 rounds_over "$1" $(($(rounds "$1") + 3 * $2))
	assert_eq "$(grep -v " 0 bad$" "$T/$1.out" || true)" "" "pages that are not what was written last"
}
precopied() { json .precopied_bytes "$T/move.json"; }

@test "precopy: memory that is written all the time, in threads, copied on write, shared: three moves" {
	local from=n1 to
	workload n1 app 192.168.5.2
	spawn rewriter on n1 ip netns exec app rewriter 24
	looked_again rewriter 4
	for to in n2 n3 n1; do
		move $from app $to
		looked_again rewriter 4
		assert_le 20000000 "$(precopied)" "bytes sent while it ran"
		from=$to
	done
}

@test "precopy: several trees, of which some are small" {
	workload n1 app 192.168.5.2
	spawn one on n1 ip netns exec app rewriter 16
	spawn two on n1 ip netns exec app rewriter 1
	spawn three on n1 ip netns exec app rewriter 8
	for p in one two three; do looked_again $p 4; done
	move n1 app n2
	for p in one two three; do looked_again $p 4; done
	assert_le 20000000 "$(precopied)" "bytes sent while they ran"
	move n2 app n1
	for p in one two three; do looked_again $p 4; done
}

@test "precopy: what does not change is sent once" {
	workload n1 app 192.168.5.2
	workload n3 far 192.168.5.5
	server n1 app srv 192.168.5.2:2000 --memory 32
	client n3 far c1 192.168.5.2:2000
	for pair in "n1 n2" "n2 n1"; do
		# shellcheck disable=SC2086
		set -- $pair
		move "$1" app "$2"
		progress c1
		assert_le 33554432 "$(precopied)" "bytes sent while it ran"
		assert_le "$(json .bytes "$T/move.json")" 44000000 "bytes sent"
		assert_eq "$(query n3 far 192.168.5.2:2000 memory_errors)" 0 "wrong pages"
	done
	client_ok c1
}

@test "precopy: a small process is not worth it" {
	workload n1 app 192.168.5.2
	server n1 app srv 192.168.5.2:2000
	move n1 app n2
	assert_eq "$(precopied)" 0 "bytes sent while it ran"
}

@test "precopy: a process that has reserved more address space than the machine has memory" {
	local gb
	gb=$(awk '/MemTotal|SwapTotal/ { kb += $2 } END { print int(kb / 1048576) + 8 }' /proc/meminfo)
	workload n1 app 192.168.5.2
	spawn rewriter on n1 ip netns exec app rewriter 16 "$gb"
	looked_again rewriter 4
	move n1 app n2
	looked_again rewriter 4
}
