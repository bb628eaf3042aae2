#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# scripts/lab without daemons: nodes are apart, reachable, cut, crashed, and gone without a trace
#
#	n1 10.77.0.1 ---+
#	n2 10.77.0.2 ---+--- br0 (namespace "wire")
#	n3 10.77.0.3 ---+

load helpers

setup_file() { lab_up 3 --bare; }
teardown_file() { lab_down; }
teardown() { end_spawned; }

reaches() { on "$1" ping -c 1 -W 1 "10.77.0.${2#n}"; }

@test "lab: every node reaches every other, with frames of 1500 bytes" {
	local a b
	for a in n1 n2 n3; do
		for b in n1 n2 n3; do
			run_ok on $a ping -c 1 -W 20 -M do -s 1472 10.77.0.${b#n}
		done
	done
	run_fail on n1 ping -c 1 -W 1 -M do -s 1473 10.77.0.2
}

@test "lab: exec keeps directory, exit status, arguments, input and output" {
	cd /usr/share
	assert_eq "$(lab exec n2 pwd)" /usr/share "directory"
	assert_eq "$(lab exec n2 hostname)" n2 "host name"
	assert_eq "$(lab exec n2 printf '%s|' 'a b' '' '*')" "a b||*|" "arguments"
	assert_eq "$(echo hello | lab exec n2 cat)" hello "input"
	run_rc 7 on n3 bash -c 'exit 7'
}

@test "lab: each node has its own /run, /etc/overlayd, /var/lib/overlayd, links and cgroup" {
	local f
	for f in /run/x /etc/overlayd/x /var/lib/overlayd/x; do
		lab exec n1 touch "$f"
		run_rc 1 on n2 test -e "$f"
		[ ! -e "$f" ]
		lab exec n1 rm "$f"
	done
	assert_eq "$(lab exec n1 ls -x /sys/class/net | xargs)" "eth0 lo" "links"
	assert_eq "$(lab exec n1 tail -n 1 /proc/self/cgroup)" "0::/" "cgroup"
	run_ok on n1 mkdir /sys/fs/cgroup/x
	run_rc 1 on n2 test -e /sys/fs/cgroup/x
	run_ok on n1 rmdir /sys/fs/cgroup/x
}

@test "lab: ip netns works inside a node and stays there" {
	run_ok on n1 ip netns add inner
	run_ok on n1 ip netns exec inner true
	assert_eq "$(lab exec n2 ip netns list)" "" "namespaces seen by n2"
	run_rc 1 lab leftovers
	assert_match "$output" "n1: network namespace inner"
	run_ok on n1 ip netns del inner
	run_ok lab leftovers
}

@test "lab: cut and heal one node" {
	lab cut n3
	run_fail reaches n1 n3
	run_fail reaches n3 n2
	wait_for 5 reaches n1 n2
	lab heal n3
	wait_for 5 reaches n1 n3
}

@test "lab: cut and heal a pair" {
	lab cut n1 n2
	run_fail reaches n1 n2
	run_fail reaches n2 n1
	wait_for 5 reaches n1 n3
	wait_for 5 reaches n2 n3
	lab heal n1 n2
	wait_for 5 reaches n1 n2
}

@test "lab: a crashed node is gone with everything in it, and boots again with its files" {
	lab exec n2 touch /var/lib/overlayd/kept
	lab exec n2 ip netns add inner
	spawn inner on n2 ip netns exec inner sleep 1000
	spawn outer on n2 sleep 1000
	wait_for 5 lab_counts n2 3
	lab crash n2
	wait_for 5 _gone inner
	wait_for 5 _gone outer
	run_fail on n2 true
	run_ok lab status
	assert_match "$output" "n2  crashed"
	run_fail reaches n1 n2
	lab boot n2
	wait_for 5 reaches n1 n2
	run_ok on n2 rm /var/lib/overlayd/kept
	assert_eq "$(lab exec n2 ip netns list)" "" "namespaces after the boot"
}

lab_counts() { lab status | grep -q "^$1 .* $2 processes"; }
_gone() { ! kill -0 "$(spawned "$1")"; }

@test "lab: a process that came in by the back door is reported and left alone" {
	local holder
	holder=$(lab status | awk '$1 == "n1" { print $4 }')
	spawn guest nsenter --target "$holder" --net sleep 1000
	wait_for 5 lab_counts n1 2
	run_rc 1 lab leftovers n1
	assert_match "$output" "process $SPAWNED: sleep 1000"
	finish guest
	run_ok lab leftovers n1
}

@test "lab: a second lab lives beside the first, and its end leaves the first alone" {
	LAB_NAME=$TAG-b run_ok lab up 2 --bare
	LAB_NAME=$TAG-b run_ok on n1 ping -c 1 -W 20 10.77.0.2
	run_ok lab list
	assert_match "$output" "$TAG-b"
	LAB_NAME=$TAG-b run_ok lab down
	wait_for 5 reaches n1 n2
	[ ! -e "/tmp/ms-lab-$TAG-b" ]
}

@test "lab: a half-made lab can be taken down, and down is idempotent" {
	LAB_NAME=$TAG-c run_ok lab up 1 --bare
	LAB_NAME=$TAG-c run_fail lab up 1 --bare
	assert_match "$output" "lab down"
	rm "/tmp/ms-lab-$TAG-c/holders/wire"
	LAB_NAME=$TAG-c run_ok lab down
	LAB_NAME=$TAG-c run_ok lab down
	[ ! -e "/tmp/ms-lab-$TAG-c" ]
	assert_eq "$(find /sys/fs/cgroup -maxdepth 2 -name "ms-lab-$TAG-c")" "" "cgroups"
}

@test "lab: wrong usage is told with exit status 2, unknown nodes with 1" {
	run_rc 2 lab
	run_rc 2 lab frobnicate
	run_rc 2 lab up 0
	run_rc 2 lab up 3 --subnet 192.168.5.0/24=n9
	run_rc 2 lab up 3 --subnet 192.168.5.0=n1
	run_rc 1 on n9 true
	LAB_NAME=no-such-lab run_fail on n1 true
}
