#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2154
# What has no connection: pings are answered throughout a move, and no datagram is lost that had reached the socket or came
# while the program was frozen.
#
#	n1 (directory)   n2   n3      app 192.168.5.2 moves, from n1; far 192.168.5.5 on n3 is where clients run
#
# Needs a build with FAULTS=1 ($BUILD/faults; tests/run makes it): freezes are made long with a pause.

load helpers

VIP=192.168.5.2

setup_file() {
	with_faults
	lab_up 3
}
teardown_file() { lab_down; }

setup() {
	T=$BATS_TEST_TMPDIR
	workload n1 app $VIP
	workload n3 far 192.168.5.5
	workload n2 near 192.168.5.6
}
teardown() {
	local n
	for n in n1 n2 n3; do on $n rm -f /run/overlayd/fault /run/overlayd/fault.reached; done
	drop_workloads && end_spawned
}

far() { on n3 ip netns exec far "$@"; }
arm() { on "$1" sh -c "echo '$2' >/run/overlayd/fault"; }
paused() { on "$1" test -e /run/overlayd/fault.reached; }
go_on() { on "$1" rm /run/overlayd/fault.reached; }

# start CMD...: the program that moves
start() { spawn app on n1 ip netns exec app "$@"; }

# move_paused FROM TO: a move that waits at the fault point armed; moved: it ends well
move_paused() {
	spawn mover on "$1" ms-migrate app "$2" --json
	wait_for 20 paused "$2" || { cat "$T"/mover.* >&2; return 1; }
}
moved() {
	finish mover none
	[ "$status" -eq 0 ] || fail "ms-migrate: $status" "$output" "$(cat "$T/mover.err")"
}

# pinged NAME: as spawned by `ping -i 0.05`: nothing lost, and not one in twenty as late as one that has waited. (Of some 80 pings 40
# come during the freeze. A machine that stands still for a moment makes a few late.)
pinged() {
	local late
	pings_whole "$1"
	late=$(sed -nE 's/.* time=([0-9.]+) ms$/\1/p' <<<"$output" | awk '$1 > 500 { n++ } END { print n + 0 }')
	assert_le $((late * 20)) "$(_answers "$1" | wc -l)" "twenty times the answers after more than 500 ms: $output"
}
answered() { _answers "$1" | grep -qx "$2"; }

@test "udp: pings are answered throughout a freeze of two seconds and a move" {
	start sleep 300
	spawn pings on n3 ip netns exec far ping -n -i 0.05 $VIP
	spawn beside on n2 ip netns exec near ping -n -i 0.05 $VIP
	wait_for 10 answered pings 10
	arm n2 "dst.stands pause"
	move_paused n1 n2
	# two seconds of it
	wait_for 10 answered pings $(($(_answers pings | tail -n 1) + 40))
	go_on n2
	moved
	pinged pings
	pinged beside
}

# ---- datagrams -------------------------------------------------------------------------------------------------------

KEEP=(python3 "$BATS_TEST_DIRNAME/../lib/udpkeep.py")

keep() { # the program whose sockets fill up
	start "${KEEP[@]}" serve "$T" $VIP
	wait_for 10 grep -q ready "$T/app.out" || { cat "$T/app.err" >&2; return 1; }
}
send() { run_ok far "${KEEP[@]}" send $VIP "$@"; }
# what was sent has arrived: it does not overtake
arrived() { run_ok far ping -c 1 -W 20 $VIP; }

# read_all TURN N: the program reads so many, and what there is besides; what it read in this turn is in $T/turn
read_all() {
	echo "$2" >"$T/read.new"
	mv "$T/read.new" "$T/read.$1"
	wait_for 10 grep -q "^end $1\$" "$T/app.out" || { cat "$T/app.out" "$T/app.err" >&2; return 1; }
	awk -v n=$(($1 - 1)) '$1 == "end" { at = $2; next } at + 0 == n && $1 != "ready"' "$T/app.out" >"$T/turn"
}

