#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# tunnel.bats - the data path between three nodes, its table set by hand (tests/lib/pathtool.c)
#
#   i1: overlay0 192.168.5.1/24      i2: 192.168.5.2/24      i3: 192.168.5.3/24      the inside of each node: its programs
#        |  pathtool                      |                       |
#   u1: 10.9.0.1  ---------------- u0: bridge, MTU 1500 ----------+                   the underlay
#
# pathtool has overlay0 in iN and its UDP socket in uN. A vIP is local when it is an address of overlay0.

load helpers

VIP1=192.168.5.1 VIP2=192.168.5.2 VIP3=192.168.5.3

u() { echo "$TAG-u$1"; }
i() { echo "$TAG-i$1"; }
in_i() { local n=$1; shift; ip netns exec "$(i "$n")" "$@"; }

setup_file() {
	need_root
	ip netns add "$(u 0)"
	ip -n "$(u 0)" link add br0 type bridge
	ip -n "$(u 0)" link set br0 up
	for n in 1 2 3; do
		ip netns add "$(u $n)"
		ip netns add "$(i $n)"
		ip -n "$(u 0)" link add "v$n" type veth peer name eth0 netns "$(u $n)"
		ip -n "$(u 0)" link set "v$n" master br0 up
		ip -n "$(u $n)" addr add "10.9.0.$n/24" dev eth0
		ip -n "$(u $n)" link set eth0 up
		ip -n "$(i $n)" link set lo up
	done
}

teardown_file() {
	ip netns del "$TAG-w" 2>/dev/null || true
	for n in 0 1 2 3; do
		ip netns del "$(u $n)" 2>/dev/null || true
		ip netns del "$(i $n)" 2>/dev/null || true
	done
}

setup() {
	for n in 1 2 3; do node_start $n; done
	tell 1 "local $VIP1 1"
	tell 2 "local $VIP2 1"
	tell 3 "local $VIP3 1"
	# the directory's word, for whoever asks
	for n in 1 2 3; do
		for m in 1 2 3; do tell $n "record 192.168.5.$m 1 10.9.0.$m"; done
	done
}

teardown() {
	end_spawned
	for n in 1 2 3; do ip -n "$(i $n)" link del overlay0 2>/dev/null || true; done
}

node_start() { # N [SPIN_US [MTU]]
	local fifo=$BATS_TEST_TMPDIR/fifo$1
	mkfifo "$fifo"
	spawn "node$1" pathtool "$fifo" "$(u "$1")" "$(i "$1")" overlay0 "10.9.0.$1" "${3:-1440}" "${2:-0}" 192.168.5.0/24
	wait_for 10 grep -q ready "$BATS_TEST_TMPDIR/node$1.out"
	# what the kernel says by itself over IPv6 would be counted as drops
	[ ! -e /proc/sys/net/ipv6 ] || in_i "$1" sysctl -qw net.ipv6.conf.overlay0.disable_ipv6=1
	ip -n "$(i "$1")" link set overlay0 mtu 1440 up
	ip -n "$(i "$1")" addr add "192.168.5.$1/24" dev overlay0
}

said() { grep -cx "$2" "$BATS_TEST_TMPDIR/node$1.out" || true; } # NODE LINE: how often
said_more() { [ "$(said "$1" "$2")" -gt "$3" ]; }

tell() { # NODE COMMAND, until it is applied
	local before
	before=$(said "$1" "ok ${2%% *}")
	echo "$2" >"$BATS_TEST_TMPDIR/fifo$1"
	wait_for 10 said_more "$1" "ok ${2%% *}" "$before"
}

stat() { # NODE FILTER -> one counter
	tell "$1" "stats $BATS_TEST_TMPDIR/stats$1"
	json "$2" "$BATS_TEST_TMPDIR/stats$1"
}

no_drops() { # NODE
	assert_eq "$(stat "$1" '.drops | to_entries | map(select(.value > 0)) | from_entries | tojson')" "{}" "drops of node $1"
}

