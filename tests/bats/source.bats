#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# source.bats - a node speaks for the vIPs that live there and for no others; a move loses nothing for it
#
#	n1   n2   n3   n4 (directory)      app 192.168.5.2 lives on n1 and moves; far 192.168.5.5 is on n3

load helpers

VIP=192.168.5.2 FAR=192.168.5.5

setup_file() { lab_up 4 --subnet 192.168.5.0/24=n4; }
teardown_file() { lab_down; }
setup() {
	T=$BATS_TEST_TMPDIR
	workload n1 app $VIP
	workload n3 far $FAR
}
teardown() {
	lab heal n3 n4
	drop_workloads && end_spawned
}

path() { on "$1" overlayd status --json | jq -r ".fastpath | $2"; } # NODE FILTER
drops() { path "$1" ".drops.\"$2\" // 0"; }
drops_are() { [ "$(drops "$1" "$2")" -eq "$3" ]; }
# what this file's rules have dropped on the nodes; nothing else may be lost either
lost() {
	local n
	for n in n1 n2 n3; do path $n '.drops | to_entries | map("\(.key)=\(.value)") | .[]'; done | sort | xargs
}

# a node that does not look at what its workloads send: broken into, say
unguarded() { # NODE WORKLOAD
	run_ok on "$1" ip netns exec ovl-fabric sysctl -qw net.ipv4.conf.ve-"$2".rp_filter=0
}
# how many packets a node's own kernel has refused for their source
refused() {
	on "$1" ip netns exec ovl-fabric awk '/^TcpExt/ { if (!n++) split($0, name); else for (i in name) if (name[i] == "IPReversePathFilter") print $i }' /proc/net/netstat
}
refused_are() { [ "$(refused "$1")" -eq "$2" ]; }

# raw IPv4 packets from inside a workload: UDP datagrams to port 9
spoof() { # NODE WORKLOAD SRC DST [COUNT]
	run_ok on "$1" ip netns exec "$2" python3 -c "
import socket, struct, sys
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
for k in range(${5:-1}):
    u = struct.pack('!HHHH', 1, 9, 12, 0) + b'lies'
    s.sendto(struct.pack('!BBHHHBBH4s4s', 0x45, 0, 32, k, 0, 64, 17, 0, socket.inet_aton('$3'), socket.inet_aton('$4')) + u, ('$4', 0))"
}

# every datagram to port 9 of a workload, a line each
listen9() { # NODE WORKLOAD NAME
	spawn "$3" on "$1" ip netns exec "$2" python3 -c "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 9)); print('listening', flush=True)
while True: print(s.recvfrom(100)[1][0], flush=True)"
	wait_for 10 grep -q listening "$T/$3.out"
}

@test "source: a workload that sends in somebody else's name is not heard, and counted where that is known" {
	workload n2 two 192.168.5.3
	workload n4 four 192.168.5.4
	unguarded n1 app
	listen9 n2 two heard
	# in the name of a workload of a third node, of nobody, of a node's own vIP
	local k=0 src
	for src in 192.168.5.4 192.168.5.77 192.168.5.103; do
		k=$((k + 1))
		spoof n1 app $src 192.168.5.3
		wait_for 5 drops_are n2 source-elsewhere $k
	done
	assert_le 3 "$(path n2 .verifies)" "questions to the directory"
	# what n1 knows to live elsewhere does not even leave it: the receiver itself, and who was talked to
	spoof n1 app 192.168.5.3 192.168.5.3
	wait_for 5 drops_are n1 source-not-here 1
	wait_for 10 on n1 ip netns exec app ping -c 1 -W 2 192.168.5.4
	spoof n1 app 192.168.5.4 192.168.5.3
	wait_for 5 drops_are n1 source-not-here 2
	# the truth is heard, right behind a burst of lies
	spoof n1 app 192.168.5.78 192.168.5.3 200
	spoof n1 app $VIP 192.168.5.3
	wait_for 5 grep -q "^$VIP\$" "$T/heard.out"
	none_waits() { [ "$(path n2 .unverified_now)" -eq 0 ]; }
	wait_for 6 none_waits
	finish heard
	assert_eq "$output" "listening
$VIP"
	# each waits until it is judged, or finds no room
	assert_eq $(($(drops n2 source-elsewhere) + $(drops n2 source-full))) 203 "lies"
	# whose names were used noticed nothing
	run_ok on n4 ip netns exec four ping -c 2 -i 0.05 -W 20 192.168.5.3
}

