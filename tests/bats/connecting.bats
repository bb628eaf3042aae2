# SPDX-License-Identifier: Apache-2.0
# A program is frozen while its connect() waits: the stand-in gets the answer in its place, and what the server then says
# (tests/lib/connecting.py). No CRIU here: the socket stays; tests/bats/connecting_move.bats has moves.
#
#   ovl-fabric:  ve-app -- app 192.168.5.2 (slot 1), the client      hold-app == tunstack, /run/app.sock
#                ve-db  -- db  192.168.5.7 (slot 2), the server
load helpers
load fabricnode

setup() {
	DIR=$BATS_TEST_TMPDIR
	app_and_db node
	NODE=$SPAWNED
	run_ok in_node $FABRICTOOL activate app 1 192.168.5.2
	run_ok in_node $FABRICTOOL activate db 2 192.168.5.7
	stack_up
}

teardown() {
	if [ -z "${BATS_TEST_COMPLETED:-}" ]; then cat "/proc/$NODE/root/run/app.log" "$DIR"/*.err >&2; fi
	stacks_down
	end_spawned
}

program() { # NAME NETNS ARGS...
	spawn "$1" nsenter -t "$NODE" -n -m -- ip netns exec "$2" "${PYTHON:-python3}" -S "$TOP/tests/lib/connecting.py" "${@:3}"
}
serve() { # BYTES
	program srv db serve 192.168.5.7 80 "$DIR" "$1"
	wait_for 10 test -e "$DIR/serving"
}
_connects() { in_node ip netns exec app ss -Htn state syn-sent | grep -q .; }
at_least() { run_ok stack status && [ "$(state "$1")" -ge "$2" ]; }
live() { run_ok stack status && [ "$(state standin)" = live ]; }

# the program connects, into a capture, and is frozen: its SYN is held
connect_and_freeze() { # ADDR [block]
	run_ok stack capture
	program cli app go "$1" 80 "$DIR" "${2:-}"
	wait_for 10 _connects
	CLIENT=$(cat "$DIR/connecting")
	kill -STOP "$CLIENT"
}
# nobody waits for its answer any more, the program goes on
thaw() {
	run_ok stack park "$DIR/records" push "$CLIENT" "$DIR/records" handed-back release
	assert_eq "$(state behind) $(state captured) $(state standin)" "0 0 off"
	kill -CONT "$CLIENT"
}
all_said() { # BYTES
	finish cli none
	assert_eq "$status $(cat "$DIR/result")" "0 ok $1"
	finish srv none
	assert_eq "$status" 0
	test -e "$DIR/served"
}

answered() { # ADDR BYTES [block]
	serve "$2"
	connect_and_freeze "$1" "${3:-}"
	run_ok stack standin "$CLIENT" 0
	wait_for 10 test -e "$DIR/greeted"
	wait_for 10 at_least taken "$2"
	thaw
	all_said "$2"
}

@test "connecting: the answer comes while the program is frozen, and the server's first words" { answered 192.168.5.7 300; }
@test "connecting: the same with a connect() that blocks" { answered 192.168.5.7 5000 block; }
@test "connecting: the same in an IPv6 socket" { answered ::ffff:192.168.5.7 5000; }

@test "connecting: a server that says more than a SYN allows" {
	serve 400000
	connect_and_freeze 192.168.5.7
	run_ok stack standin "$CLIENT" 0
	wait_for 10 at_least taken 50000
	assert_le "$(state taken)" 65535 "bytes taken in"
	thaw
	all_said 400000
}

@test "connecting: a SYN that was lost is repeated" {
	serve 300
	run_ok in_node ip -n db route add blackhole 192.168.5.2/32 # it has no way to answer
	connect_and_freeze 192.168.5.7
	run_ok stack standin "$CLIENT" 0
	wait_for 10 at_least answered 1
	assert_eq "$(state taken)" 0
	run_ok in_node ip -n db route del blackhole 192.168.5.2/32
	wait_for 60 test -e "$DIR/greeted"
	thaw
	all_said 300
}

@test "connecting: a refusal is the program's to hear" {
	connect_and_freeze 192.168.5.7
	run_ok stack standin "$CLIENT" 0
	wait_for 10 live
	run_ok stack park "$DIR/records" resume
	thaw
	finish cli none
	assert_eq "$status $(cat "$DIR/result")" "0 ECONNREFUSED"
}

@test "connecting: nobody answers: the kernel goes on asking" {
	run_ok in_node ip -n db route add blackhole 192.168.5.2/32
	connect_and_freeze 192.168.5.7 block
	run_ok stack standin "$CLIENT" 0
	wait_for 10 live
	thaw
	serve 300
	run_ok in_node ip -n db route del blackhole 192.168.5.2/32
	all_said 300
}

@test "connecting: records of it outlive their tunstack" {
	serve 2000
	connect_and_freeze 192.168.5.7
	run_ok stack standin "$CLIENT" 0
	wait_for 10 at_least taken 2000
	run_ok stack park "$DIR/records" resume park "$DIR/records" resume
	thaw
	all_said 2000
}
