# SPDX-License-Identifier: Apache-2.0
# A workload's tunstack process, in a real fabric, driven by stacktool. Each test has a node of its own (and one a second):
#
#   ovl-fabric:  ve-app -- app 192.168.5.2 (slot 1)    hold-app == tunstack, /run/app.sock
#                ve-db  -- db  192.168.5.7 (slot 2)
load helpers
load fabricnode

setup() {
	app_and_db node
	NODE=$SPAWNED
	stack_up
}
teardown() {
	stacks_down
	end_spawned
}

fab() { in_node ip -n ovl-fabric "$@"; }
rules() { fab rule | grep -cvE '^(0|32766|32767):' || true; } # of ours, how many

server_up() { # NODE
	spawn srv nsenter -t "$1" -n -m -- ip netns exec app "$BUILD/bin/ms-testsrv" --ready /run/srv.ready --udp 192.168.5.2:7 192.168.5.2:80
	wait_for 10 test -s "/proc/$1/root/run/srv.ready"
}

client_up() { # ARGS...
	spawn cli nsenter -t "$NODE" -n -m -- ip netns exec db "$BUILD/bin/ms-testcli" --ready /run/cli.ready "$@"
	wait_for 10 test -s "/proc/$NODE/root/run/cli.ready"
}

# N datagrams from db to app, while app is captured; ARGS: of ms-testcli
udp_burst() { # N [SIZE [ARGS]]
	local before
	run_ok stack status
	before=$(state held)
	spawn burst nsenter -t "$NODE" -n -m -- ip netns exec db "$BUILD/bin/ms-testcli" --mode udpflow --interval 0 --rounds "$1" \
		--size "${2:-100}" "${@:3}" 192.168.5.2:7
	wait_for 10 held_at_least $((before + $1))
}
held_at_least() { run_ok stack status && [ "$(state held)" -ge "$1" ]; }
# what was released is with the server of NODE: N datagrams
heard() { # NODE N
	run_ok in_pid "$1" ip netns exec db "$BUILD/bin/ms-testcli" --mode query 192.168.5.2:80 && [ "$(json .udp_in)" -ge "$2" ]
}

@test "tunstack: a saturated stream in both directions survives captures: every byte, no reset" {
	server_up "$NODE"
	client_up --mode both -n 4 192.168.5.2:80
	for i in 1 2 3 4 5 6 7 8; do
		run_ok stack capture
		assert_eq "$(state captured)" 1
		sleep 0.0$((i * 10 % 97))
		run_ok stack release
		assert_eq "$(state captured)" 0
		assert_eq "$(state held)" 0
		assert_eq "$(state dropped)" 0
		sleep 0.05
	done
	assert_le 1 "$(state released)" "packets released"
	run_ok fab route show table 20002
	assert_eq "$output" "" "the capture table"
	assert_eq "$(rules)" 0 "rules"
	finish cli
	assert_eq "$status" 0 "$output"
	assert_eq "$(json .lost)" 0
}

@test "tunstack: while captured nothing passes, and what waits is counted" {
	server_up "$NODE"
	client_up --mode pingpong -n 3 --interval 0 192.168.5.2:80
	run_ok stack capture capture
	assert_match "$(fab route show table 20002)" "default dev hold-app"
	local before after
	wait_for 5 held_at_least 3 # and what had been on its way is there
	before=$(in_node ip -n app -s -j link show eth0 | jq '.[0].stats64.rx.packets')
	wait_for 5 held_at_least 6 # they repeat themselves
	after=$(in_node ip -n app -s -j link show eth0 | jq '.[0].stats64.rx.packets')
	assert_eq "$after" "$before" "packets app received"
	assert_eq "$(state captured)" 1
	run_ok stack release release
	finish cli
	assert_eq "$status" 0 "$output"
}

@test "tunstack: a capture is quick" {
	best_of 5 five_captures
}
five_captures() {
	local us=() _
	for _ in 1 2 3 4 5; do
		run_ok stack capture || return 1
		us+=("${output##* }")
		run_ok stack release || return 1
	done
	echo "capture, microseconds: ${us[*]}" >&3
	assert_le "$(printf '%s\n' "${us[@]}" | sort -n | sed -n 3p)" 5000 "median capture"
}

@test "tunstack: datagrams come in order after a release" {
	server_up "$NODE"
	run_ok stack capture
	udp_burst 200 100 --answers 60 # more than a socket's receive buffer takes would be lost there
	run_ok stack release
	finish burst none
	assert_eq "$(json .rounds)" 200
	finish srv
	assert_eq "$(json .udp_in)" 200
	assert_eq "$(json .udp_reordered)" 0
	assert_eq "$(json .udp_errors)" 0
}

