#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Figure 2 of the paper of 2001, as a test
#
#	n1  directory of 192.168.5.0/24; A at 192.168.5.1, port 1500
#	n2  directory of 192.168.1.0/24; B at 192.168.1.1
#	n3  C at 192.168.5.2, port 2000: A and B are connected to it ...
#	n4  ... and it moves here; then n3 is destroyed

load helpers

setup_file() { lab_up 4 --subnet 192.168.5.0/24=n1 --subnet 192.168.1.0/24=n2:n2,n3,n4 --vip none; }
teardown_file() { lab_down; }
teardown() { drop_workloads && end_spawned; }

@test "paper 2001, figure 2: C moves from node 3 to node 4, node 3 is destroyed, A and B notice nothing" {
	workload n1 A 192.168.5.1
	workload n2 B 192.168.1.1
	workload n3 C 192.168.5.2
	server n3 C srv 192.168.5.2:2000
	client n1 A a --bind 192.168.5.1:1500 192.168.5.2:2000
	client n2 B b 192.168.5.2:2000
	move n3 "$SERVER" n4
	progress a
	progress b
	lab crash n3
	progress a
	progress b
	client_ok a
	client_ok b
	# node 1 has no part in the second subnet and has never spoken to its directory
	run_rc 1 on n1 grep -F 10.77.0.2:7471 /run/overlayd/overlayd.log
	run_rc 1 on n1 bash -c 'ss -Htn dst 10.77.0.2 dport = :7471 | grep .'
	lab boot n3
}
