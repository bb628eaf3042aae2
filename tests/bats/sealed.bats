#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# sealed.bats - what goes between nodes is encrypted, only genuine datagrams are taken, keys come and go unnoticed
#
# The daemons' configuration has `rekey = 1s`, so each test lives through several keys, but for those that make datagrams of their own.

load helpers

MARK=the-quick-brown-fox-jumps-over-the-lazy-dog

setup_file() {
	lab_up 2
	for n in n1 n2; do tunnel_conf $n "rekey = 1s"; done
}
teardown_file() { lab_down; }
teardown() { drop_workloads && end_spawned; }

wait_ready() { wait_for 15 on "$1" overlayd status; }

tunnel_conf() { # node settings: its daemon starts again with `tunnel { settings }`
	local conf=/tmp/ms-lab-$LAB_NAME/nodes/$1/etc/overlayd.conf
	sed -i '/^tunnel {/d' "$conf"
	echo "tunnel { $2 }" >>"$conf"
	run_ok on "$1" overlayd stop
	run_ok on "$1" overlayd start
	wait_ready "$1"
}

peer_of() { # node peer filter
	on "$1" overlayd status --json | jq -r ".peers[] | select(.name == \"$2\") | $3"
}
drops() { # node reason
	on "$1" overlayd status --json | jq -r ".fastpath.drops.\"$2\" // 0"
}
drops_are() { [ "$(drops "$1" "$2")" -eq "$3" ]; }

# one JSON line per tunnel datagram seen on eth0 of NODE: direction, bytes as hex. All that passed before it is told to end.
sniffer() { # node name
	cat >"$BATS_TEST_TMPDIR/sniff.py" <<-'PY'
		import json, signal, socket
		s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)); s.bind(("eth0", 0))
		s.setsockopt(socket.SOL_SOCKET, 33, 64 << 20) # SO_RCVBUFFORCE: this program may be late
		signal.signal(signal.SIGTERM, lambda *_: s.setblocking(False))
		print("sniffing", flush=True)
		while True:
		    try: d, who = s.recvfrom(65536)
		    except BlockingIOError: break
		    if d[12:14] != b"\x08\x00" or d[23] != 17: continue
		    u = d[14 + (d[14] & 15) * 4:]
		    if 7470 not in (int.from_bytes(u[0:2], "big"), int.from_bytes(u[2:4], "big")): continue
		    print(json.dumps({"out": who[2] == 4, "data": u[8:].hex()}), flush=True)
	PY
	spawn "$2" on "$1" python3 -u "$BATS_TEST_TMPDIR/sniff.py"
	wait_for 10 grep -q sniffing "$BATS_TEST_TMPDIR/$2.out"
}

