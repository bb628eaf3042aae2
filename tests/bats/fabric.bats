# SPDX-License-Identifier: Apache-2.0
# The fabric of one node, driven by fabrictool: no daemon, real sockets. Each test has a node of its own:
#
#   node's namespace            ovl-fabric                             app 192.168.5.2, 192.168.6.2 (slot 1)
#   eth7 10.99.0.1/24, default  ms0 192.168.5.200 -- ms0-fab, ve-* --- db  192.168.5.7  (slot 2)
#                               overlay0 == fabrictool bridge ======== far0 in the namespace far: 192.168.5.99, 192.168.6.99
load helpers

setup() {
	need_root
	export FABRICTOOL="$BUILD/bin/fabrictool -s 192.168.5.0/24=192.168.5.200 -s 192.168.6.0/24"
	spawn node unshare -n -m bash -c 'mount --make-rprivate / && mount -t tmpfs none /run &&
		sysctl -qw net.ipv6.conf.default.accept_dad=0 &&
		ip link set lo up && ip link add eth7 type veth peer name eth8 && ip link set eth8 up && ip link set eth7 up &&
		ip addr add 10.99.0.1/24 dev eth7 && ip route add default via 10.99.0.254 &&
		until [ "$(ip -6 addr show scope link | grep -c inet6)" = 2 ]; do sleep 0.02; done &&
		>/run/ready && exec sleep 3600'
	NODE=$SPAWNED
	wait_for 10 test -e "/proc/$NODE/root/run/ready"
}

teardown() { end_spawned; }

in_node() { nsenter -t "$NODE" -n -m -- "$@"; }
# shellcheck disable=SC2086
tool() { in_node $FABRICTOOL "$@"; }
peers() { in_node timeout -k 5 60 "${PYTHON:-python3}" "$TOP/tests/lib/fabricpeers.py" "$@"; }
fab() { in_node ip -n ovl-fabric "$@"; }

two_workloads() {
	run_ok tool ensure app 1 192.168.5.2,192.168.6.2
	run_ok tool ensure db 2 192.168.5.7
}

# everything that is, without the numbers the kernel gives by itself
dump_fabric() {
	fab rule | sort # those of one preference exclude each other
	fab route show table all | sort
	fab neigh | sort
	fab addr | sed -E 's/^[0-9]+: //; s/@if[0-9]+//; s/link-netnsid [0-9]+//' | sort
	for ns in "$@"; do
		in_node ip -n "$ns" route show table all | sort
		in_node ip -n "$ns" neigh
		in_node ip -n "$ns" addr | sed -E 's/@if[0-9]+//'
	done
}
dump_host() {
	in_node ip -o addr | sed -E 's/^[0-9]+: //' | sort
	in_node ip route show table all | sort
	in_node ip rule
	in_node ip neigh | sort
	in_node sysctl -a 2>/dev/null | grep '^net\.' | sort
}

# fabrictool bridge and the far namespace behind it, with more addresses if told
far_up() {
	in_node ip netns add far
	[ -e "/proc/$NODE/root/run/bridge.stop" ] || in_node mkfifo /run/bridge.stop
	# shellcheck disable=SC2086
	spawn bridge nsenter -t "$NODE" -n -m -- sh -c "exec $FABRICTOOL bridge far <>/run/bridge.stop"
	wait_for 10 grep -qx ready "$BATS_TEST_TMPDIR/bridge.out"
	in_node ip -n far link set lo up
	for addr in 192.168.5.99 192.168.6.99 "$@"; do
		in_node ip -n far addr add "$addr/32" dev far0
	done
	in_node ip -n far link set far0 mtu 1440 up
	in_node ip -n far route add default dev far0 src 192.168.5.99
}

@test "fabric: workloads of one node talk, in both directions, without anything of ours running" {
	two_workloads
	run_ok peers talk app 192.168.5.2 db 192.168.5.7
	run_ok peers talk db 192.168.5.7 app 192.168.5.2
	run_ok peers talk app 192.168.6.2 db 192.168.5.7
	run_ok peers talk app 192.168.5.2 app 192.168.5.2
	run_ok peers talk app 127.0.0.1 app 127.0.0.1
	run_fail grep -v PERMANENT <(fab neigh; in_node ip -n app neigh; in_node ip -n db neigh)
	assert_eq "$output" "" "neighbours that were asked for"
}

