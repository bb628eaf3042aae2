#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# A program is moved while its connect() waits (tests/lib/connecting.py), and lwIP gets the answer: the program goes on as if nothing
# had been, where it is then, or where it was
#
#	n1, n2: the program moves between them    n3: the server, and the directory

load helpers
load faults

setup_file() { fault_setup_file; }
teardown_file() { lab_down; }
setup() {
	DIR=$BATS_TEST_TMPDIR
	workload n1 app 192.168.5.2
	workload n3 far 192.168.5.5
	on n3 ip -n far route add blackhole 192.168.5.2/32 # a SYN cannot be answered
}
teardown() { fault_teardown; }

connects() { on n1 ip netns exec app ss -Htn state syn-sent | grep -q .; }
paused() { [ -e "$(root n1)/run/overlayd/fault.reached" ]; }
goes_on() { rm -f "$(root n1)/run/overlayd/fault.reached"; }

# connecting ADDR [block]: a program in app waits for its connect()
connecting() {
	spawn cli on n1 ip netns exec app python3 -S -E "$TOP/tests/lib/connecting.py" go "$1" 80 "$DIR" ${2:+"$2"}
	wait_for 10 connects
}
serves() { # BYTES
	spawn srv on n3 ip netns exec far python3 -S -E "$TOP/tests/lib/connecting.py" serve 192.168.5.5 80 "$DIR" "$1"
	wait_for 10 test -e "$DIR/serving"
}
# begin FAULT...: a move that stops while lwIP answers; now the server can be reached
begin() {
	arm n1 "src.restore pause" "$@"
	spawn mover on n1 ms-migrate app n2 --standin-after 0 --json
	wait_for 30 paused
	on n3 ip -n far route del blackhole 192.168.5.2/32
}
# the server has its connection, and all of its first words are acknowledged
answered() { [ -e "$DIR/greeted" ] && on n3 ip netns exec far ss -Htn state established '( sport = :80 )' | awk '$2 { exit 1 }'; }
said() { # BYTES: all is well at the end
	wait_for 60 test -e "$DIR/result"
	assert_eq "$(cat "$DIR/result")" "ok $1"
	finish srv none
	assert_eq "$status" 0 "$(cat "$DIR/srv.err")"
}

@test "connecting: moved, non-blocking" {
	serves 5000
	connecting 192.168.5.5
	begin
	wait_for 60 answered # it has its connection while there is nobody
	goes_on
	TIMEOUT=60 finish mover none
	assert_eq "$status $(json '"\(.taken_bytes) \(.reset_connections) \(.behind)"')" "0 5000 0 0" "$output"
	assert_eq "$(holder)" n2
	said 5000
}

@test "connecting: moved, blocking, in an IPv6 socket" {
	serves 300
	connecting ::ffff:192.168.5.5 block
	begin
	wait_for 60 answered
	goes_on
	TIMEOUT=60 finish mover none
	assert_eq "$status $(json '"\(.taken_bytes) \(.reset_connections) \(.behind)"')" "0 300 0 0" "$output"
	said 300
}

# the copy's kernel chooses its window scale anew, and the peer goes by the first SYN: what it follows from goes along
@test "connecting: moved, with a receive buffer that is the workload's own" {
	run_ok on n1 ip netns exec app sh -c 'echo 4096 131072 134217728 >/proc/sys/net/ipv4/tcp_rmem'
	refute_match "$(on n2 cat /proc/sys/net/ipv4/tcp_rmem)" 134217728
	serves 5000
	connecting 192.168.5.5
	begin
	wait_for 60 answered
	goes_on
	TIMEOUT=60 finish mover none
	assert_eq "$status $(json '"\(.taken_bytes) \(.reset_connections) \(.behind)"')" "0 5000 0 0" "$output"
	assert_eq "$(on n2 ip netns exec app cat /proc/sys/net/ipv4/tcp_rmem | xargs)" "4096 131072 134217728"
	said 5000
}

@test "connecting: the move fails, and the program goes on where it was" {
	serves 5000
	connecting 192.168.5.5 block
	begin "src.commit error"
	wait_for 60 answered
	goes_on
	TIMEOUT=60 finish mover none
	assert_eq "$status $(json '"\(.taken_bytes) \(.reset_connections)"')" "1 5000 0" "$output"
	assert_eq "$(holder)" n1
	said 5000
}

@test "connecting: moved and refused" {
	connecting 192.168.5.5
	begin
	goes_on
	TIMEOUT=60 finish mover none
	assert_eq "$status" 0 "$output"
	wait_for 60 test -e "$DIR/result"
	assert_eq "$(cat "$DIR/result")" ECONNREFUSED
}

@test "connecting: moved while nobody answers: the copy's kernel goes on asking" {
	connecting 192.168.5.5 block
	move n1 app n2 --standin-after 0
	serves 300
	on n3 ip -n far route del blackhole 192.168.5.2/32
	said 300
}