all_known() {
	for n in 1 2 3; do
		for m in 1 2 3; do [ $n = $m ] || tell $n "remote 192.168.5.$m 1 10.9.0.$m"; done
	done
}

# bytes of a seeded ramp from node $1 to a server on $2, checked by SHA-256 on both sides
bulk() { # FROM TO BYTES PORT
	cat >"$BATS_TEST_TMPDIR/bulk.py" <<-'PY'
		import hashlib, os, socket, sys
		role, addr, port, total = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
		block = bytes(os.urandom(1 << 16) if role == "client" else b"")
		def give(s):
		    h, left, k = hashlib.sha256(), total, 1
		    while left:
		        n = min(left, 1 + (k * 7919) % 65536); k += 1
		        s.sendall(block[:n]); h.update(block[:n]); left -= n
		    s.shutdown(socket.SHUT_WR)
		    return h.hexdigest()
		def take(s):
		    h, got = hashlib.sha256(), 0
		    while data := s.recv(1 << 16):
		        h.update(data); got += len(data)
		    assert got == total, (got, total)
		    return h.hexdigest()
		if role == "server":
		    l = socket.create_server((addr, port)); print("listening", flush=True)
		    s, _ = l.accept(); s.settimeout(60)
		    digest = take(s)
		    s.sendall(digest.encode())
		else:
		    s = socket.create_connection((addr, port), 60); s.settimeout(60)
		    sent = give(s)
		    assert s.recv(64).decode() == sent
		    print("ok", total)
	PY
	spawn "server$4" ip netns exec "$(i "$2")" python3 "$BATS_TEST_TMPDIR/bulk.py" server "192.168.5.$2" "$4" "$3"
	wait_for 10 grep -q listening "$BATS_TEST_TMPDIR/server$4.out"
	run_ok in_i "$1" python3 "$BATS_TEST_TMPDIR/bulk.py" client "192.168.5.$2" "$4" "$3"
	finish "server$4" none
	assert_eq "$status" 0 "server's exit status"
}

@test "ping, every size up to the MTU and fragments beyond it, both ways" {
	all_known
	for size in 0 1 500 1411 1412; do
		run_ok in_i 1 ping -c 2 -i 0.05 -W 20 -M do -s $size $VIP2
		run_ok in_i 2 ping -c 2 -i 0.05 -W 20 -M do -s $size $VIP1
	done
	run_fail in_i 1 ping -c 1 -W 1 -M do -s 1413 $VIP2
	run_ok in_i 1 ping -c 2 -i 0.05 -W 20 -M dont -s 20000 $VIP2
}

@test "TCP byte-exact both ways, as superframes in runs" {
	all_known
	bulk 1 2 50000000 5001
	bulk 2 1 20000000 5002
	# 70 MB in packets of 1440 would be 50,000 frames
	assert_le "$(stat 1 .tun_rx_frames)" 15000 "frames read from overlay0"
	assert_le "$(stat 1 .tx_runs)" 20000 "runs sent"
	[ "$(stat 2 .merged)" -gt 1000 ] || fail "nothing was coalesced"
	no_drops 2
	no_drops 1
}

