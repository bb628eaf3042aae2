#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# The control plane: connections between nodes, who may give orders, reload, and what strangers achieve at the door

load helpers

setup_file() { lab_up 2; }
teardown_file() { lab_down; }
teardown() { drop_workloads && end_spawned; }

CONF=/etc/overlayd/overlayd.conf

# peer_is NODE OTHER STATE: what NODE says of its connection to OTHER
peer_is() {
	[ "$(lab exec "$1" overlayd status --json | jq -r --arg p "$2" '.peers[] | select(.name == $p).state')" = "$3" ]
}

# rtt_known NODE OTHER: a ping has come back
rtt_known() {
	lab exec "$1" overlayd status --json | jq -e --arg p "$2" '.peers[] | select(.name == $p).rtt_us > 0'
}

talk() {
	workload n1 one 192.168.5.2
	workload n2 two 192.168.5.3
	wait_for 20 on n1 ip netns exec one ping -c 1 -W 2 192.168.5.3
}

# as_nobody NODE CMD...: without any right
as_nobody() {
	local node=$1
	shift
	lab exec "$node" setpriv --reuid 65534 --regid 65534 --clear-groups "$@"
}

@test "control: nodes that talk are connected, both know the round trip" {
	talk
	wait_for 10 peer_is n1 n2 up
	wait_for 10 peer_is n2 n1 up
	wait_for 10 rtt_known n1 n2
	wait_for 10 rtt_known n2 n1
}

@test "control: a killed daemon is missed, and found again when it is back" {
	talk
	wait_for 10 peer_is n1 n2 up
	run_ok on n2 sh -c 'kill -9 "$(cat /run/overlayd/overlayd.pid)"'
	wait_for 10 eval '! peer_is n1 n2 up'
	run_ok lab start n2
	wait_for 15 peer_is n1 n2 up
	wait_for 20 on n1 ip netns exec one ping -c 1 -W 2 192.168.5.3
}

@test "control: a cut link is noticed by silence, and healed" {
	talk
	wait_for 10 peer_is n1 n2 up
	run_ok lab cut n2
	wait_for 30 eval '! peer_is n1 n2 up'
	run_ok lab heal n2
	wait_for 15 peer_is n1 n2 up
}

@test "control: anybody may ask for the status, orders are root's and the operators'" {
	run_ok as_nobody n1 overlayd status
	run_fail as_nobody n1 overlayd netns add app 192.168.5.2
	assert_match "$output" "uid 65534 may not: only root and the operators"
	run_fail as_nobody n1 overlayd stop
	run_ok on n1 overlayd netns list --json
	assert_eq "$(json length)" 0 "workloads"
}

@test "control: an operator named in the configuration may, from the reload on" {
	run_ok on n1 sh -c "cp $CONF $CONF.was && echo 'operators = {\"nobody\"}' >>$CONF && overlayd reload"
	run_ok as_nobody n1 overlayd reload
	run_ok on n1 sh -c "mv $CONF.was $CONF && overlayd reload"
	run_fail as_nobody n1 overlayd reload
}

@test "control: reload takes what can change, and names what cannot" {
	run_ok on n1 sh -c "cp $CONF $CONF.was && echo 'keepalive = 2s' >>$CONF && overlayd reload"
	run_fail on n1 sh -c "echo 'mtu = 1000' >>$CONF && overlayd reload"
	assert_match "$output" "mtu"
	assert_match "$output" "restart"
	run_fail on n1 sh -c "echo 'mtu = many' >>$CONF && overlayd reload"
	assert_match "$output" "overlayd.conf:[0-9]+: mtu: expected a number 576..65000, not 'many'"
	run_ok on n1 sh -c "mv $CONF.was $CONF && overlayd reload"
	run_ok on n1 overlayd status
}

# what a reload replaces must not be what the connections live on
@test "control: after a reload a node that was away is recognised" {
	talk
	run_ok on n1 sh -c "cp $CONF $CONF.was && echo 'keepalive = 2s' >>$CONF && overlayd reload"
	run_ok on n2 overlayd stop
	run_ok on n2 overlayd start
	wait_for 20 peer_is n1 n2 up
	wait_for 20 peer_is n2 n1 up
	run_ok on n1 sh -c "mv $CONF.was $CONF && overlayd reload"
}

@test "control: whoever is no node is shown the door, and the daemon does not mind" {
	run_ok on n2 timeout 60 bash -c 'exec 3<>/dev/tcp/10.77.0.1/7470; printf "GET / HTTP/1.0\r\n\r\nfiller" >&3; cat <&3'
	# a right beginning, and then no TLS
	run_ok on n2 timeout 60 bash -c 'exec 3<>/dev/tcp/10.77.0.1/7470; printf "OVLD\1\1\0\0%016d%s" 0 "what now" >&3; cat <&3 >/dev/null'
	run_ok on n1 overlayd status
}

@test "control: commands say so when no daemon runs" {
	run_ok lab stop n2
	run_fail on n2 overlayd status
	assert_match "$output" "overlayd is not running on this node"
	run_ok lab start n2
	run_ok on n2 overlayd status
}
