#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# The checking server and client themselves: good streams pass, and each kind of damage is noticed

load helpers

setup_file() { lab_up 1 --bare; }
teardown_file() { lab_down; }
teardown() { end_spawned; }

setup() {
	spawn srv on n1 ms-testsrv --ready "$BATS_TEST_TMPDIR/ready" --memory 1 --udp 127.0.0.1:5001 127.0.0.1:5000
	wait_for 5 test -e "$BATS_TEST_TMPDIR/ready"
}

cli() { TIMEOUT=20 _run on n1 ms-testcli "$@"; }

@test "ms-testcli: every mode passes on a good path" {
	local mode
	for mode in upload download both; do
		cli --mode $mode -n 3 --total 3000017 127.0.0.1:5000
		assert_eq "$status $(json '"\(.errors) \(.lost)"')" "0 0 0" "$mode: $output"
	done
	cli -n 3 --rounds 20 --size 100003 127.0.0.1:5000
	assert_eq "$status $(json '"\(.rounds) \(.bytes_received)"')" "0 60 6000180" "pingpong: $output"
	cli --mode udp --rounds 20 127.0.0.1:5001
	assert_eq "$status $(json '"\(.rounds) \(.lost) \(.reordered)"')" "0 20 0 0" "udp: $output"
	cli --mode query 127.0.0.1:5000
	assert_eq "$(json '"\(.errors) \(.lost) \(.memory_errors) \(.udp_in)"')" "0 0 0 20" "server: $output"
}

@test "ms-testcli: a byte flipped, dropped or repeated on the way is noticed" {
	local what
	for what in flip drop repeat; do
		spawn relay on n1 python3 "$TOP/tests/lib/mangle.py" 5100 5000 $what 70001
		wait_for 5 listens
		cli --mode download --total 300007 127.0.0.1:5100
		assert_eq "$status" 1 "exit status after $what: $output"
		[ "$(json '.errors + .lost')" -gt 0 ] || fail "not noticed: $what" "$output"
		finish relay none
	done
}
listens() { on n1 ss -Hltn 'sport = :5100' | grep -q .; }

@test "ms-testcli: a connection that is closed is a lost one" {
	spawn relay on n1 python3 "$TOP/tests/lib/mangle.py" 5100 5000 close 70001
	wait_for 5 listens
	cli --mode download --seconds 5 127.0.0.1:5100
	assert_eq "$status $(json .lost)" "1 1" "$output"
}

# the server is stopped until its client has heard nothing for so long, and until it has heard again
silence() { # MS
	local pid was
	pid=$(cat "$BATS_TEST_TMPDIR/ready")
	kill -STOP "$pid"
	wait_for 10 silent_for "$1"
	was=$(jq .rounds "$BATS_TEST_TMPDIR/c.json")
	kill -CONT "$pid"
	wait_for 10 more_rounds "$was"
}
silent_for() { jq -e ".longest_gap_ms >= $1" "$BATS_TEST_TMPDIR/c.json"; }
more_rounds() { jq -e ".rounds > $1" "$BATS_TEST_TMPDIR/c.json"; }

@test "ms-testcli: silence is measured" {
	spawn c on n1 ms-testcli --ready "$BATS_TEST_TMPDIR/c.ready" --status "$BATS_TEST_TMPDIR/c.json" 127.0.0.1:5000
	wait_for 5 test -e "$BATS_TEST_TMPDIR/c.ready"
	silence 300
	finish c
	assert_eq "$status" 0 "$output"
	assert_le 300 "$(json .longest_gap_ms)" "longest gap of a server stopped for more than that"
}

@test "ms-churn: every kind of end passes on a good path, and the server counts the resets" {
	TIMEOUT=30 _run on n1 ms-churn --threads 6 --seconds 2 127.0.0.1:5000
	assert_eq "$status $(json '"\(.errors) \(.lost)"')" "0 0 0" "$output"
	assert_eq "$(json '[.u, .s, .r, .e, .q] | map(. > 0) | all')" true "kinds: $output"
	local resets
	resets=$(json .r)
	wait_for 10 heard_resets "$resets"	# the last one may still be in its queue
	assert_eq "$(json '"\(.errors) \(.lost) \(.resets)"')" "0 0 $resets" "server: $output"
}
heard_resets() { cli --mode query 127.0.0.1:5000 && [ "$(json .resets)" -ge "$1" ]; }

@test "ms-churn: a byte flipped or dropped on the way is noticed" {
	local what
	for what in flip drop; do
		spawn relay on n1 python3 "$TOP/tests/lib/mangle.py" 5100 5000 $what 70001
		wait_for 5 listens
		TIMEOUT=30 _run on n1 ms-churn --threads 1 --seconds 1 --kinds s --max 2000 127.0.0.1:5100
		assert_eq "$status" 1 "exit status after $what: $output"
		assert_match "$(json .first_error)" "wrong bytes" "noticed: $what"
		finish relay
	done
}

@test "ms-testcli: gaps are written down, and probes of keepalive are sent" {
	spawn c on n1 ms-testcli --keepalive 1 --gaps "$BATS_TEST_TMPDIR/gaps" --ready "$BATS_TEST_TMPDIR/c.ready" \
		--status "$BATS_TEST_TMPDIR/c.json" 127.0.0.1:5000
	wait_for 5 test -e "$BATS_TEST_TMPDIR/c.ready"
	wait_for 5 has_keepalive	# a moment ago it may have had the timer of a segment
	silence 100
	finish c
	assert_eq "$status" 0 "$output"
	assert_le 1 "$(awk '$2 - $1 >= 100000' "$BATS_TEST_TMPDIR/gaps" | wc -l)" "$(cat "$BATS_TEST_TMPDIR/gaps")"
}
has_keepalive() { on n1 ss -Hton 'dport = :5000' | grep -q 'timer:(keepalive'; }

@test "ms-testcli: wrong usage and a server that is not there are told with exit status 2" {
	cli --mode wrong 127.0.0.1:5000
	assert_eq "$status" 2
	cli 127.0.0.1:5000 more
	assert_eq "$status" 2
	cli 127.0.0.1:5999
	assert_eq "$status" 2
	assert_match "$output" "cannot connect"
}