@test "fabric: a workload's interface: rto_min, no IPv6 but on lo, a MAC that moves with the vIP" {
	two_workloads
	run_ok in_node ip -n app route
	assert_eq "$output" "default via 169.254.1.1 dev eth0 proto 111 src 192.168.5.2 onlink rto_min 40ms "
	run_ok in_node ip -n app -6 -o addr
	assert_match "$output" "::1/128"
	refute_match "$output" "eth0"
	run_ok in_node ip -n app link show eth0
	assert_match "$output" "mtu 1440 .*link/ether 02:6f:c0:a8:05:02 "
	in_node ip -n app link set eth0 mtu 1300 address 02:00:00:00:00:01
	in_node ip -n app neigh flush dev eth0 nud permanent
	run_ok tool ensure app 1 192.168.5.2,192.168.6.2
	run_ok in_node ip -n app link show eth0
	assert_match "$output" "mtu 1440 .*link/ether 02:6f:c0:a8:05:02 "
	run_ok peers talk app 192.168.5.2 db 192.168.5.7
}

@test "fabric: the fabric's sysctls are set, and set again" {
	two_workloads
	for _ in set again; do
		run_ok in_node ip netns exec ovl-fabric sysctl -a
		local all=$output
		assert_match "$all" "net.ipv4.ip_forward = 1"
		for dev in all default lo overlay0 ms0-fab ve-app ve-db; do
			local strict=0
			[[ $dev != ve-* ]] || strict=1
			assert_match "$all" "net.ipv4.conf.$dev.rp_filter = $strict"
			for key in send_redirects accept_redirects; do
				assert_match "$all" "net.ipv4.conf.$dev.$key = 0"
			done
		done
		assert_match "$all" "net.ipv6.conf.all.disable_ipv6 = 1"
		assert_match "$all" "net.ipv6.conf.ve-app.disable_ipv6 = 1"
		in_node ip netns exec ovl-fabric sysctl -qw net.ipv4.ip_forward=0 net.ipv4.conf.all.rp_filter=1 \
			net.ipv4.conf.ve-app.rp_filter=0 net.ipv4.conf.overlay0.send_redirects=1 \
			net.ipv4.conf.ms0-fab.rp_filter=2 net.ipv6.conf.all.disable_ipv6=0
		two_workloads
	done
}

@test "fabric: the host's programs reach vIPs and are reached, through ms0" {
	in_node sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.default.rp_filter=1 # a strict host
	two_workloads
	run_ok peers talk app 192.168.5.2 . 192.168.5.200
	run_ok peers talk . 192.168.5.200 app 192.168.5.2
	run_ok peers talk . 192.168.5.200 . 192.168.5.200
}

@test "fabric: remote peers come and go through overlay0" {
	two_workloads
	far_up
	run_ok peers talk app 192.168.5.2 far 192.168.5.99
	run_ok peers talk far 192.168.5.99 app 192.168.5.2
	run_ok peers talk far 192.168.6.99 app 192.168.5.2
	run_ok peers talk . 192.168.5.200 far 192.168.5.99
	run_ok peers talk far 192.168.5.99 . 192.168.5.200
	assert_match "$(cat "$BATS_TEST_TMPDIR/bridge.out")" "pkt 192.168.5.2 192.168.5.99 6"
	refute_match "$(cat "$BATS_TEST_TMPDIR/bridge.out")" "192.168.5.7" "what stays on the node"
}

# a UDP datagram and a SYN to port 9, as if from SRC
spoof() { # PLACE SRC DST
	run_ok in_node ip netns exec "$1" python3 "$TOP/tests/lib/spoof.py" "$2" "$3" udp tcp
}
refused() { # how many packets the fabric's kernel has refused for their source
	in_node ip netns exec ovl-fabric awk '/^TcpExt/ { if (!n++) split($0, name); else for (i in name) if (name[i] == "IPReversePathFilter") print $i }' /proc/net/netstat
}
refused_is() { [ "$(refused)" -eq "$1" ]; }

@test "fabric: a workload speaks with its own addresses and no others, captured or not" {
	two_workloads
	run_ok tool ensure cat 3 192.168.5.8
	far_up
	in_node ip -n far route add 192.168.5.8 dev far0
	local to src n=0
	for to in 192.168.5.7 192.168.5.200 192.168.5.99 192.168.5.8; do
		for src in 192.168.5.8 192.168.5.200 192.168.5.99 192.168.5.55 10.1.2.3; do
			spoof app $src $to
			n=$((n + 2))
			wait_for 5 refused_is $n
		done
	done
	refute_match "$(cat "$BATS_TEST_TMPDIR/bridge.out")" "^pkt (192.168.5.(8|200|99|55)|10.1.2.3) " "what left the node"
	# its own, each of them, and through a capture too
	for to in 192.168.5.7 192.168.5.200 192.168.5.99; do
		spoof app 192.168.5.2 $to
		spoof app 192.168.6.2 $to
	done
	run_ok peers talk app 192.168.6.2 db 192.168.5.7
	run_ok peers talk far 192.168.5.99 app 192.168.5.2
	for to in db . far; do run_ok peers capture $to; done
	refused_is $n || fail "refused $(refused) instead of $n"
}