@test "tunstack: the hold is bounded: the newest are dropped and counted, the oldest delivered" {
	run_ok stack quit
	wait_for 5 _gone tunstack "$STACK"
	stack_up "$NODE" 70000 # fewer than a socket buffer takes
	server_up "$NODE"
	run_ok stack capture
	spawn burst nsenter -t "$NODE" -n -m -- ip netns exec db "$BUILD/bin/ms-testcli" --mode udpflow --interval 0 --rounds 1000 \
		--size 1000 192.168.5.2:7
	finish burst none # what came after the release would be heard as well
	wait_for 10 met_at_least 1000
	assert_le 700 "$(state dropped)" "packets dropped"
	assert_le "$(state bytes)" 70000
	assert_le 55000 "$(state bytes)"
	local held
	held=$(state held)
	run_ok stack release
	wait_for 10 heard "$NODE" "$held"
	finish srv
	assert_eq "$(json .udp_in)" "$held"
	assert_eq "$(json .udp_reordered)" 0
}
met_at_least() { run_ok stack status && [ $(($(state held) + $(state dropped))) -ge "$1" ]; }

@test "tunstack: held packets go to another node's tunstack, in order, before its own" {
	local there
	app_and_db there
	there=$SPAWNED
	stack_up "$there"
	server_up "$there"
	run_ok in_pid "$there" "$BUILD/bin/stacktool" /run/app.sock capture
	run_ok stack capture fence
	udp_burst 200
	finish burst none
	run_ok stack export "$BATS_TEST_TMPDIR/frames" ack 200
	assert_eq "$(state held)" 0
	run_ok in_pid "$there" "$BUILD/bin/stacktool" /run/app.sock import "$BATS_TEST_TMPDIR/frames"
	assert_eq "$(state held)" 200
	run_ok in_pid "$there" "$BUILD/bin/stacktool" /run/app.sock release
	wait_for 10 heard "$there" 200
	finish srv
	assert_eq "$(json .udp_in)" 200
	assert_eq "$(json .udp_reordered)" 0
}

@test "tunstack: packets that come while an export follows are sent as well" {
	run_ok stack capture
	udp_burst 20
	spawn follow nsenter -t "$NODE" -n -m -- "$BUILD/bin/stacktool" /run/app.sock follow "$BATS_TEST_TMPDIR/frames" 50
	wait_for 5 test -s "$BATS_TEST_TMPDIR/frames"
	run_fail stack export "$BATS_TEST_TMPDIR/other"
	assert_match "$output" "another client is exporting"
	finish burst none
	udp_burst 30
	finish follow none
	assert_eq "$status" 0 "$output"
	assert_eq "$(state exported)" 50
	run_ok stack status
	assert_le 50 "$(state held)" "nothing was acknowledged"
}

@test "tunstack: an export larger than a connection's queue comes whole and in order" {
	run_ok stack capture
	udp_burst 6000 1400
	run_ok stack export "$BATS_TEST_TMPDIR/frames"
	local n
	n=$(state exported)
	assert_le 6000 "$n"
	run_ok "${PYTHON:-python3}" -c '
import struct, sys
data, off, last = open(sys.argv[1], "rb").read(), 0, 0
while off < len(data):
    size, = struct.unpack_from("<I", data, off)
    length, seq = struct.unpack_from("<4xIQ", data, off + 4)
    assert seq == last + 1 and size == 40 + length, (last, seq, size, length)
    last, off = seq, off + 4 + size
print(last)' "$BATS_TEST_TMPDIR/frames"
	assert_eq "$output" "$n"
	run_ok stack export "$BATS_TEST_TMPDIR/again" ack-stop "$n"
	assert_eq "$(state held)" 0
	finish burst none
}

@test "tunstack: a client that dies in the middle of an export loses nothing" {
	server_up "$NODE"
	run_ok stack capture
	udp_burst 200
	spawn dying nsenter -t "$NODE" -n -m -- "$BUILD/bin/stacktool" /run/app.sock export "$BATS_TEST_TMPDIR/frames" ack 50 hang
	wait_for 5 grep -qx hanging "$BATS_TEST_TMPDIR/dying.out"
	finish dying KILL
	run_ok stack status
	assert_le 150 "$(state held)"
	run_ok stack export "$BATS_TEST_TMPDIR/frames"
	assert_le 150 "$(state exported)"
	run_ok stack release
	finish burst none
	wait_for 10 heard "$NODE" 150
	finish srv
	assert_eq "$(json .udp_in)" 150
	assert_eq "$(json .udp_reordered)" 0
}

