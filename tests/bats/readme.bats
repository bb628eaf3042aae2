#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# What README.md tells people to type is typed here, verbatim, on nodes n1 and n2; `make`s are done by whoever runs the tests

load helpers

setup_file() { lab_up 2 --stopped; }
teardown_file() { lab_down; }
teardown() { drop_workloads && end_spawned; }

# block WORD: the first indented block of README.md whose first line begins with WORD; comments cut off
block() {
	awk -v word="$1" '
		/^    / { if (!in_block && !found && index($0, "    " word) == 1) in_block = 1
			  if (in_block) { found = 1; sub(/^    /, ""); sub(/ +#.*/, ""); print } next }
		{ in_block = 0 }' "$TOP/README.md"
}

@test "README: the commands of a cluster" {
	mapfile -t cmd < <(block "overlayd start")
	assert_eq "${#cmd[@]}" 4 "commands in the block"
	assert_eq "${cmd[3]}" "ms-migrate PID host" "the last one"

	run_ok on n1 bash -c "${cmd[0]}"
	run_ok on n2 bash -c "${cmd[0]}"
	wait_for 15 on n1 overlayd status
	wait_for 15 on n2 overlayd status
	run_ok on n1 bash -c "${cmd[1]}"

	cd "$BATS_TEST_TMPDIR"
	printf '#!/bin/sh\nexec ms-testsrv --ready %s/ready 192.168.5.2:2000\n' "$BATS_TEST_TMPDIR" >server
	chmod +x server
	spawn server on n1 bash -c "exec ${cmd[2]}"
	wait_for 10 test -e ready
	client n2 - c1 192.168.5.2:2000

	TIMEOUT=60 run_ok on n1 bash -c "$(sed "s/PID/$(cat ready)/; s/host/n2/" <<<"${cmd[3]}")"
	progress c1
	client_ok c1
	assert_eq "$(where n1 app)" n2 "the node of app"
}

@test "README: the certificates of a cluster" {
	mapfile -t cmd < <(block "scripts/ms-ca")
	assert_eq "${#cmd[@]}" 2 "commands in the block"
	cd "$TOP"
	MS_CA_DIR=$BATS_TEST_TMPDIR/ca run_ok bash -c "${cmd[0]} && ${cmd[1]}"
	[ -f "$BATS_TEST_TMPDIR/ca/n1.key" ]
}

@test "README: the lab, on one machine" {
	# the first block that begins with make is the two commands' own; the lab's begins with a bare "make"
	mapfile -t cmd < <(awk '/^    make$/ { on = 1; next } on && /^    / { sub(/^    /, ""); sub(/ +#.*/, ""); print; next } { on = 0 }' \
		"$TOP/README.md")
	assert_eq "${cmd[0]}" "scripts/lab up 3" "the first one"
	cd "$TOP"
	export LAB_NAME=$TAG-readme
	local c
	for c in "${cmd[@]}"; do
		TIMEOUT=60 run_ok bash -c "$c" || { lab down --kill; return 1; }
	done
	[ ! -e "/tmp/ms-lab-$TAG-readme" ]
}

@test "README: the demo" {
	mapfile -t cmd < <(block "make demo")
	assert_eq "${cmd[0]}" "make demo" "the first one"
	run_ok make -n -C "$TOP" BUILD="$BUILD" demo
	assert_match "$output" "scripts/demo"
	DEMO_MOVES=1 TIMEOUT=600 run_ok "$TOP/scripts/demo"
	assert_match "$output" "demo: 3 nodes, 8 connections, 1 moves, 0 bytes lost"
}
