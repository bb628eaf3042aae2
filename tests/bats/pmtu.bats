#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# pmtu.bats - underlays of every width, and paths that become narrow while data flows (tests/lib/pathtool.c)
#
#   i1: overlay0 192.168.5.1                                           i2: overlay0 192.168.5.2
#        |  pathtool                                                        |  pathtool
#   u1: 10.9.1.1 -- v1: bridge -- 10.9.1.254 :r: 10.9.2.254 -- v2: bridge -- 10.9.2.1 :u2
#
# r is a router: it says "fragmentation needed". The bridges say nothing when a frame does not fit: a black hole.

load helpers

VIP1=192.168.5.1 VIP2=192.168.5.2

u() { echo "$TAG-u$1"; }
i() { echo "$TAG-i$1"; }
r() { echo "$TAG-r"; }
in_i() { local n=$1; shift; ip netns exec "$(i "$n")" "$@"; }

setup_file() {
	need_root
	ip netns add "$(r)"
	for n in 1 2; do
		ip netns add "$(u $n)"
		ip netns add "$(i $n)"
		ip netns add "$TAG-v$n"
		ip -n "$(i $n)" link set lo up
		ip -n "$(u $n)" link set lo up
		ip -n "$TAG-v$n" link add br0 type bridge
		ip -n "$TAG-v$n" link add name near type veth peer name eth0 netns "$(u $n)"
		ip -n "$TAG-v$n" link add name far type veth peer name "eth$n" netns "$(r)"
		for dev in near far br0; do ip -n "$TAG-v$n" link set $dev up; done
		ip -n "$TAG-v$n" link set near master br0
		ip -n "$TAG-v$n" link set far master br0
		ip -n "$(u $n)" addr add "10.9.$n.1/24" dev eth0
		ip -n "$(u $n)" link set eth0 up
		ip -n "$(u $n)" route add default via "10.9.$n.254"
		ip -n "$(r)" addr add "10.9.$n.254/24" dev "eth$n"
		ip -n "$(r)" link set "eth$n" up
	done
	ip netns exec "$(r)" sysctl -qw net.ipv4.ip_forward=1
}

teardown_file() {
	for n in 1 2; do
		for ns in "$(u $n)" "$(i $n)" "$TAG-v$n"; do ip netns del "$ns" 2>/dev/null || true; done
	done
	ip netns del "$(r)" 2>/dev/null || true
}

teardown() {
	end_spawned
	for n in 1 2; do ip -n "$(i $n)" link del overlay0 2>/dev/null || true; done
}

wide() { # every link of the underlay takes MTU bytes
	local n
	for n in 1 2; do
		ip -n "$TAG-v$n" link set near mtu "$1"
		ip -n "$TAG-v$n" link set far mtu "$1"
		ip -n "$TAG-v$n" link set br0 mtu "$1"
		ip -n "$(u $n)" link set eth0 mtu "$1"
		ip -n "$(r)" link set "eth$n" mtu "$1"
		ip -n "$(u $n)" route flush cache
	done
}

node_start() { # N INNER_MTU
	local fifo=$BATS_TEST_TMPDIR/fifo$1
	mkfifo "$fifo"
	spawn "node$1" pathtool "$fifo" "$(u "$1")" "$(i "$1")" overlay0 "10.9.$1.1" "$2" 0 192.168.5.0/24
	wait_for 10 grep -q ready "$BATS_TEST_TMPDIR/node$1.out"
	[ ! -e /proc/sys/net/ipv6 ] || in_i "$1" sysctl -qw net.ipv6.conf.overlay0.disable_ipv6=1
	ip -n "$(i "$1")" link set overlay0 mtu "$2" up
	ip -n "$(i "$1")" addr add "192.168.5.$1/24" dev overlay0
	tell "$1" "local 192.168.5.$1 1"
	tell "$1" "remote 192.168.5.$((3 - $1)) 1 10.9.$((3 - $1)).1"
}

said() { grep -cx "$2" "$BATS_TEST_TMPDIR/node$1.out" || true; }
said_more() { [ "$(said "$1" "$2")" -gt "$3" ]; }
tell() { # NODE COMMAND, until it is applied
	local before
	before=$(said "$1" "ok ${2%% *}")
	echo "$2" >"$BATS_TEST_TMPDIR/fifo$1"
	wait_for 10 said_more "$1" "ok ${2%% *}" "$before"
}
stat() { # NODE FILTER
	tell "$1" "stats $BATS_TEST_TMPDIR/stats$1"
	json "$2" "$BATS_TEST_TMPDIR/stats$1"
}
path_is() { [ "$(stat "$1" '.paths[0] | "\(.mtu) \(.state)"')" = "$2" ]; } # NODE "MTU STATE"