@test "tunstack: what is not for this workload, or no packet at all, is refused and told" {
	run_ok stack capture
	udp_burst 5
	run_ok stack export "$BATS_TEST_TMPDIR/frames"
	run_fail stack garbage
	assert_match "$output" "1 packets were not taken in: Bad message"
	run_ok in_node "$BUILD/bin/stacktool" spawn db 2 192.168.5.7 /run/db.sock /run/db.log 0 /run/netns/ovl-fabric
	echo "$output" >>"$BATS_TEST_TMPDIR/stacks"
	run_fail in_node "$BUILD/bin/stacktool" /run/db.sock capture import "$BATS_TEST_TMPDIR/frames"
	assert_match "$output" "5 packets were not taken in: Cannot assign requested address"
	assert_eq "$(state held)" 0
}

@test "tunstack: when it is killed the workload is direct again" {
	server_up "$NODE"
	client_up --mode pingpong -n 2 --interval 1 192.168.5.2:80
	run_ok stack capture
	wait_for 5 held_at_least 2
	kill -9 "$STACK"
	wait_for 5 _gone tunstack "$STACK"
	run_ok fab route show table 20002
	assert_eq "$output" ""
	run_fail fab link show hold-app
	assert_eq "$(rules)" 3 "rules without a meaning"
	finish cli
	assert_eq "$status" 0 "$output"
	stack_up
	assert_eq "$(rules)" 0 "rules once the next one has started"
}

@test "tunstack: when it is killed while fenced nothing passes, until a new one lifts the fence" {
	server_up "$NODE"
	client_up --mode pingpong -n 2 --interval 1 192.168.5.2:80
	run_ok stack capture fence
	assert_eq "$(state fenced)" 1
	kill -9 "$STACK"
	wait_for 5 _gone tunstack "$STACK"
	assert_match "$(fab route show table 20002)" "blackhole default"
	run_rc 1 in_node ip netns exec db bash -c 'timeout 0.4 bash -c "exec 3<>/dev/tcp/192.168.5.2/80" || exit 1'
	stack_up
	assert_eq "$(rules)" 3 "rules of the fence"
	run_ok stack unfence
	assert_eq "$(state fenced)" 0
	assert_eq "$(rules)" 0 "rules of no fence"
	run_ok in_node ip netns exec db timeout 60 bash -c 'exec 3<>/dev/tcp/192.168.5.2/80'
	finish cli
	assert_eq "$status" 0 "$output"
}

@test "tunstack: a release forgets what the workload itself had sent, when told so" {
	server_up "$NODE"
	run_ok stack capture
	in_node ip netns exec app timeout 5 bash -c 'for i in 1 2 3 4 5; do echo x >/dev/udp/192.168.5.7/9; done'
	wait_for 5 held_at_least 5
	local before
	before=$(in_node ip -n db -s -j link show eth0 | jq '.[0].stats64.rx.packets')
	run_ok stack release-drop
	assert_eq "$(in_node ip -n db -s -j link show eth0 | jq '.[0].stats64.rx.packets')" "$before" "packets db received"
}

@test "tunstack: it lives alone, without privileges it does not need, and ends on request" {
	assert_eq "$(stat -c %a "/proc/$NODE/root/run/app.sock")" 600
	local st
	st=$(cat "/proc/$STACK/status")
	assert_match "$st" "NoNewPrivs:.1"
	assert_match "$st" "CapEff:.0000000000005000" # NET_ADMIN, IPC_LOCK
	assert_match "$st" "PPid:.1[^0-9]"
	run_fail in_node "$BUILD/bin/stacktool" spawn app 1 192.168.5.2 /run/second.sock /run/second.log 0 /run/netns/ovl-fabric
	assert_match "$output" "hold-app.*busy"
	run_ok stack quit
	wait_for 5 _gone tunstack "$STACK"
	run_fail fab link show hold-app
	run_fail test -e "/proc/$NODE/root/run/app.sock"
}

@test "tunstack: wrong usage is told" {
	run_rc 2 "$BUILD/bin/tunstack" --name app
	assert_match "$output" "usage:"
	run_rc 2 "$BUILD/bin/tunstack" --name app --slot 5000 --vips 192.168.5.2 --socket /x
	assert_match "$output" "--slot 5000: bad value"
	run_rc 2 "$BUILD/bin/tunstack" --name app --slot 1 --vips 192.168.5 --socket /x
	assert_match "$output" "--vips 192.168.5: bad value"
}
