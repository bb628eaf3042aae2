# SPDX-License-Identifier: Apache-2.0
# What the processes that parse strangers' bytes can still do, as the kernel tells: capabilities, new privileges, system calls.
load helpers

setup_file() { lab_up 1; }
teardown_file() { lab_down; }
teardown() { drop_workloads; end_spawned; }

status_of() { # PID[/task/TID] FIELD
	awk -v f="$2:" '$1 == f { print $2 }' "/proc/$1/status"
}

confined() { # PID[/task/TID] CAPABILITIES
	assert_eq "$(status_of "$1" CapEff)" "$2" "effective capabilities of $1"
	assert_eq "$(status_of "$1" CapPrm)" "$2" "permitted capabilities of $1"
	assert_eq "$(status_of "$1" NoNewPrivs)" 1 "no_new_privs of $1"
	assert_eq "$(status_of "$1" Seccomp)" 2 "seccomp of $1"
}

@test "confine: overlayd's packet thread has no capability and a short list of system calls, its control thread what workloads need" {
	local pid tid n=0
	pid=$(on n1 cat /run/overlayd/overlayd.pid)
	# DAC_READ_SEARCH, KILL, NET_BIND_SERVICE, NET_ADMIN, SYS_PTRACE, SYS_ADMIN
	confined "$pid" 0000000000281424
	for tid in /proc/"$pid"/task/*; do
		tid=${tid##*/}
		[ "$tid" != "$pid" ] || continue
		confined "$pid/task/$tid" 0000000000000000
		n=$((n + 1))
	done
	[ $n -gt 0 ]
}

@test "confine: tunstack keeps CAP_NET_ADMIN and CAP_IPC_LOCK, directoryd CAP_NET_BIND_SERVICE" {
	local pid
	workload n1 app 192.168.5.2
	pid=$(on n1 overlayd netns list --json | jq '.[0].tunstack.pid')
	confined "$pid" 0000000000005000
	pid=$(on n1 cat /run/overlayd/directoryd.pid)
	confined "$pid" 0000000000000400
	refute_match "$(on n1 cat /run/overlayd/directoryd.log /run/overlayd/overlayd.log)" "not confined"
}