@test "fabric: ip netns exec finds workloads; pids of a namespace are found" {
	two_workloads
	run_ok in_node ip netns exec app ip -o -4 addr show dev eth0
	assert_match "$output" "192.168.5.2/32.*192.168.6.2/32"
	spawn inside nsenter -t "$NODE" -n -m -- ip netns exec app sleep 60
	wait_for 5 grep -qx sleep "/proc/$SPAWNED/comm"
	run_ok tool pids app
	assert_eq "$output" "$SPAWNED"
	run_ok tool pids db
	assert_eq "$output" ""
}

@test "fabric: a namespace made by ip netns add is adopted, one without its file's mount is made good" {
	in_node ip netns add app
	in_node touch /run/netns/db
	two_workloads
	run_ok peers talk app 192.168.5.2 db 192.168.5.7
}

@test "fabric: capture of a co-located peer: held, injected, released" {
	two_workloads
	run_ok peers capture db
	echo "# $output" >&3
}

@test "fabric: capture of the host: held, injected, released" {
	two_workloads
	run_ok peers capture .
}

@test "fabric: capture of a remote peer: held, injected, released" {
	two_workloads
	far_up
	run_ok peers capture far
}

@test "fabric: the capturing process killed: direct again (co-located, host, remote)" {
	two_workloads
	far_up
	for peer in db . far; do
		run_ok peers death $peer
	done
}

@test "fabric: the capturing process killed while fenced: nothing passes (co-located, host, remote)" {
	two_workloads
	far_up
	for peer in db . far; do
		run_ok peers fenced $peer
	done
}

@test "fabric: a mute copy is neither asked nor heard until it is active" {
	run_ok tool mute app 1 192.168.5.2
	run_ok tool ensure db 2 192.168.5.7
	far_up 192.168.5.2
	run_ok tool list
	assert_match "$output" "app 1 192.168.5.2 mute"
	run_ok peers mute
	run_ok tool list
	assert_match "$output" "app 1 192.168.5.2 mute"
}

ours() { fab rule | grep -vE '^(0|32766|32767):' | tr -s '\t ' '  '; }
hold() { # COMMAND, of app's
	echo "$1" | in_node tee /run/hold >/dev/null
	wait_for 10 grep -q "^ok $1 0 " "$BATS_TEST_TMPDIR/hold.out"
}

@test "fabric: only a captured, fenced or mute workload has rules, which cost every packet" {
	local slot
	for slot in {11..20}; do
		run_ok tool ensure "w$slot" "$slot" "192.168.5.$slot"
	done
	two_workloads
	assert_eq "$(ours)" "" "rules of those that are at work"
	in_node mkfifo /run/hold
	# shellcheck disable=SC2086
	spawn hold nsenter -t "$NODE" -n -m -- sh -c "exec $FABRICTOOL hold w15 15 192.168.5.15 <>/run/hold"
	wait_for 10 grep -qx ready "$BATS_TEST_TMPDIR/hold.out"
	hold capture
	local its="1000: from all to 192.168.5.15 iif hold-w15 lookup 20031
1100: from all to 192.168.5.15 lookup 20030
1200: from all iif ve-w15 lookup 20030"
	assert_eq "$(ours)" "$its" "rules of one that is captured"
	run_ok tool ensure w15 15 192.168.5.15
	hold fence
	hold release
	assert_eq "$(ours)" "$its" "rules of one that is fenced"
	hold unfence
	assert_eq "$(ours)" "" "rules after a release"
	run_ok tool deactivate w16 16 192.168.5.16
	assert_eq "$(ours)" "1300: from all iif ve-w16 lookup 20032" "rules of one that is mute"
	run_ok tool activate w16 16 192.168.5.16
	assert_eq "$(ours)" "" "rules of one that came to life"
}

