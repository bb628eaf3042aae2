# SPDX-License-Identifier: Apache-2.0
# A tunstack's stand-in, request by request, for real kernel sockets: their program is stopped, stacktool takes their images, gives
# the records back by TCP_REPAIR and asks for the release. No CRIU; the sockets stay where they are.
#
#   ovl-fabric:  ve-app -- app 192.168.5.2 (slot 1), the server      hold-app == tunstack, /run/app.sock
#                ve-db  -- db  192.168.5.7 (slot 2), the clients
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

in_db() { nsenter -t "$NODE" -n -m -- ip netns exec db "$@"; }

serve() {
	spawn srv nsenter -t "$NODE" -n -m -- ip netns exec app "${PYTHON:-python3}" -S "$TOP/tests/lib/standinpeer.py" serve 192.168.5.2 80 "$DIR"
	SERVER=$SPAWNED
	wait_for 10 test -e "$DIR/serving"
}
talk() { # NAME WORDS...
	spawn "$1" nsenter -t "$NODE" -n -m -- ip netns exec db "${PYTHON:-python3}" -S "$TOP/tests/lib/standinpeer.py" talk 192.168.5.2 80 "$DIR" "$@"
	[[ " $* " == *" later "* ]] || wait_for 10 test -e "$DIR/$1.up"
}
# the server has read all that clients have said so far, and accepted all there are
_all_read() {
	! in_node ip netns exec app ss -Htn '( sport = :80 )' | awk '$2 > 0' | grep -q . &&
		! in_node ip netns exec app ss -Htln '( sport = :80 )' | awk '$2 > 0' | grep -q .
}
served() { # NAME FIELD
	wait_for 10 test -e "$DIR/served.$(cat "$DIR/$1.up")"
	jq -r ".$2" "$DIR/served.$(cat "$DIR/$1.up")"
}

# the server is stopped, somebody answers for it MS after the capture
freeze() { # MS [-syn]
	wait_for 10 _all_read
	kill -STOP "$SERVER"
	run_ok stack capture "standin${2:-}" "$SERVER" "$1"
}
live() { run_ok stack status && [ "$(state standin)" = live ]; }
# what was taken in goes into the sockets, the rest by packets; the server goes on
thaw() {
	run_ok stack park "$DIR/records" push "$SERVER" "$DIR/records" handed-back release
	assert_eq "$(state behind)" 0 "sockets left behind"
	assert_eq "$(state captured) $(state standin)" "0 off"
	kill -CONT "$SERVER"
}
# a client's socket is in STATE
peer_is() { [ "$(in_db ss -Htn "( sport = :$(cat "$DIR/$1.up") )" | awk '{ print $1 }')" = "$2" ]; }
taken_at_least() { run_ok stack status && [ "$(state taken)" -ge "$1" ]; }

@test "stand-in: a stream goes on while its server is frozen, and arrives whole" {
	spawn srv nsenter -t "$NODE" -n -m -- ip netns exec app "$BUILD/bin/ms-testsrv" --ready /run/srv.ready 192.168.5.2:80
	wait_for 10 test -s "/proc/$NODE/root/run/srv.ready"
	SERVER=$(cat "/proc/$NODE/root/run/srv.ready")
	spawn cli nsenter -t "$NODE" -n -m -- ip netns exec db "$BUILD/bin/ms-testcli" --mode upload -n 3 --rate 2 --ready /run/cli.ready 192.168.5.2:80
	wait_for 10 test -s "/proc/$NODE/root/run/cli.ready"
	for i in 1 2 3; do
		kill -STOP "$SERVER"
		run_ok stack capture standin "$SERVER" 0
		wait_for 20 taken_at_least 1500000
		thaw
	done
	finish cli
	assert_eq "$status" 0 "$output"
	assert_eq "$(json .lost)" 0
	assert_eq "$(json .errors)" 0
	finish srv
	assert_eq "$status" 0 "$output"
}