# got FROM TO SKIP...: numbers FROM..TO-1 in order but those of SKIP, from the right ports, to the vIP, on both sockets
got() {
	local from=$1 to=$2 i
	shift 2
	for i in $(seq "$from" $((to - 1))); do
		case " $* " in *" $i "*) continue ;; esac
		case $i in
		10) echo "192.168.5.5:$((9000 + i % 3)) 0 " ;;
		20) echo "192.168.5.5:$((9000 + i % 3)) 4993 $i ............." ;;
		*) echo "192.168.5.5:$((9000 + i % 3)) $((20 + ${#i} + 1)) $(printf '%.16s' "$i ....................")" ;;
		esac
	done >"$T/want"
	sed -n "s,^any4 \([^>]*\)>$VIP ,\1 ,p" "$T/turn" | diff "$T/want" - || return 1
	sed -n "s,^any6 ::ffff:\([^>]*\)>- ,\1 ,p" "$T/turn" | diff "$T/want" -
}
got_own() { # the program's own, over lo
	assert_eq "$(grep '^loop' "$T/turn")" "$(for i in 0 1 2; do echo "loop 127.0.0.1:7001>- 6 loop $i"; done)"
	assert_eq "$(grep '^own' "$T/turn")" "$(for i in 0 1 2; do echo "own $VIP:7002>- 5 own $i"; done)"
}

@test "udp: queued, arrived during the freeze, arrived later: all, in order, from whom they came" {
	keep
	send 0 50
	arrived
	arm n2 "dst.stands pause"
	move_paused n1 n2
	send 50 100
	go_on n2
	moved
	assert_eq "$(json '"\(.queued_datagrams) \(.lost_datagrams)"')" "106 0"
	assert_match "$(json .text)" "106 unread datagrams carried"
	send 100 110
	read_all 1 226
	got 0 110
	got_own
	send 200 205
	read_all 2 10
	got 200 205
}

@test "udp: a roll-back leaves the queue as it was; the next move carries it" {
	keep
	send 0 12
	arm n2 "dst.stands error"
	TIMEOUT=60 run_rc 1 on n1 ms-migrate app n2
	read_all 1 30
	got 0 12
	got_own
	send 30 40
	arm n2 "dst.stands error"
	TIMEOUT=60 run_rc 1 on n1 ms-migrate app n2
	move n1 app n2
	read_all 2 20
	got 30 40
}

@test "udp: moved twice before it reads" {
	keep
	send 0 30
	move n1 app n2
	send 30 60
	move n2 app n1
	send 60 70
	read_all 1 146
	got 0 70
	got_own
}

@test "udp: more than the receive buffers take arrives during the freeze; nothing is lost, the buffers are as before" {
	local before
	keep
	before=$(on n1 ip netns exec app ss -uanmH | grep -oE '[^ ]*:70.*|rb[0-9]+' | sort)
	send 0 200
	arm n2 "dst.stands pause"
	move_paused n1 n2
	send 200 750
	go_on n2
	moved
	assert_eq "$(json .lost_datagrams)" 0
	assert_eq "$(on n2 ip netns exec app ss -uanmH | grep -oE '[^ ]*:70.*|rb[0-9]+' | sort)" "$before" "buffers"
	read_all 1 1506
	got 0 750
}

# A bound of what is held that is reached: what is missing is said, to the last packet. Last in this file: the daemons keep
# their small bound.
@test "udp: what could not be held is counted" {
	local n
	for n in n1 n2; do
		on $n sh -c 'cp /etc/overlayd/overlayd.conf /run/conf.before && printf "migration {\n\thold-limit = 64K\n}\n" >>/etc/overlayd/overlayd.conf'
		on $n overlayd stop && on $n overlayd start >"$T/$n.start" 2>&1 3>&-
	done
	on n1 overlayd netns del app --force
	workload n1 app $VIP
	keep
	wait_for 20 on n1 ms-migrate app n2 --dry-run
	send 0 5
	arm n2 "dst.stands pause"
	move_paused n1 n2
	send 100 500
	go_on n2
	moved
	for n in n1 n2; do
		on $n sh -c 'cat /run/conf.before >/etc/overlayd/overlayd.conf && rm /run/conf.before'
	done
	n=$(json .dropped_packets)
	assert_match "$(json .text)" ", $n packets could not be held"
	read_all 1 $((16 + 800 - n))
	assert_le 100 "$n"
	assert_eq "$(grep -c '^any' "$T/turn")" $((10 + 800 - n)) "datagrams read"
	assert_eq "$(sort -u "$T/turn" | grep -c '^any')" $((10 + 800 - n)) "different ones"
}