@test "fabric: everything twice leaves the same" {
	two_workloads
	run_ok tool mute third 3 192.168.6.3
	dump_fabric app db third >"$BATS_TEST_TMPDIR/1"
	dump_host >"$BATS_TEST_TMPDIR/h1"
	run_ok tool up
	two_workloads
	run_ok tool mute third 3 192.168.6.3
	run_ok tool activate app 1 192.168.5.2,192.168.6.2
	run_ok tool deactivate third 3 192.168.6.3
	dump_fabric app db third >"$BATS_TEST_TMPDIR/2"
	dump_host >"$BATS_TEST_TMPDIR/h2"
	run_ok diff "$BATS_TEST_TMPDIR/1" "$BATS_TEST_TMPDIR/2"
	run_ok diff "$BATS_TEST_TMPDIR/h1" "$BATS_TEST_TMPDIR/h2"
	run_ok tool list
	assert_eq "$(sort <<<"$output")" "app 1 192.168.5.2,192.168.6.2 active
db 2 192.168.5.7 active
third 3 192.168.6.3 mute"
	run_ok tool remove third
	run_ok tool remove third
	run_ok tool list
	assert_eq "$(sort <<<"$output")" "app 1 192.168.5.2,192.168.6.2 active
db 2 192.168.5.7 active"
	refute_match "$(fab rule; fab route show table all)" "2000[67]|192.168.6.3" "what third had"
}

@test "fabric: killed at any moment, the same call again completes it" {
	two_workloads
	dump_fabric app db >"$BATS_TEST_TMPDIR/1"
	run_ok tool purge
	for i in 1 2 3 4 5 6; do
		for cmd in "ensure app 1 192.168.5.2,192.168.6.2" "ensure db 2 192.168.5.7"; do
			# shellcheck disable=SC2086
			in_node timeout -s KILL "0.00$i" $FABRICTOOL $cmd 2>/dev/null || true
		done
		two_workloads
		dump_fabric app db >"$BATS_TEST_TMPDIR/2"
		run_ok diff "$BATS_TEST_TMPDIR/1" "$BATS_TEST_TMPDIR/2"
		# shellcheck disable=SC2086
		in_node timeout -s KILL "0.00$i" $FABRICTOOL remove app 2>/dev/null || true
		run_ok tool remove app
		refute_match "$(fab rule; fab route show table all; fab link; in_node ls /run/netns)" "2000[23]|app" "what app had"
		in_node timeout -s KILL "0.00$i" "$BUILD/bin/fabrictool" purge 2>/dev/null || true
		# as the daemon does from its records
		run_ok tool remove db
		run_ok tool purge
		assert_eq "$(in_node ls /run/netns)" "" "namespaces left"
	done
}

@test "fabric: the host keeps its addresses, routes, rules and sysctls but for ms0; purge leaves nothing" {
	dump_host >"$BATS_TEST_TMPDIR/before"
	two_workloads
	dump_host >"$BATS_TEST_TMPDIR/during"
	run_rc 1 diff "$BATS_TEST_TMPDIR/before" "$BATS_TEST_TMPDIR/during"
	refute_match "$output" $'\n<' "something of the host's is gone"
	run_rc 1 grep -vE '^[0-9]+(,[0-9]+)?a[0-9]+(,[0-9]+)?$|^> .*\bms0\b' <<<"$output"
	run_ok in_node ip route show dev ms0
	assert_eq "$(tr -s ' ' <<<"$output" | sed 's/ $//')" \
		"192.168.5.0/24 via 169.254.1.1 proto 111 src 192.168.5.200 onlink rto_min 40ms" "ms0's routes"
	run_ok tool purge
	dump_host >"$BATS_TEST_TMPDIR/after"
	run_ok diff "$BATS_TEST_TMPDIR/before" "$BATS_TEST_TMPDIR/after"
	assert_eq "$(in_node ls /run/netns)" "" "namespaces left"
	run_ok tool purge
}

@test "fabric: another configuration takes the place of the old one" {
	two_workloads
	export FABRICTOOL="$BUILD/bin/fabrictool -m 1400 -s 192.168.5.0/24=192.168.5.201 -s 192.168.7.0/24=192.168.7.1"
	run_ok tool up
	two_workloads
	run_ok in_node ip -o -4 addr show dev ms0
	refute_match "$output" "192.168.5.200"
	assert_match "$output" "192.168.5.201/32.*192.168.7.1/32"
	run_ok in_node ip route show dev ms0
	assert_match "$output" "192.168.5.0/24 .*src 192.168.5.201.*192.168.7.0/24 .*src 192.168.7.1 "
	refute_match "$(fab route; fab neigh)" "192.168.5.200|192.168.6.0/24" "what was configured before"
	assert_match "$(fab route)" "192.168.7.0/24 dev overlay0"
	assert_match "$(in_node ip -n app link show eth0)" "mtu 1400"
	run_ok peers talk app 192.168.5.2 . 192.168.5.201
	export FABRICTOOL="$BUILD/bin/fabrictool -s 192.168.5.0/24"
	run_ok tool up
	run_fail in_node ip link show ms0
}