# marked text from `one` on n1 to `two` on n2, by UDP datagrams and a TCP stream
say_marked() {
	spawn listen on n2 ip netns exec two python3 -c "
import socket
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(('192.168.5.3', 7000)); u.settimeout(60)
l = socket.create_server(('192.168.5.3', 7000)); print('listening', flush=True)
s, _ = l.accept(); n = 0
while d := s.recv(65536): n += len(d)
assert u.recv(100).decode() == '$MARK'
print('got', n)"
	wait_for 10 grep -q listening "$BATS_TEST_TMPDIR/listen.out"
	run_ok on n1 ip netns exec one python3 -c "
import socket
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.sendto(b'$MARK', ('192.168.5.3', 7000))
s = socket.create_connection(('192.168.5.3', 7000), 60); s.sendall(b'$MARK' * 5000); s.close()"
	finish listen none
	assert_eq "$output" "listening
got $((5000 * ${#MARK}))"
}

# datagrams of NODE's capture that have the mark in clear, and how many there are
in_clear() { # name
	finish "$1"
	python3 - "$BATS_TEST_TMPDIR/$1.out" "$MARK" <<-'PY'
		import json, sys
		d = [bytes.fromhex(json.loads(l)["data"]) for l in open(sys.argv[1]) if l.startswith("{")]
		m = sys.argv[2][5:25].encode()
		print(sum(m in x for x in d), sum(bool(x[2] & 2) for x in d) == len(d) and "sealed", sum(map(len, d)) > 200000)
	PY
}

@test "sealed: nothing that is said between nodes can be read on the wire" {
	workload n1 one 192.168.5.2
	workload n2 two 192.168.5.3
	sniffer n1 wire
	say_marked
	assert_eq "$(in_clear wire)" "0 sealed True" "in clear, flags, all of it seen"
	assert_eq "$(on n1 overlayd status --json | jq .encrypted)" true
	assert_eq "$(peer_of n1 n2 .tunnel.encrypted)" true
	assert_match "$(peer_of n1 n2 .tunnel.cipher)" "^(aes-128-gcm|chacha20-poly1305)$"
	assert_eq "$(peer_of n1 n2 .tunnel.cipher)" "$(peer_of n2 n1 .tunnel.cipher)" "cipher at both ends"
	run_ok on n1 overlayd status
	assert_match "$output" "tunnel encrypted"
}

@test "sealed: strangers' and forged datagrams are dropped, counted by reason, and not answered" {
	local before n
	# one key throughout: what is forged below begins with a datagram that was genuine a moment ago
	for n in n1 n2; do tunnel_conf $n "rekey = 60m"; done
	workload n1 one 192.168.5.2
	workload n2 two 192.168.5.3
	wait_for 10 on n1 ip netns exec one ping -c 1 -W 2 192.168.5.3
	sniffer n1 wire
	run_ok on n1 ip netns exec one ping -c 3 -i 0.05 -W 20 192.168.5.3
	finish wire
	before=$(drops n2 no-key)
	# its own newest datagrams, sent once more
	cat >"$BATS_TEST_TMPDIR/forge.py" <<-'PY'
		import json, socket, struct, sys
		d = [json.loads(l) for l in open(sys.argv[1]) if l.startswith("{")]
		own = [bytes.fromhex(x["data"]) for x in d if x["out"]][-1]
		def raw(payload, sport):
		    u = struct.pack("!HHHH", sport, 7470, 8 + len(payload), 0) + payload
		    h = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(u), 1, 0, 64, 17, 0,
		        socket.inet_aton("10.77.0.1"), socket.inet_aton("10.77.0.2"))
		    s.sendto(h + u, ("10.77.0.2", 0))
		s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
		answer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); answer.bind(("10.77.0.1", 9999)); answer.settimeout(0.5)
		raw(own, 7470)                                        # replayed
		raw(own[:8] + (1 << 20).to_bytes(8, "big") + own[16:], 7470)   # another counter
		raw(own[:-1] + bytes([own[-1] ^ 1]), 7470)            # replayed and changed: not looked at
		raw(own, 9999)                                        # from elsewhere
		raw(own[:6] + bytes([own[6] ^ 0x80]) + own[7:], 7470) # another key
		inner = bytes.fromhex("4500001c000100004001") + bytes(2) + socket.inet_aton("192.168.5.2") + socket.inet_aton("192.168.5.3") + bytes(8)
		raw(bytes([1, 1]) + bytes(14) + inner, 7470)          # plaintext
		raw(own[:30], 7470)                                   # too short for its tag
		raw(b"hello", 9999)
		try: print("answered", answer.recv(100))
		except TimeoutError: print("silence")
	PY
	run_ok on n1 python3 "$BATS_TEST_TMPDIR/forge.py" "$BATS_TEST_TMPDIR/wire.out"
	assert_eq "$output" silence
	wait_for 5 drops_are n2 replay 2
	assert_eq "$(drops n2 not-authentic)" 1 "not authentic"
	assert_eq "$(drops n2 plaintext-refused)" 1 "plaintext"
	assert_eq "$(drops n2 no-key)" $((before + 2)) "unknown keys"
	run_ok on n1 ip netns exec one ping -c 3 -i 0.05 -W 20 192.168.5.3
	for n in n1 n2; do tunnel_conf $n "rekey = 1s"; done
}

@test "sealed: a new key every second under traffic, and nothing is lost" {
	workload n1 one 192.168.5.2
	workload n2 two 192.168.5.3
	wait_for 10 on n1 ip netns exec one ping -c 1 -W 2 192.168.5.3
	local keys epoch n wrong=()
	for n in n1 n2; do wrong+=("$(drops $n not-authentic) $(drops $n key-ended)"); done
	keys=$(peer_of n1 n2 .tunnel.keys) epoch=$(peer_of n1 n2 .tunnel.epoch)
	spawn pings on n1 ip netns exec one ping -n -i 0.01 192.168.5.3
	wait_for 20 keys_are_over $((keys + 5))
	pings_whole pings
	[ "$(peer_of n1 n2 .tunnel.epoch)" != "$epoch" ] || fail "still epoch $epoch"
	for n in n1 n2; do
		assert_eq "$(drops $n not-authentic) $(drops $n key-ended)" "${wrong[0]}" "not authentic, too late, on $n"
		wrong=("${wrong[@]:1}")
	done
}
keys_are_over() { [ "$(peer_of n1 n2 .tunnel.keys)" -gt "$1" ]; }

@test "sealed: a killed daemon comes back with other keys, connections live on" {
	workload n1 app 192.168.5.2
	workload n2 far 192.168.5.4
	server n1 app srv 192.168.5.2:2000
	client n2 far c1 192.168.5.2:2000
	progress c1
	local epoch
	epoch=$(peer_of n1 n2 .tunnel.epoch)
	run_ok on n2 bash -c 'kill -KILL $(cat /run/overlayd/overlayd.pid)'
	run_ok on n2 overlayd start
	wait_ready n2
	progress c1 20
	[ "$(peer_of n1 n2 .tunnel.epoch)" != "$epoch" ] || fail "still epoch $epoch"
	assert_eq "$(peer_of n2 n1 .tunnel.encrypted)" true
	client_ok c1
}

@test "sealed: nodes that do not mean the same do not talk, and say why; both in plaintext is shown loudly" {
	workload n1 one 192.168.5.2
	workload n2 two 192.168.5.3
	tunnel_conf n2 "encryption = off"
	run_fail on n1 ip netns exec one ping -c 1 -W 2 192.168.5.3
	# whose packets wait dials, and hears why not
	wait_for 10 says_why "tunnel encryption is off at node n2 and on at node n1"
	tunnel_conf n1 "encryption = off"
	wait_for 10 on n1 ip netns exec one ping -c 1 -W 2 192.168.5.3
	sniffer n1 wire
	say_marked
	refute_match "$(in_clear wire)" "^0 " "in clear"
	assert_eq "$(peer_of n1 n2 .tunnel.encrypted)" false
	run_ok on n1 overlayd status
	assert_match "$output" "tunnel PLAINTEXT"
	tunnel_conf n1 "cipher = aes-128-gcm"
	tunnel_conf n2 "cipher = chacha20-poly1305"
	run_fail on n1 ip netns exec one ping -c 1 -W 2 192.168.5.3
	wait_for 10 says_why "no tunnel cipher in common"
	for n in n1 n2; do tunnel_conf $n "cipher = chacha20-poly1305 rekey = 1s"; done
	wait_for 10 on n1 ip netns exec one ping -c 1 -W 2 192.168.5.3
	assert_eq "$(peer_of n1 n2 .tunnel.cipher)" chacha20-poly1305
}
says_why() { assert_match "$(peer_of n1 n2 .last_error)" "$1"; }