@test "UDP byte-exact, large datagrams in fragments and small ones in superframes" {
	all_known
	cat >"$BATS_TEST_TMPDIR/udp.py" <<-'PY'
		import socket, sys
		role, addr = sys.argv[1], sys.argv[2]
		s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(60)
		if role == "server":
		    s.bind((addr, 6000)); print("listening", flush=True)
		    while True:
		        data, who = s.recvfrom(65536)
		        s.sendto(data, who)
		        if data == b"end": break
		else:
		    s.connect((addr, 6000))
		    for n in (0, 1, 1412, 1413, 9000, 60000, 3):
		        want = bytes((n + k) % 251 for k in range(n)) if n != 3 else b"end"
		        s.send(want); assert s.recv(65536) == want, n
	PY
	spawn udp ip netns exec "$(i 2)" python3 "$BATS_TEST_TMPDIR/udp.py" server $VIP2
	wait_for 10 grep -q listening "$BATS_TEST_TMPDIR/udp.out"
	run_ok in_i 1 python3 "$BATS_TEST_TMPDIR/udp.py" client $VIP2
	finish udp none
	assert_eq "$status" 0
	# UDP_SEGMENT inside: one frame from overlay0, many datagrams, one frame again
	cat >"$BATS_TEST_TMPDIR/gso.py" <<-'PY'
		import socket, sys
		role, addr = sys.argv[1], sys.argv[2]
		s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(60)
		data = bytes(k % 253 for k in range(1000 * 40 + 7))
		if role == "server":
		    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
		    s.bind((addr, 6001)); print("listening", flush=True)
		    got = [s.recv(65536) for _ in range(41)]
		    assert [len(g) for g in got] == [1000] * 40 + [7] and b"".join(got) == data
		else:
		    s.setsockopt(17, 103, 1000); s.sendto(data, (addr, 6001))
	PY
	before=$(stat 2 .tun_tx_frames)
	spawn gso ip netns exec "$(i 2)" python3 "$BATS_TEST_TMPDIR/gso.py" server $VIP2
	wait_for 10 grep -q listening "$BATS_TEST_TMPDIR/gso.out"
	run_ok in_i 1 python3 "$BATS_TEST_TMPDIR/gso.py" client $VIP2
	finish gso none
	assert_eq "$status" 0
	assert_le "$(($(stat 2 .tun_tx_frames) - before))" 8 "frames written for 41 datagrams"
}

@test "an unknown vIP is asked for and the first packet is not lost" {
	tell 1 "resolve $VIP2 200 remote 1 10.9.0.2"
	tell 2 "resolve $VIP1 100 remote 1 10.9.0.1"
	cat >"$BATS_TEST_TMPDIR/ask.py" <<-'PY'
		import socket, sys, time
		t = time.monotonic()
		u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.settimeout(20)
		# nobody repeats a datagram
		u.sendto(b"question", (sys.argv[1], 7000))
		assert u.recv(6) == b"answer"
		took = time.monotonic() - t
		# 0.2 s for the one answer and 0.1 s for the other
		assert took > 0.25, took
		s = socket.create_connection((sys.argv[1], 7000), 20)
		assert s.recv(5) == b"hello"
	PY
	spawn server ip netns exec "$(i 2)" python3 -c "
import socket
l = socket.create_server(('$VIP2', 7000))
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(('$VIP2', 7000)); print('listening', flush=True)
u.sendto(b'answer', u.recvfrom(100)[1])
s, _ = l.accept(); s.sendall(b'hello')"
	wait_for 10 grep -q listening "$BATS_TEST_TMPDIR/server.out"
	run_ok in_i 1 python3 "$BATS_TEST_TMPDIR/ask.py" $VIP2
	assert_eq "$(said 1 "miss $VIP2")" 1 "questions"
	assert_eq "$(said 2 "miss $VIP1")" 1 "questions"
	assert_eq "$(stat 1 .held_now)" 0
}

@test "64 packets wait, no more; unreachable is told to who sent them" {
	spawn flood ip netns exec "$(i 1)" python3 -c "
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(0, 11, 1) # IP_RECVERR
for k in range(100): s.sendto(b'%d' % k, ('192.168.5.77', 9))
print('sent', flush=True)
while True:
    try: s.recv(1, socket.MSG_DONTWAIT)
    except OSError as e:
        if e.errno == 113: print('unreachable'); break
    time.sleep(0.01)"
	# what waits does so for three seconds: told before they are over
	wait_for 10 grep -q sent "$BATS_TEST_TMPDIR/flood.out"
	all_100() { [ "$(stat 1 '.held + .drops."hold-full"')" -ge 100 ]; }
	wait_for 10 all_100
	tell 1 "unreachable 192.168.5.77 0"
	wait_for 10 said_more 1 "miss 192.168.5.77" 0
	assert_eq "$(stat 1 '"\(.held) \(.drops."hold-full")"')" "64 36"
	finish flood none
	assert_match "$output" unreachable
	assert_eq "$(stat 1 .held_now)" 0
	best_of 5 refused_at_once
}
# a connection attempt ends at once instead of after its time-out; an entry for what is unreachable does not last long itself
refused_at_once() {
	tell 1 "unreachable 192.168.5.77 0" &&
		run_fail in_i 1 python3 -S -E -c "import socket; socket.create_connection(('192.168.5.77', 80), 4)" &&
		assert_match "$output" "No route to host"
}