@test "stand-in: saturated both ways, frozen again and again: every byte" {
	spawn srv nsenter -t "$NODE" -n -m -- ip netns exec app "$BUILD/bin/ms-testsrv" --ready /run/srv.ready 192.168.5.2:80
	wait_for 10 test -s "/proc/$NODE/root/run/srv.ready"
	SERVER=$(cat "/proc/$NODE/root/run/srv.ready")
	spawn cli nsenter -t "$NODE" -n -m -- ip netns exec db "$BUILD/bin/ms-testcli" --mode both -n 4 --ready /run/cli.ready 192.168.5.2:80
	wait_for 10 test -s "/proc/$NODE/root/run/cli.ready"
	for i in 1 2 3 4 5 6; do
		kill -STOP "$SERVER"
		run_ok stack capture standin "$SERVER" 0
		wait_for 20 taken_at_least 100000
		thaw
	done
	finish cli
	assert_eq "$status" 0 "$output"
	assert_eq "$(json .lost)" 0
	finish srv
	assert_eq "$status" 0 "$output"
}

@test "stand-in: who closes while the server is frozen is done; the server reads all of it later" {
	serve
	talk one bytes=100000 fin
	talk two fin
	freeze 0
	wait_for 5 live
	touch "$DIR/go"
	wait_for 10 peer_is one FIN-WAIT-2
	wait_for 10 peer_is two FIN-WAIT-2
	thaw
	finish one none
	assert_eq "$status" 0
	finish two none
	assert_eq "$status" 0
	assert_eq "$(served one bytes) $(served one end)" "100006 eof"
	assert_eq "$(served two bytes) $(served two end)" "6 eof"
}

@test "stand-in: a reset reaches the server behind the bytes" {
	serve
	talk one bytes=1000 reset
	freeze 0
	wait_for 5 live
	touch "$DIR/go"
	wait_for 10 test -e "$DIR/one.sent"
	finish one none
	thaw
	assert_eq "$(served one bytes) $(served one end)" "1006 reset"
}

@test "stand-in: bytes for a socket that has said its last word itself come by packets" {
	serve
	talk one half bytes=60000 fin
	wait_for 10 peer_is one CLOSE-WAIT
	freeze 0
	wait_for 5 live
	touch "$DIR/go"
	wait_for 10 taken_at_least 60000
	thaw
	finish one none
	assert_eq "$status" 0
	assert_eq "$(served one bytes) $(served one end)" "60005 eof"
}

@test "stand-in: it keeps its hands off what it does not know, and a short freeze never sees it" {
	serve
	talk one bytes=500 fin
	freeze 60000
	assert_eq "$(state standin)" armed
	run_ok stack standin "$SERVER" 0 # again: nothing changes
	assert_eq "$(state standin)" armed
	talk two bytes=500 fin later
	touch "$DIR/go"
	wait_for 10 test -e "$DIR/one.sent"
	run_ok stack park "$DIR/records"
	test ! -s "$DIR/records"
	assert_eq "$(state answered)" 0
	run_ok stack release
	kill -CONT "$SERVER"
	for name in one two; do
		finish $name none
		assert_eq "$status" 0
	done
	# now it answers, but not for listeners: a SYN waits
	rm "$DIR/go"
	talk three bytes=500 fin
	talk four bytes=500 fin later
	freeze 0
	wait_for 5 live
	touch "$DIR/go"
	wait_for 10 peer_is three FIN-WAIT-2
	wait_for 10 held_at_least 1
	test ! -e "$DIR/four.up"
	thaw
	finish three none
	assert_eq "$status" 0
	finish four none
	assert_eq "$status" 0
}
held_at_least() { run_ok stack status && [ "$(state held)" -ge "$1" ]; }

@test "stand-in: what it has acknowledged must be handed back before a release" {
	serve
	talk one bytes=5000 fin
	freeze 0
	wait_for 5 live
	run_fail stack release
	assert_match "$output" "the stand-in is live"
	run_fail stack handed-back
	touch "$DIR/go"
	wait_for 10 taken_at_least 5000
	run_ok stack park "$DIR/records" park "$DIR/again"
	run_ok "${PYTHON:-python3}" -c '
import struct, sys
def records(path):
    data, off = open(path, "rb").read(), 0
    while off < len(data):
        n, = struct.unpack_from("<I", data, off)
        rec = bytearray(data[off + 4:off + 4 + n])
        rec[168:176] = bytes(8)	# its age
        yield bytes(rec)
        off += 4 + n
a, b = sorted(records(sys.argv[1])), sorted(records(sys.argv[2]))
assert a == b and len(a) == 1, (len(a), len(b))' "$DIR/records" "$DIR/again"
	run_fail stack release
	assert_match "$output" "not been handed back"
	run_fail stack standin "$SERVER" 0
	assert_match "$output" "the stand-in is parked"
	run_fail stack records "$DIR/records"
	assert_match "$output" "records of our own"
	run_ok stack export "$DIR/frames"
	assert_eq "$(state exported)" 0 "packets it took are not exported"
	thaw
	finish one none
	assert_eq "$status" 0
	assert_eq "$(served one bytes)" 5006
}

