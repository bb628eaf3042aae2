#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# seen.bats - what a node shows of itself: status for people and programs, metrics, switches that a reload turns

load helpers

setup_file() { lab_up 2; }
teardown_file() { lab_down; }
teardown() { drop_workloads; end_spawned; }

VIP1=192.168.5.11 VIP2=192.168.5.12

two_workloads() {
	workload n1 one $VIP1
	workload n2 two $VIP2
	run_ok on n1 ip netns exec one ping -c 3 -i 0.05 -W 20 $VIP2
}

state_of() { on "$1" overlayd status --json | jq -r "$2"; } # NODE FILTER
state_is() { [ "$(state_of "$1" "$2")" = "$3" ]; }

# NODE TEXT: what stands behind a marker line of its configuration; the lab's own part stays
configure() {
	on "$1" sed -i '/^# seen.bats$/,$d' /etc/overlayd/overlayd.conf
	on "$1" sh -c "printf '%s\n' '# seen.bats' '$2' >>/etc/overlayd/overlayd.conf"
}

@test "status: offloads, queues, datagrams, every reason to drop, the directory; in words for people" {
	two_workloads
	run_ok on n1 overlayd status --json
	assert_eq "$(json '.fastpath.offloads | tojson')" '{"tso":"on","uso":"on","gso":"on","gro":"on"}'
	assert_eq "$(json '.queues.overlay0_dropped')" 0
	[ "$(json .fastpath.udp.tx_datagrams)" -ge 3 ] || fail "datagrams were not counted" "$output"
	[ "$(json .fastpath.tun.rx_frames)" -ge 3 ] || fail "frames were not counted" "$output"
	assert_eq "$(json '.fastpath.drops."not-authentic"')" 0
	[ "$(json '.fastpath.drops | length')" -ge 17 ] || fail "reasons are missing" "$output"
	run_ok on n1 overlayd status
	assert_match "$output" "offload  tso on, uso on, gso on, gro on"
	assert_match "$output" "directory of 192.168.5.0/24 at 10.77.0.1:7471: up"
	refute_match "$output" "not-authentic"
}

@test "status: a directory that is gone is shown to people, too" {
	run_ok lab exec n2 true
	run_ok lab cut n2
	gone() { on n2 overlayd status | grep -q 'directory of 192.168.5.0/24 at .*: \(connecting\|waiting\|retrying\|down\)'; }
	wait_for 40 gone || { on n2 overlayd status >&2; return 1; }
	run_ok lab heal n2
	wait_for 40 state_is n2 '.directory.directories[0].state' up
}

@test "offloads are switched by a reload, also while data flows" {
	two_workloads
	server n2 two sink "$VIP2:7001"
	client n1 one src "$VIP2:7001"
	for set in "tso = off uso = off" "gso = off" "gro = off" "tso = off uso = off gso = off gro = off"; do
		configure n1 "offload { $set }"
		run_ok on n1 overlayd reload
		for o in tso uso gso gro; do
			want=on
			case $set in *"$o = off"*) want=off ;; esac
			wait_for 5 state_is n1 ".fastpath.offloads.$o" $want
		done
	done
	assert_match "$(on n1 overlayd status)" "tso off, uso off, gso off, gro off"
	configure n1 ""
	run_ok on n1 overlayd reload
	wait_for 5 state_is n1 '.fastpath.offloads | [.[]] | unique | tojson' '["on"]'
	client_ok src
}

@test "spin: as the configuration says, from the next start on; a reload that changes it is refused" {
	local spins
	spins() { state_of n1 '.fastpath.spins'; }
	spinning() { [ "$(spins)" -ge 1 ]; }
	two_workloads
	assert_eq "$(state_of n1 '.fastpath | .spins == 0 and .wakeups >= 1')" true "asleep between packets"
	configure n1 "tunnel { spin = 200 }"
	run_fail on n1 overlayd reload
	assert_match "$output" "a changed tunnel takes effect only after a restart of overlayd"
	run_ok on n1 ip netns exec one ping -c 3 -i 0.05 -W 20 $VIP2
	assert_eq "$(spins)" 0 "refused"
	run_ok on n1 overlayd stop
	run_ok on n1 overlayd start
	run_ok on n1 ip netns exec one ping -c 3 -i 0.05 -W 20 $VIP2
	# after each packet it looks at least once before it sleeps, however slow this machine is; and at last it sleeps
	wait_for 10 spinning
	asleep() { [ "$(state_of n1 .fastpath.wakeups)" -ge 1 ]; }
	wait_for 10 asleep
	configure n1 ""
	run_fail on n1 overlayd reload
	assert_match "$output" "a changed tunnel"
	run_ok on n1 overlayd stop
	run_ok on n1 overlayd start
	run_ok on n1 ip netns exec one ping -c 3 -i 0.05 -W 20 $VIP2
	assert_eq "$(state_of n1 '.fastpath | .spins == 0 and .tun.rx_frames >= 3')" true "off again"
}

@test "metrics: Prometheus text at the address of the configuration, taken over by a reload, and gone with it" {
	two_workloads
	run_fail on n1 curl -sS -m 5 http://127.0.0.1:7472/metrics
	configure n1 'metrics { listen = "127.0.0.1:7472" }'
	run_ok on n1 overlayd reload
	run_ok on n1 curl -sSf -m 5 http://127.0.0.1:7472/metrics
	assert_match "$output" 'overlayd_info\{node="n1",version="[^"]+"} 1'
	assert_match "$output" 'overlayd_offload_active\{offload="gso",state="on"} 1'
	assert_match "$output" 'overlayd_peer_up\{peer="n2"} 1'
	assert_match "$output" 'overlayd_peer_key_age_seconds\{peer="n2"} [0-9]'
	assert_match "$output" 'overlayd_drops_total\{reason="replay"} 0'
	assert_match "$output" 'overlayd_directory_up\{subnet="192.168.5.0/24"} 1'
	assert_match "$output" 'overlayd_workloads\{state="live"} 1'
	[ "$(grep -c '^overlayd_packets_total{fate="sent"} [1-9]' <<<"$output")" = 1 ] || fail "nothing was sent" "$output"
	run_rc 22 on n1 curl -sSf -m 5 http://127.0.0.1:7472/other
	run_rc 22 on n1 curl -sSf -m 5 -X POST http://127.0.0.1:7472/metrics
	# an address that is taken: refused by name, and the old one stays
	configure n1 'metrics { listen = "10.77.0.2:7472" }'
	run_fail on n1 overlayd reload
	assert_match "$output" "10.77.0.2:7472"
	run_ok on n1 curl -sSf -m 5 http://127.0.0.1:7472/
	configure n1 ""
	run_ok on n1 overlayd reload
	run_fail on n1 curl -sS -m 5 http://127.0.0.1:7472/metrics
}

@test "a queue that overflows is counted, shown and logged" {
	two_workloads
	pid=$(on n1 cat /run/overlayd/overlayd.pid)
	kill -STOP "$pid"
	run_ok on n1 ip netns exec one python3 -c "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for k in range(9000): s.sendto(b'x', ('$VIP2', 9))"
	kill -CONT "$pid"
	dropped() { on n1 overlayd status --json | jq -e '.queues.overlay0_dropped > 0'; }
	wait_for 10 dropped
	assert_match "$(on n1 overlayd status)" "queue of overlay0 full: [1-9]"
	wait_for 20 on n1 grep -q 'overlay0 was full: [1-9][0-9]* packets dropped' /run/overlayd/overlayd.log
}