@test "nobody answers: what was held is given up after three seconds" {
	run_fail in_i 1 ping -c 1 -W 1 192.168.5.78
	assert_eq "$(stat 1 .held)" 1
	given_up() { [ "$(stat 1 '.drops."hold-expired"')" = 1 ]; }
	wait_for 6 given_up
	assert_eq "$(stat 1 .held_now)" 0
}

@test "a vIP that moved: packets are forwarded once, their sender is named, a stale update is ignored" {
	all_known
	ip -n "$(i 3)" addr add 192.168.5.9/32 dev overlay0
	for n in 1 2; do tell $n "remote 192.168.5.9 1 10.9.0.3"; done
	tell 3 "local 192.168.5.9 1"
	run_ok in_i 1 ping -c 1 -W 20 192.168.5.9
	# 3 -> 2; node 1 is not told
	tell 2 "hold 192.168.5.9 1"
	ip -n "$(i 3)" addr del 192.168.5.9/32 dev overlay0
	tell 3 "remote 192.168.5.9 2 10.9.0.2"
	ip -n "$(i 2)" addr add 192.168.5.9/32 dev overlay0
	tell 2 "local 192.168.5.9 2"
	# the answers come from where 1 does not expect them: it asks, once
	tell 1 "record 192.168.5.9 2 10.9.0.2 10.9.0.3"
	# all at once: of what comes later, its sender is named again
	run_ok in_i 1 ping -c 3 -l 3 -W 20 192.168.5.9
	assert_eq "$(said 1 "verify 192.168.5.9")" 1
	assert_eq "$(stat 3 .forwarded)" 3
	assert_eq "$(said 3 "straggler 192.168.5.9 10.9.0.1:7470")" 1
	# corrected: straight there; and an older word changes nothing
	tell 1 "remote 192.168.5.9 2 10.9.0.2"
	tell 1 "remote 192.168.5.9 1 10.9.0.3"
	assert_eq "$(stat 1 .stale)" 1
	run_ok in_i 1 ping -c 3 -i 0.05 -W 20 192.168.5.9
	assert_eq "$(stat 3 .forwarded)" 3
	# a second detour is none: 1 thinks 3, 3 thinks 2, 2 thinks 1
	tell 2 "remote 192.168.5.9 3 10.9.0.1"
	tell 1 "del 192.168.5.9"
	tell 1 "remote 192.168.5.9 1 10.9.0.3"
	run_fail in_i 1 ping -c 1 -W 1 192.168.5.9
	wait_for 5 said_more 2 "miss 192.168.5.9" 0
	one_given_up() { [ "$(stat 2 '.drops."hold-expired"')" = 1 ]; }
	wait_for 6 one_given_up
	assert_eq "$(stat 2 .forwarded)" 0
	ip -n "$(i 2)" addr del 192.168.5.9/32 dev overlay0
}

