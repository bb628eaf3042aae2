# SPDX-License-Identifier: Apache-2.0
# ms-sockets on one socket of each kind (tests/lib/socketzoo.py), in a network namespace of its own.
load helpers

setup() {
	need_root
	mkfifo "$BATS_TEST_TMPDIR/stop"
	spawn zoo unshare -n -p -f --mount-proc sh -c "ip link set lo up && exec '${PYTHON:-python3}' '$TOP/tests/lib/socketzoo.py' <>'$BATS_TEST_TMPDIR/stop'"
	wait_for 10 grep -qx ready "$BATS_TEST_TMPDIR/zoo.out"
	ZOO=$(pgrep -P "$SPAWNED")
}

teardown() { end_spawned; }

sock() { # JQ: of the sockets' list
	jq -c "[.sockets[] | $1]" <<<"$output"
}

@test "ms-sockets: JSON: every socket once, with owner as the process itself sees it" {
	run_ok ms-sockets --json "$ZOO"
	assert_eq "$(json .pid)" "$ZOO"
	assert_eq "$(json .exact)" false
	assert_eq "$(json .other_sockets)" 2
	assert_eq "$(sock 'select(.state == "LISTEN") | .local' | jq -c sort)" '["127.0.0.1:4000","127.0.0.1:4001","[::1]:6000"]'
	assert_eq "$(sock 'select(.local == "127.0.0.1:4000" and .state == "LISTEN") | [.accept_queue, .backlog, .pid, .options.SO_REUSEADDR]')" '[[1,9,1,1]]'
	assert_eq "$(sock 'select(.rcvq_len == 10) | [.state, .local, .pid, .options.TCP_USER_TIMEOUT]' | jq -c '.[0][0:2] + .[0][3:]')" '["ESTABLISHED","127.0.0.1:4000",4242]'
	assert_eq "$(sock 'select(.protocol == "udp") | [.local, .remote, .state]')" '[["127.0.0.1:5000",null,"CLOSE"]]'
	assert_eq "$(json '[.sockets[] | select(.inode != 0) | .inode] | (length == (unique | length))')" true "shared sockets once"
	assert_eq "$(sock 'select(.flags | index("exact")) | .local')" '[]'
}

@test "ms-sockets: those without a descriptor are shown too" {
	run_ok ms-sockets --json "$ZOO"
	assert_eq "$(sock 'select(.state == "FIN_WAIT1") | [.local, .pid, .fd, (.sndq_len > 1000)]')" '[["127.0.0.1:4001",null,null,true]]'
	assert_eq "$(sock 'select(.state == "ESTABLISHED" and .inode == 0) | .local')" '["127.0.0.1:4000"]' "not accepted"
}

@test "ms-sockets --exact: sequence numbers of both ends agree, and the sockets go on" {
	run_ok ms-sockets --json --exact "$ZOO"
	assert_eq "$(json '[.sockets[] | select(.rcvq_len == 10)][0] as $s |
		[.sockets[] | select(.local == $s.remote)][0] as $c |
		[$s.rcv_nxt == $c.snd_nxt, $c.rcv_nxt == $s.snd_nxt, $c.snd_una == $c.write_seq] | all')" true
	assert_eq "$(json '[.sockets[] | select(.rcvq_len == 10)][0].rcvq_hash')" "$(printf 0123456789 | sha256sum | cut -d' ' -f1)"
	assert_eq "$(sock 'select(.local == "127.0.0.1:4000" and .state == "LISTEN") | .options.SO_REUSEADDR')" '[1]'
	run_ok ms-sockets --json "$ZOO"
	refute_match "$output" in-repair
}

@test "ms-sockets: a table for people" {
	run_ok ms-sockets "$ZOO"
	assert_match "${lines[0]}" "^PROTO +STATE +RECV-Q +SEND-Q +LOCAL +REMOTE +PID/FD +DETAIL"
	assert_match "$output" "tcp +LISTEN +1 +0 +127.0.0.1:4000 +- +1/[0-9]+ +backlog 9"
	assert_match "$output" "tcp6 +LISTEN +0 +0 +\[::1\]:6000"
	assert_match "$output" "udp +CLOSE +0 +0 +127.0.0.1:5000 +-"
	assert_match "$output" "FIN_WAIT1 .* no descriptor"
	assert_match "$output" "2 sockets of other kinds"
	run_ok ms-sockets --exact "$ZOO"
	assert_match "$output" "una [0-9]+ nxt [0-9]+ rcv [0-9]+ wnd [0-9]+/[0-9]+"
}

@test "ms-sockets: wrong usage, no such process" {
	run_rc 2 ms-sockets
	assert_match "$output" "usage:"
	run_rc 2 ms-sockets 12x
	run_rc 2 ms-sockets --what 1
	run_rc 1 ms-sockets 4194303
	assert_match "$output" "pid 4194303: no such process"
	run_ok ms-sockets --help
}