@test "source: the nodes' own vIPs speak, and are spoken for by nobody else" {
	workload n2 two 192.168.5.3
	run_ok on n1 ping -c 2 -i 0.05 -W 20 192.168.5.3
	run_ok on n1 ping -c 2 -i 0.05 -W 20 192.168.5.102
	run_ok on n2 ip netns exec two ping -c 2 -i 0.05 -W 20 192.168.5.101
	local before
	unguarded n1 app
	before=$(drops n2 source-elsewhere)
	spoof n1 app 192.168.5.104 192.168.5.102
	wait_for 5 drops_are n2 source-elsewhere $((before + 1))
}

# says that what a workload sends to a vIP must not be longer than 600 bytes
narrow() { # NODE WORKLOAD TO-WHOM ABOUT
	run_ok on "$1" ip netns exec "$2" python3 -c "
import socket, struct
def csum(d):
    s = sum(struct.unpack('!%dH' % (len(d) // 2), d)); s = (s >> 16) + (s & 0xffff); return ~(s + (s >> 16)) & 0xffff
quoted = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 1400, 1, 0x4000, 64, 1, 0, socket.inet_aton('$3'), socket.inet_aton('$4')) + bytes(8)
icmp = struct.pack('!BBHHH', 3, 4, 0, 0, 600) + quoted
socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).sendto(icmp[:2] + struct.pack('!H', csum(icmp)) + icmp[4:], ('$3', 0))"
}

@test "source: that the way to a vIP is narrow is believed of the node where it lives, of no other" {
	workload n2 two 192.168.5.3
	workload n4 four 192.168.5.4
	is_narrow() { on n2 ip netns exec two ip route get $VIP | grep -q 'mtu 600'; }
	run_ok on n2 ip netns exec two ping -c 2 -i 0.05 -W 20 $VIP
	run_ok on n2 ip netns exec two ping -c 2 -i 0.05 -W 20 192.168.5.4
	local before
	before=$(drops n2 narrows-other)
	narrow n4 four 192.168.5.3 $VIP
	wait_for 5 drops_are n2 narrows-other $((before + 1))
	run_fail is_narrow
	narrow n1 app 192.168.5.3 $VIP
	wait_for 5 is_narrow
	assert_eq "$(drops n2 narrows-other)" $((before + 1)) "dropped"
}

@test "source: workloads of one node cannot use each other's addresses, neither here nor towards other nodes" {
	local node to n
	workload n1 near 192.168.5.6
	workload n1 beside 192.168.5.7
	listen9 n1 near near
	listen9 n3 far far
	spawn app on n1 ip netns exec app sleep 300
	for node in n1 n2; do
		[ $node = n1 ] || { move n1 app n2 && workload n2 other 192.168.5.8; }
		n=$(refused $node)
		for to in 192.168.5.6 $FAR; do
			# of a workload beside it, of one elsewhere, of a node, of nobody
			for src in 192.168.5.7 192.168.5.8 192.168.5.102 192.168.5.77; do
				run_ok on $node ip netns exec app python3 "$TOP/tests/lib/spoof.py" $src $to udp tcp
			done
			n=$((n + 8))
			wait_for 5 refused_are $node $n
		done
		for to in 192.168.5.6 $FAR; do spoof $node app $VIP $to; done
		for to in near far; do
			own() { [ "$(grep -c "^$VIP\$" "$T/$to.out")" -eq $([ $node = n1 ] && echo 1 || echo 2) ]; }
			wait_for 10 own
		done
	done
	refused_are n2 $n || fail "n2 refused $(refused n2), not $n"
	for to in near far; do
		finish $to
		assert_eq "$output" "listening
$VIP
$VIP"
	done
}

no_gap() { # NAME: the receiver saw every number
	wait_for 10 test -e "$T/$1.json"
	all_here() { [ "$(json .done "$T/$1.json")" = true ]; }
	wait_for 20 all_here "$1"
	assert_eq "$(json .missing "$T/$1.json")" 0 "missing of $(cat "$T/$1.json")"
}
counts() { # NAME MORE: it has come further
	local was
	was=$(json .got "$T/$1.json")
	further() { [ "$(json .got "$T/$1.json")" -gt $((was + $2)) ]; }
	wait_for 20 further "$1" "$2"
}

# numbered datagrams from the workload that moves to `far`
flow() {
	spawn outwards on n3 ip netns exec far python3 "$TOP/tests/lib/udpcount.py" recv $FAR:7000 "$T/out.json"
	spawn app on n1 ip netns exec app python3 "$TOP/tests/lib/udpcount.py" send $VIP $FAR:7000 "$T/stop"
	wait_for 10 test -e "$T/out.json"
	counts out 100
}
flow_end() {
	touch "$T/stop"
	no_gap out
}

@test "source: moves, to and fro and on, lose nothing in either direction" {
	local before from to
	workload n2 near 192.168.5.6
	spawn pings on n3 ip netns exec far ping -n -i 0.02 $VIP
	spawn beside on n2 ip netns exec near ping -n -i 0.02 $VIP
	flow
	before=$(lost)
	for hop in "n1 n2" "n2 n1" "n1 n3" "n3 n2"; do
		from=${hop% *} to=${hop#* }
		TIMEOUT=60 move $from app $to
		counts out 100
	done
	flow_end
	for p in pings beside; do pings_whole $p; done
	assert_eq "$(lost)" "$before" "drops on all nodes"
}

@test "source: the new node is heard before the directory has told that there is one" {
	local before
	flow
	before=$(lost)
	# a packet waits for three seconds; the question that was not heard is to be repeated soon after the link is whole, not twice as
	# late each time
	run_ok on n3 sysctl -qw net.ipv4.tcp_thin_linear_timeouts=1
	# from here on n3 hears nothing of the directory, neither news nor answers; and it sends nothing that could
	# be answered with a correction
	run_ok lab cut n3 n4
	spawn mover on n1 ms-migrate app n2 --json
	some_wait() { [ "$(path n3 .unverified_now)" -gt 0 ]; }
	wait_for 30 some_wait
	run_ok lab heal n3 n4
	none_waits() { [ "$(path n3 .unverified_now)" -eq 0 ]; }
	wait_for 5 none_waits
	finish mover none
	assert_eq "$status" 0 "ms-migrate"
	counts out 100
	flow_end
	assert_eq "$(lost)" "$before" "drops on all nodes"
}

# ---- without encryption, where a test can make datagrams of its own --------------------------------------------------

plaintext() {
	local n conf
	for n in n1 n2 n3 n4; do
		conf=/tmp/ms-lab-$LAB_NAME/nodes/$n/etc/overlayd.conf
		! grep -q '^tunnel' "$conf" || continue
		echo "tunnel { encryption = off }" >>"$conf"
		run_ok on $n overlayd stop
		run_ok on $n overlayd start
	done
}

# forge NODE ADDRESS:PORT TARGET CASE...: datagrams as if from there, one per case; then listens a moment on that port
forge() {
	cat >"$T/forge.py" <<-'PY'
		import socket, struct, sys
		host, port = sys.argv[1].split(":")
		port, target = int(port), sys.argv[2]
		raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
		def ip(src, dst, body, proto=17, word=0, ihl=5, length=None):
		    n = ihl * 4 + len(body) if length is None else length
		    def head(csum):
		        return struct.pack("!BBHHHBBH4s4s", 0x40 | ihl, 0, n, 7, word, 64, proto, csum,
		            socket.inet_aton(src), socket.inet_aton(dst)) + b"\x01" * (ihl * 4 - 20)
		    total = sum(struct.unpack(f"!{ihl * 2}H", head(0)))
		    while total >> 16: total = (total & 0xffff) + (total >> 16)
		    return head(0xffff - total) + body
		def udp(data=b"forged", length=None):
		    return struct.pack("!HHHH", 1, 9, 8 + len(data) if length is None else length, 0) + data
		far, two, app = "192.168.5.5", "192.168.5.3", "192.168.5.2"
		def data(inner, type=1): return bytes([1, type]) + bytes(14) + inner
		cases = {
		    "good": data(ip(far, two, udp())),
		    "options": data(ip(far, two, udp(), ihl=6)),
		    "tiny-fragment": data(ip(far, two, bytes(8), proto=6, word=0x2000)),
		    "endless-fragment": data(ip(far, two, bytes(64), proto=1, word=0x1fff)),
		    "whole-fragment": data(ip(far, two, udp(bytes(64)), word=0x2000)),
		    "longer": data(ip(far, two, udp(), length=200)),
		    "shorter": data(ip(far, two, udp(), length=24)),
		    "udp-longer": data(ip(far, two, udp(length=100))),
		    "cut-header": data(b"")[:10],
		    "no-packet": data(b""),
		    "other-version": b"\x02" + data(ip(far, two, udp()))[1:],
		    "reserved-type": data(ip(far, two, udp()), 3),
		    "unknown-type": data(ip(far, two, udp()), 9),
		    "source-outside": data(ip("10.0.0.1", two, udp())),
		    "destination-outside": data(ip(far, "10.0.0.1", udp())),
		    "of-another-node": data(ip("192.168.5.4", two, udp())),
		    "of-the-receiver": data(ip(two, two, udp())),
		    "forwarded": data(ip(app, two, udp()), 2),
		    "forwarded-app": data(ip("192.168.5.4", app, udp()), 2),
		}
		listen = None if port == 7470 else socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
		if listen: listen.bind((host, port)); listen.settimeout(0.5)
		for case in sys.argv[3:]:
		    u = struct.pack("!HHHH", port, 7470, 8 + len(cases[case]), 0) + cases[case]
		    raw.sendto(struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(u), 1, 0, 64, 17, 0,
		        socket.inet_aton(host), socket.inet_aton(target)) + u, (target, 0))
		if listen:
		    try: print("answered", listen.recv(100))
		    except TimeoutError: print("silence")
	PY
	run_ok on "$1" python3 "$T/forge.py" "${@:2}"
}

@test "source: whatever else is wrong with a datagram is dropped and counted by its reason, and nobody is answered" {
	plaintext
	workload n2 two 192.168.5.3
	workload n4 four 192.168.5.4
	listen9 n2 two heard
	wait_for 10 on n2 ip netns exec two ping -c 1 -W 5 $FAR
	local line before
	while read -r line; do
		set -- $line
		before=$(drops n2 "$1")
		forge n3 10.77.0.3:7470 10.77.0.2 "${@:2}"
		wait_for 5 drops_are n2 "$1" $((before + $# - 1))
	done <<-'TABLE'
		ip-options options
		bad-fragment tiny-fragment endless-fragment
		malformed longer shorter udp-longer no-packet
		bad-header cut-header other-version unknown-type
		datagram-type reserved-type
		source-outside source-outside
		destination-outside destination-outside
		source-elsewhere of-another-node of-the-receiver
		forwarder-unknown forwarded
	TABLE
	# a stranger, who knows everything but has no address of a node
	before=$(drops n2 source-elsewhere)
	forge n3 10.77.0.3:9999 10.77.0.2 good
	assert_eq "$output" silence
	wait_for 5 drops_are n2 source-elsewhere $((before + 1))
	# a fragment as kernels make them is no offence, and what is true is heard
	before=$(lost)
	forge n3 10.77.0.3:7470 10.77.0.2 whole-fragment good
	wait_for 5 grep -q "^$FAR\$" "$T/heard.out"
	assert_eq "$(lost)" "$before" "drops"
	finish heard
	assert_eq "$output" "listening
$FAR"
}

@test "source: forwarded packets are taken from who had the vIP, and go one hop" {
	plaintext
	workload n4 four 192.168.5.4
	start_app() { spawn app on n1 ip netns exec app sleep 300; }
	start_app
	move n1 app n2
	listen9 n2 app heard
	# from n1, which had it; from n3, which had not; the same after n2 has forgotten everything
	local k was
	for k in 1 2; do
		forge n1 10.77.0.1:7470 10.77.0.2 forwarded-app
		heard() { [ "$(grep -c '^192.168.5.4$' "$T/heard.out")" -eq $k ]; }
		wait_for 5 heard
		was=$(drops n2 forwarder-unknown)
		forge n3 10.77.0.3:7470 10.77.0.2 forwarded-app
		wait_for 5 drops_are n2 forwarder-unknown $((was + 1))
		[ $k = 2 ] || { run_ok on n2 overlayd stop && run_ok on n2 overlayd start; }
	done
	# where it is not and never was: not from a liar, and from the former holder it waits in vain
	was=$(path n3 .forwarded)
	local unknown expired
	unknown=$(drops n3 forwarder-unknown) expired=$(drops n3 hold-expired)
	forge n2 10.77.0.4:7470 10.77.0.3 forwarded-app
	wait_for 5 drops_are n3 forwarder-unknown $((unknown + 1))
	forge n1 10.77.0.1:7470 10.77.0.3 forwarded-app
	wait_for 8 drops_are n3 hold-expired $((expired + 1))
	assert_eq "$(path n3 .forwarded)" "$was" "sent on by n3"
}