@test "a workload leaves: its routes go before the table knows, and nothing is lost" {
	# node 2 as a fabric: the workload's namespace behind a veth, a /32 route to it, overlay0 for the rest
	all_known
	ip netns add "$TAG-w"
	ip -n "$(i 2)" link add ve-w type veth peer name eth0 netns "$TAG-w"
	ip -n "$TAG-w" addr add 192.168.5.20/32 dev eth0
	ip -n "$TAG-w" link set eth0 up
	ip -n "$(i 2)" link set ve-w up
	ip -n "$TAG-w" route add default dev eth0
	in_i 2 sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.overlay0.send_redirects=0 \
		net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.overlay0.rp_filter=0 net.ipv4.conf.ve-w.proxy_arp=1
	ip -n "$(i 2)" route add 192.168.5.20/32 dev ve-w
	tell 2 "local 192.168.5.20 1"
	for n in 1 3; do tell $n "remote 192.168.5.20 1 10.9.0.2"; done
	tell 1 "record 192.168.5.20 2 10.9.0.3 10.9.0.2"
	run_ok in_i 1 ping -c 2 -i 0.05 -W 20 192.168.5.20

	# no more than 64 wait, and none for more than three seconds: so many do not come meanwhile
	spawn ping ip netns exec "$(i 1)" ping -n -i 0.05 192.168.5.20
	wait_for 5 _answered_over ping 10
	tell 3 "hold 192.168.5.20 1"
	ip -n "$(i 2)" route del 192.168.5.20/32 dev ve-w
	some_held() { [ "$(stat 2 .held)" -ge 3 ]; }
	wait_for 5 some_held
	ip -n "$(i 3)" addr add 192.168.5.20/32 dev overlay0
	tell 2 "remote 192.168.5.20 2 10.9.0.3"
	tell 3 "local 192.168.5.20 2"
	pings_whole ping
	[ "$(stat 2 .forwarded)" -ge 3 ]

	# and one that stays after all gets what fell through when its route is back
	ip -n "$(i 3)" addr del 192.168.5.20/32 dev overlay0
	tell 2 "local 192.168.5.20 3"
	tell 1 "remote 192.168.5.20 3 10.9.0.2"
	before=$(stat 2 .held)
	spawn ping ip netns exec "$(i 1)" ping -c 1 -W 20 192.168.5.20
	held_again() { [ "$(stat 2 .held)" -gt "$before" ]; }
	wait_for 5 held_again
	ip -n "$(i 2)" route add 192.168.5.20/32 dev ve-w
	finish ping none
	assert_eq "$status" 0 "ping"
	ip netns del "$TAG-w"
}

@test "a vIP arrives: everybody's packets wait for it, whoever knows first" {
	# 3 -> 2. The commit has been, and the news travels: 1 knows, 3 knows, 2 is the last to know
	all_known
	tell 1 "remote 192.168.5.9 2 10.9.0.2"
	tell 2 "remote 192.168.5.9 1 10.9.0.3"
	tell 2 "arriving 192.168.5.9"
	tell 3 "remote 192.168.5.9 2 10.9.0.2"
	# in a fabric 192.168.5.2 would be a workload's, here it is the kernel's own: let it come in from outside
	in_i 2 sysctl -qw net.ipv4.conf.overlay0.accept_local=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.overlay0.rp_filter=0
	for n in 1 2 3; do spawn ping$n ip netns exec "$(i $n)" ping -c 1 -W 20 192.168.5.9; done
	# 1's and 3's came straight, 2's own by way of 3
	three_held() { [ "$(stat 2 .held_now)" = 3 ]; }
	wait_for 5 three_held
	ip -n "$(i 2)" addr add 192.168.5.9/32 dev overlay0
	tell 2 "local 192.168.5.9 2"
	for n in 1 2 3; do
		finish ping$n none
		assert_eq "$status" 0 "ping from node $n"
	done
	ip -n "$(i 2)" addr del 192.168.5.9/32 dev overlay0
}