@test "fabric: overlaps with real networks are refused by name, and nothing is touched" {
	dump_host >"$BATS_TEST_TMPDIR/before"
	for args in "-s 10.99.0.128/25" "-s 10.99.0.0/16=10.99.3.1"; do
		# shellcheck disable=SC2086
		run_fail in_node "$BUILD/bin/fabrictool" $args up
		assert_match "$output" "10.99.0.*overlaps eth7 10.99.0.1/24"
	done
	in_node ip route add 192.168.0.0/16 via 10.99.0.254
	run_fail tool up
	assert_match "$output" "192.168.5.0/24 overlaps the route 192.168.0.0/16 via 10.99.0.254 dev eth7; 192.168.6.0/24 overlaps"
	in_node ip route del 192.168.0.0/16
	in_node ip route add 128.0.0.0/1 via 10.99.0.254
	in_node ip route add unreachable 192.168.0.0/16
	run_ok tool up
	run_ok tool purge
	in_node ip route del 128.0.0.0/1
	in_node ip route del unreachable 192.168.0.0/16
	run_fail in_node "$BUILD/bin/fabrictool" -s 192.168.5.0/24=192.168.6.1 up
	assert_match "$output" "192.168.6.1 is not in 192.168.5.0/24"
	in_node ip link add ms0 type veth peer name other
	run_fail tool up
	assert_match "$output" "an interface ms0 which is not overlayd's"
	run_ok tool purge
	run_ok in_node ip link show ms0
	in_node ip link del ms0
	run_ok tool purge
	dump_host >"$BATS_TEST_TMPDIR/after"
	run_ok diff "$BATS_TEST_TMPDIR/before" "$BATS_TEST_TMPDIR/after"
}

@test "fabric: long names work, colliding slots, vIPs and foreign names are refused" {
	local name=workload-with-a-really-long-name-of-sixty-three-characters-0000
	two_workloads
	run_ok tool ensure $name 4 192.168.5.4
	run_ok peers talk $name 192.168.5.4 db 192.168.5.7
	run_ok tool list
	assert_match "$output" "$name 4 192.168.5.4 active"
	run_fail tool ensure web 2 192.168.5.5
	assert_match "$output" "slot 2 of web is db's"
	run_fail tool ensure web 5 192.168.5.7
	assert_match "$output" "192.168.5.7 of web is db's here"
	run_fail tool ensure db 2 192.168.5.8
	assert_match "$output" "db exists with another slot or other vIPs"
	run_fail tool ensure ovl-fabric 6 192.168.5.8
	run_fail tool ensure ../db 6 192.168.5.8
	run_fail tool ensure web 4001 192.168.5.8
	in_node ip netns add taken
	in_node ip -n taken link add eth0 type veth peer name eth1
	run_fail tool ensure taken 6 192.168.5.8
	assert_match "$output" "create ve-taken with eth0 in the namespace taken: .*File exists"
}

@test "fabric: what a namespace removed by hand leaves does not meet its successors" {
	two_workloads
	in_node mkfifo /run/hold
	# shellcheck disable=SC2086
	spawn hold nsenter -t "$NODE" -n -m -- sh -c "exec $FABRICTOOL hold app 1 192.168.5.2,192.168.6.2 <>/run/hold"
	in_node sh -c 'echo capture >/run/hold; echo fence >/run/hold'
	wait_for 10 grep -q "ok fence 0" "$BATS_TEST_TMPDIR/hold.out"
	in_node ip netns del app
	wait_for 10 eval '! fab link show ve-app'
	finish hold KILL
	run_ok tool ensure app 3 192.168.5.2,192.168.6.2
	run_ok peers talk app 192.168.5.2 db 192.168.5.7
	run_ok tool ensure web 1 192.168.5.5
	run_ok peers talk web 192.168.5.5 app 192.168.5.2
	run_rc 1 grep -E "to 192.168.5.2 .*2000[23]$|ve-app lookup 2000[23]$" <(fab rule)
}

@test "fabric: overlay0 has one owner" {
	run_ok tool up
	far_up
	in_node ip netns add far2
	run_fail tool bridge far2
	assert_match "$output" "overlay0.lock is locked: another overlayd has overlay0 open"
	finish bridge KILL
	in_node ip netns del far
	far_up
}

@test "fabric: eth0's MTU can be nudged and comes back" {
	two_workloads
	run_ok tool mtu app 1439
	assert_match "$(in_node ip -n app link show eth0)" "mtu 1439"
	run_ok tool mtu app 0
	assert_match "$(in_node ip -n app link show eth0)" "mtu 1440"
	run_fail tool mtu nobody 1439
	assert_match "$output" "namespace nobody"
}