@test "stand-in: records outlive their tunstack, and another one goes on from them" {
	serve
	talk one bytes=200000 fin
	talk two half bytes=1000 fin
	wait_for 10 peer_is two CLOSE-WAIT
	freeze 0
	wait_for 5 live
	run_ok stack fence park "$DIR/records" quit
	wait_for 5 _gone tunstack "$STACK"
	touch "$DIR/go" # into the void: the fence stands
	stack_up
	run_ok stack capture records "$DIR/records"
	assert_eq "$(state standin) $(state sockets)" "parked 2"
	run_ok stack records "$DIR/records" resume
	assert_eq "$(state standin)" live
	wait_for 20 taken_at_least 201000
	run_ok stack park "$DIR/records" resume park "$DIR/records" unfence
	thaw
	finish one none
	assert_eq "$status" 0
	finish two none
	assert_eq "$status" 0
	assert_eq "$(served one bytes)" 200006
	assert_eq "$(served two bytes)" 1005
}

@test "stand-in: connections to a frozen listener are made at once, and accepted later" {
	serve
	talk old fin
	run_ok in_node ip netns exec app sysctl -qw net.ipv4.tcp_syncookies=1
	freeze 0 -syn
	wait_for 5 live
	for i in 1 2 3; do talk "new$i" bytes=20000 fin later; done
	talk big bytes=300000 fin later # more than is taken for somebody nobody has accepted
	touch "$DIR/go"
	for i in 1 2 3; do wait_for 10 test -e "$DIR/new$i.sent"; done
	wait_for 10 taken_at_least $((60018 + 49152))
	assert_eq "$(state made)" 4
	assert_le "$(state taken)" $((60018 + 49152 + 512)) "bytes taken" # by units of the window scale
	run_ok stack park "$DIR/records" push "$SERVER" "$DIR/records" push-new /run/netns/app "$DIR/records" handed-back release
	assert_eq "$(state behind)" 0
	kill -CONT "$SERVER"
	for i in 1 2 3; do
		finish "new$i" none
		assert_eq "$status" 0
		assert_eq "$(served "new$i" bytes) $(served "new$i" end)" "20006 eof"
	done
	finish big none
	assert_eq "$status" 0
	assert_eq "$(served big bytes)" 300006
}

@test "stand-in: a connection that its listener cannot be given is told, and ends for its client at once" {
	serve
	talk old fin
	freeze 0 -syn
	wait_for 5 live
	talk new bytes=2000 later
	touch "$DIR/go"
	wait_for 10 taken_at_least 2006
	run_ok stack park "$DIR/records" push "$SERVER" "$DIR/records" handed-back release # nobody told the kernel what to expect
	assert_eq "$(state behind)" 1
	kill -CONT "$SERVER"
	finish new none
	assert_eq "$status" 1
	assert_match "$(cat "$DIR/new.err")" "ConnectionResetError"
	finish old none
	assert_eq "$status" 0
}

@test "stand-in: what is no image, and no record, is refused" {
	serve
	talk one fin
	freeze 60000	# armed, for certain
	run_ok stack park "$DIR/none" release
	run_fail stack standin "$SERVER" 0
	assert_match "$output" "nothing is captured"
	head -c 3000 /dev/urandom >"$DIR/noise"
	"${PYTHON:-python3}" -c 'import struct, sys; sys.stdout.buffer.write(struct.pack("<I", 3000))' | cat - "$DIR/noise" >"$DIR/records"
	run_fail stack capture records "$DIR/records"
	assert_match "$output" "image 1 of those given: Bad message"
	assert_eq "$(in_node "$BUILD/bin/stacktool" /run/app.sock release | sed -nE 's/.* standin=([a-z]+).*/\1/p')" off
	kill -CONT "$SERVER"
	touch "$DIR/go"
	finish one none
	assert_eq "$status" 0
}