@test "garbage from anybody is counted and harmless" {
	all_known
	run_ok ip netns exec "$(u 3)" python3 -c "
import os, random, socket, time
random.seed(5)
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
def hdr(type=1, flags=0, start=0, off=0): return bytes([1, type, flags, start, off]) + bytes(11)
def ip(n, src='192.168.5.3', dst='192.168.5.2', proto=17):
    return bytes([0x45, 0]) + n.to_bytes(2, 'big') + bytes([0, 0, 0x40, 0, 64, proto, 0, 0]) + socket.inet_aton(src) + socket.inet_aton(dst)
for k in range(500):
    kind = k % 5
    if kind == 0: data = os.urandom(random.randrange(0, 2000))
    elif kind == 1: data = hdr() + os.urandom(random.randrange(0, 1500))
    elif kind == 2: data = hdr(flags=1, start=random.randrange(256), off=random.randrange(256)) + ip(28) + os.urandom(8)
    elif kind == 3: data = hdr() + ip(random.randrange(65536)) + os.urandom(random.randrange(64))
    else: data = hdr(type=random.randrange(1, 5)) + ip(28, src='10.0.0.1') + os.urandom(8)
    s.sendto(data, ('10.9.0.2', 7470))
    if k % 20 == 19: time.sleep(0.01) # no more than its socket takes while it has no processor
"
	bad() { stat 2 '.rx_bad + .drops.malformed + .drops."not-ipv4" + .drops."source-outside" + .drops."datagram-type" + .drops.probe'; }
	all_seen() { [ "$(stat 2 .rx_datagrams)" -ge 490 ]; }
	wait_for 5 all_seen
	[ "$(bad)" -ge 480 ] || fail "only $(bad) of 500 were counted"
	run_ok in_i 1 ping -c 2 -i 0.05 -W 20 $VIP2
	bulk 1 2 5000000 5003
}

@test "each offload can be switched off and on while data flows" {
	all_known
	(
		for set in - t g r tg tr gr tgr u tugr; do
			for n in 1 2; do tell $n "offloads $set"; done
			sleep 0.2
		done
		for n in 1 2; do tell $n "offloads -"; done
		touch "$BATS_TEST_TMPDIR/switched"
	) 3>&- &
	switcher=$!
	for k in 1 2 3 4 5 6 7 8 9; do
		bulk 1 2 20000000 $((5100 + k))
		[ ! -e "$BATS_TEST_TMPDIR/switched" ] || break
	done
	wait $switcher
	assert_eq "$(stat 1 '.allowed | [.[]] | any')" false
	assert_eq "$(stat 1 '.active | [.[]] | any')" false
	# both counters from one answer: node 1 goes on sending probes between two
	before=$(stat 1 '.tx_datagrams - .tx_runs')
	bulk 1 2 2000000 5200
	assert_eq "$(stat 1 '.tx_datagrams - .tx_runs')" "$before" "datagrams that shared a run"
	no_drops 1
	no_drops 2
}

@test "every combination of offloads carries every byte, and is what is in use" {
	local k=0 set
	all_known
	assert_eq "$(stat 1 '.able | [.[]] | all')" true "what the start-up probe found on this kernel"
	for set in - t u tu g tg ug tug r tr ur tur gr tgr ugr tugr; do
		for n in 1 2; do tell $n "offloads $set"; done
		bulk 1 2 3000000 $((5500 + k))
		bulk 2 1 1000000 $((5600 + k))
		k=$((k + 1))
		assert_eq "$(stat 1 '[.active | (.tso, .uso, .gso, .gro)] == [.allowed | (.tso, .uso, .gso, .gro)]')" true "offloads $set"
	done
	no_drops 1
	no_drops 2
}

node_again() { # as node_start
	finish "node$1"
	rm "$BATS_TEST_TMPDIR/fifo$1"
	ip -n "$(i "$1")" addr flush dev overlay0
	node_start "$@"
	tell "$1" "local 192.168.5.$1 1"
}

@test "what does not fit the inner MTU is told to its sender, who adapts" {
	for n in 1 2; do node_again $n 0 1200; done
	all_known
	# superframes of segments that are too large: cut smaller, and TCP takes the hint
	bulk 2 1 3000000 5401
	[ "$(stat 2 .recut)" -ge 1 ] || fail "nothing was too big"
	# larger than the fast path allows, smaller than overlay0 does
	run_fail in_i 1 ping -c 1 -i 30 -w 20 -M do -s 1300 $VIP2 # ends when an error is heard of
	assert_match "$output" "mtu = 1200"
	run_ok in_i 1 ping -c 1 -W 20 -M do -s 1172 $VIP2
}

@test "a spinning fast path does the same" {
	for n in 1 2; do node_again $n 200; done
	all_known
	run_ok in_i 1 ping -c 5 -i 0.02 -W 20 $VIP2
	bulk 1 2 10000000 5301
}