# A ramp from node 1 to node 2, checked byte by byte, until the file "enough" is there or BYTES have come; says the longest
# silence the receiver met, in milliseconds
transfer_start() { # PORT BYTES
	cat >"$BATS_TEST_TMPDIR/ramp.py" <<-'PY'
		import os, socket, sys, time
		role, addr, port, total, enough = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
		ramp = bytes(k % 251 for k in range(251 * 300))
		if role == "server":
		    l = socket.create_server((addr, port)); print("listening", flush=True)
		    s, _ = l.accept(); s.settimeout(60)
		    got, last, gap = 0, time.monotonic(), 0.0
		    while data := s.recv(60000):
		        now = time.monotonic(); gap = max(gap, now - last); last = now
		        at = got % 251
		        assert data == ramp[at:at + len(data)], "wrong byte in %d..%d" % (got, got + len(data))
		        if got // 1000000 != (got + len(data)) // 1000000: print("got", got, flush=True)
		        got += len(data)
		    print("end", got, int(gap * 1000), flush=True)
		else:
		    s = socket.create_connection((addr, port), 20); s.settimeout(60)
		    sent = 0
		    while sent < total and not os.path.exists(enough):
		        n = min(50000, total - sent)
		        s.sendall(ramp[sent % 251:sent % 251 + n]); sent += n
		    s.shutdown(socket.SHUT_WR)
		    assert s.recv(1) == b""
		    print("sent", sent)
	PY
	rm -f "$BATS_TEST_TMPDIR/enough"
	spawn rx ip netns exec "$(i 2)" python3 "$BATS_TEST_TMPDIR/ramp.py" server $VIP2 "$1" "$2" "$BATS_TEST_TMPDIR/enough"
	wait_for 10 grep -q listening "$BATS_TEST_TMPDIR/rx.out"
	spawn tx ip netns exec "$(i 1)" python3 "$BATS_TEST_TMPDIR/ramp.py" client $VIP2 "$1" "$2" "$BATS_TEST_TMPDIR/enough"
}
transfer_end() { # -> $SILENCE
	local sent
	touch "$BATS_TEST_TMPDIR/enough"
	TIMEOUT=60 finish tx none
	assert_eq "$status" 0 "sender: $(cat "$BATS_TEST_TMPDIR/tx.err")" || return 1
	sent=${output#sent }
	TIMEOUT=60 finish rx none
	assert_eq "$status" 0 "receiver: $(cat "$BATS_TEST_TMPDIR/rx.err")" || return 1
	assert_match "$output" "end $sent [0-9]+"
	SILENCE=${output##* }
}
chunks() { grep -c '^got' "$BATS_TEST_TMPDIR/rx.out" || true; }
more_chunks() { [ "$(chunks)" -ge "$1" ]; }

@test "underlays of 1280, 1500 and 9000 bytes: full-sized packets both ways, nothing larger, nothing lost" {
	for width in 1280 1500 9000; do
		wide $width
		for n in 1 2; do node_start $n $((width - 60)); done
		for n in 1 2; do
			run_ok in_i $n ping -c 3 -i 0.05 -W 20 -M do -s $((width - 60 - 28)) "192.168.5.$((3 - n))"
			run_fail in_i $n ping -c 1 -W 1 -M do -s $((width - 60 - 27)) "192.168.5.$((3 - n))"
			wait_for 10 path_is $n "$width confirmed"
		done
		transfer_start 7001 20000000
		transfer_end
		assert_eq "$(stat 1 .tx_errors)" 0 "refused on $width"
		assert_eq "$(stat 1 '.drops."too-big"')" 0
		assert_eq "$(stat 1 '.recut')" 0
		for n in 1 2; do finish node$n; rm "$BATS_TEST_TMPDIR/fifo$n"; ip -n "$(i $n)" link del overlay0; done
	done
}

@test "an underlay narrower than the configuration says: found out, told to senders, TCP gets through" {
	wide 1280
	for n in 1 2; do node_start $n 1440; done
	run_ok in_i 1 ping -c 3 -i 0.05 -W 20 $VIP2
	wait_for 10 path_is 1 "1280 confirmed"
	wait_for 10 path_is 2 "1280 confirmed"
	transfer_start 7002 5000000
	transfer_end
	[ "$(stat 1 .mss_clamped)" -ge 1 ] || fail "no MSS was clamped"
	run_fail in_i 1 ping -c 1 -i 30 -w 20 -M do -s 1300 $VIP2 # ends when an error is heard of
	assert_match "$output" "mtu = 1220"
	run_ok in_i 1 ping -c 2 -i 0.05 -W 20 -M do -s 1192 $VIP2
	# who does not listen to ICMP gets through, too
	in_i 1 sysctl -qw net.ipv4.ip_no_pmtu_disc=1
	ip -n "$(i 1)" route flush cache
	transfer_start 7003 5000000
	transfer_end
	in_i 1 sysctl -qw net.ipv4.ip_no_pmtu_disc=0
}

# datagrams to port 9 of node 2, as programs choose: discovery WANT 1, which learns, OMIT 5 (name servers), which does not
datagrams() { # DISCOVERY SIZE...
	run_ok in_i 1 python3 -c "
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IP, 10, int(sys.argv[1])) # IP_MTU_DISCOVER
for size in sys.argv[2:]: s.sendto(bytes(k % 251 for k in range(int(size))), ('$VIP2', 9))" "$@"
}
received() { grep -q "^$1 whole$" "$BATS_TEST_TMPDIR/heard.out"; }

@test "a narrow path: what may be fragmented gets through whole, from senders that learn and from those that do not" {
	wide 1280
	for n in 1 2; do node_start $n 1440; done
	run_ok in_i 1 ping -c 3 -i 0.05 -W 20 $VIP2
	wait_for 10 path_is 1 "1280 confirmed"
	ip -n "$(i 1)" route flush cache
	spawn heard ip netns exec "$(i 2)" python3 -c "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 9)); print('listening', flush=True)
while True:
    data = s.recv(65536)
    print(len(data), 'whole' if data == bytes(k % 251 for k in range(len(data))) else 'broken', flush=True)"
	wait_for 10 grep -q listening "$BATS_TEST_TMPDIR/heard.out"
	datagrams 5 1193 1400 1412 8001
	datagrams 1 30001
	for size in 1193 1400 1412 8001 30001; do wait_for 10 received $size; done
	refute_match "$(cat "$BATS_TEST_TMPDIR/heard.out")" broken
	# one frame each of the first three; the others come as 6 and 22 of the inner MTU, all too long but the last
	assert_le 29 "$(stat 1 .fragmented)" "frames fragmented"
	assert_eq "$(stat 1 '.drops."too-big"')" 0 "dropped"
	run_ok in_i 1 ping -c 1 -W 20 -M dont -s 1400 $VIP2
	# who forbids it is told, as ever
	run_fail in_i 1 ping -c 1 -i 30 -w 20 -M do -s 1300 $VIP2 # ends when an error is heard of
	assert_match "$output" "mtu = 1220"
	assert_eq "$(stat 1 '.drops."too-big"')" 1 "dropped"
}

# the path becomes narrow by CMD while data flows: that is found out, and data goes on
narrowed() { # PORT WIDTH LONGEST_SILENCE_MS CMD...
	local before
	wide 1500
	for n in 1 2; do node_start $n 1440; done
	transfer_start "$1" 3000000000
	wait_for 20 more_chunks 5
	"${@:4}"
	wait_for 30 path_is 1 "$2 confirmed"
	before=$(chunks)
	wait_for 20 more_chunks $((before + 5))
	transfer_end
	echo "# longest silence: $SILENCE ms" >&3
	assert_le "$SILENCE" "$3" "longest silence, ms"
}

@test "the path shrinks in mid-transfer, behind a router that says so: no stall" {
	narrowed 7004 1400 5000 ip -n "$(r)" link set eth2 mtu 1400
	[ "$(stat 1 .recut)" -ge 1 ] || fail "nothing was cut smaller"
}

@test "the path shrinks in mid-transfer, in a black hole: no stall" {
	# the bridge drops what does not fit, and says nothing
	narrowed 7005 1300 10000 ip -n "$TAG-v2" link set near mtu 1300
}

@test "the node's own device becomes narrow: heard of at once" {
	narrowed 7006 1290 5000 ip -n "$(u 1)" link set eth0 mtu 1290
	assert_eq "$(stat 1 '.active.gso')" true "UDP_SEGMENT is not to blame"
}

@test "ICMP that lies changes nothing" {
	wide 1500
	for n in 1 2; do node_start $n 1440; done
	run_ok in_i 1 ping -c 3 -i 0.05 -W 20 $VIP2
	wait_for 10 path_is 1 "1500 confirmed"
	run_ok ip netns exec "$(u 2)" python3 -c "
import socket, struct
def csum(d):
    s = sum(struct.unpack('!%dH' % (len(d) // 2), d)); s = (s >> 16) + (s & 0xffff); return ~(s + (s >> 16)) & 0xffff
a, b = socket.inet_aton('10.9.1.1'), socket.inet_aton('10.9.2.1')
inner = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 1500, 1, 0x4000, 64, 17, 0, a, b) + struct.pack('!HHHH', 7470, 7470, 1480, 0)
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
for mtu in (700, 68, 0, 1000, 1400) * 4:
    icmp = struct.pack('!BBHHH', 3, 4, 0, 0, mtu) + inner
    icmp = icmp[:2] + struct.pack('!H', csum(icmp)) + icmp[4:]
    s.sendto(icmp, ('10.9.1.1', 0))
"
	heard() { [ "$(stat 1 '.paths[0].searches')" -ge 1 ]; }
	wait_for 10 heard
	wait_for 10 path_is 1 "1500 confirmed"
	run_ok in_i 1 ping -c 2 -i 0.05 -W 20 -M do -s 1412 $VIP2
}
