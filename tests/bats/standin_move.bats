#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# lwIP answers for a workload while it moves: every byte that was acknowledged arrives, wherever it goes on, and whatever fails
#
#	n1, n2: the workload moves between them    n3: the clients, and the directory

load helpers
load faults

setup_file() { fault_setup_file; }
teardown_file() { lab_down; }
setup() {
	workload n1 app 192.168.5.2
	workload n3 far 192.168.5.5
}
teardown() { fault_teardown; }

# frozen MS [OPTION]...: app moves to the other node, frozen so much longer, lwIP answering at once
frozen() {
	local from ms=$1
	shift
	from=$(holder)
	move "$from" app "$(other "$from")" --standin-after 0 --hold-freeze "$ms" "$@"
}

stood_in() { # lwIP did what it is for
	assert_eq "$(json .answered_by)" stand-in "who answered in $output" || return 1
	assert_eq "$(json '.answered_segments > 0 and .standin_ms > 0 and .reset_connections == 0 and .behind == 0')" true "$output"
}

@test "standin: a paced upload goes on during a freeze of two seconds" {
	server n1 app srv 192.168.5.2:2000
	client n3 far up --mode upload --rate 1 192.168.5.2:2000
	frozen 2000
	stood_in
	assert_eq "$(json '.taken_bytes > 300000')" true "bytes taken in of some 2 MB: $output"
	assert_match "$(on "$(holder)" overlayd where app)" "$(holder)"
	client_ok up
	assert_eq "$(query n3 far 192.168.5.2:2000 errors)" 0 "errors of the server"
}

@test "standin: saturated both ways, several moves in a row" {
	server n1 app srv 192.168.5.2:2000
	client n3 far up --mode upload -n 2 192.168.5.2:2000
	client n3 far down --mode download -n 2 192.168.5.2:2000
	client n3 far both --mode both -n 2 --rate 20 192.168.5.2:2000
	client n3 far pings -n 3 192.168.5.2:2000
	for _ in 1 2 3 4; do
		frozen 600
		stood_in
		for c in down both pings; do progress $c 30; done
	done
	for c in up down both pings; do TIMEOUT=60 client_ok $c; done
	assert_eq "$(query n3 far 192.168.5.2:2000 errors)" 0 "errors of the server"
}

@test "standin: the one that moves is the client" {
	workload n2 srv2 192.168.5.6
	server n2 srv2 srv 192.168.5.6:2000
	client n1 app up --mode upload --rate 2 192.168.5.6:2000
	client n1 app down --mode download --rate 2 192.168.5.6:2000
	move n1 app n3 --standin-after 0 --hold-freeze 800
	stood_in
	assert_eq "$(json '.taken_bytes > 100000')" true "bytes of the download taken in: $output"
	for c in up down; do
		assert_eq "$(jq '"\(.errors) \(.lost)"' "$BATS_TEST_TMPDIR/$c.json")" '"0 0"' "$c"
	done
	progress down
	assert_eq "$(query n2 srv2 192.168.5.6:2000 errors)" 0 "errors of the server"
}

@test "standin: peers that close, reset and come anew during a freeze" {
	server n1 app srv 192.168.5.2:2000
	spawn churn on n3 ip netns exec far ms-churn --threads 5 192.168.5.2:2000
	for _ in 1 2 3; do
		wait_for 10 on n3 ip netns exec far ms-testcli --rounds 3 192.168.5.2:2000
		frozen 700
	done
	wait_for 10 on n3 ip netns exec far ms-testcli --rounds 3 192.168.5.2:2000
	finish churn
	assert_eq "$status" 0 "ms-churn: $output"
	assert_eq "$(json '"\(.errors) \(.lost)"')" "0 0" "$output"
}

# sink_moves PORT ADDR [half]: a program that only reads, moved there and back while it is sent to
sink_moves() {
	local t=$BATS_TEST_TMPDIR
	rm -f "$t"/sink.*
	spawn "sink$1" on "$(holder)" ip netns exec app python3 -S -E "$TOP/tests/lib/sink.py" serve "$t/sink.ready" "$t/sink.got" "$2" "$1" ${3:+"$3"}
	wait_for 10 test -e "$t/sink.ready"
	spawn "source$1" on n3 ip netns exec far python3 -S -E "$TOP/tests/lib/sink.py" send "$t/sink.begun" "$t/sink.enough" 192.168.5.2 "$1"
	wait_for 10 test -e "$t/sink.begun"
	for _ in 1 2; do
		frozen 700
		stood_in || return 1
		assert_eq "$(json '.taken_bytes > 100000')" true "bytes taken in: $output" || return 1
	done
	touch "$t/sink.enough"
	finish "source$1" none
	assert_eq "$status" 0 "$(cat "$t/source$1.err")"
	wait_for 10 test -e "$t/sink.got"
	assert_eq "$(cat "$t/sink.got")" "$output" "what has arrived"
}

@test "standin: IPv4 in an IPv6 socket" { sink_moves 2100 ::; }
@test "standin: one that has closed its own side and goes on reading" { sink_moves 2101 192.168.5.2 half; }

@test "standin: more than may be taken in: the window closes, and opens again" {
	local n
	for n in n1 n2; do
		cp "$(root $n)/etc/overlayd/overlayd.conf" "$BATS_TEST_TMPDIR/$n.conf"
		echo 'migration { standin-socket-limit = 64K }' >>"$(root $n)/etc/overlayd/overlayd.conf"
		run_ok on $n overlayd reload
	done
	server n1 app srv 192.168.5.2:2000
	client n3 far up --mode upload -n 2 192.168.5.2:2000
	frozen 1500
	stood_in
	assert_eq "$(json '.limit_hits > 0')" true "$output"
	for n in n1 n2; do
		cat "$BATS_TEST_TMPDIR/$n.conf" >"$(root $n)/etc/overlayd/overlayd.conf"
		run_ok on $n overlayd reload
	done
	TIMEOUT=60 client_ok up
	assert_eq "$(query n3 far 192.168.5.2:2000 errors)" 0 "errors of the server"
}

@test "standin: keepalive of one second, three times, through a freeze of ten seconds" {
	server n1 app srv 192.168.5.2:2000
	client n3 far live --keepalive 1 --interval 60000 192.168.5.2:2000
	frozen 10000
	stood_in
	client_ok live
}

@test "standin: switched off, packets wait: the same keepalive gives up" {
	server n1 app srv 192.168.5.2:2000
	client n3 far live --keepalive 1 --interval 60000 192.168.5.2:2000
	frozen 10000 --standin-after off
	assert_eq "$(json '"\(.answered_by) \(.answered_segments) \(.taken_bytes)"')" "held 0 0" "$output"
	finish live
	assert_eq "$(json .lost)" 1 "connections that gave up: $output"
}

@test "standin: a freeze that is over before its time is answered for by nobody" {
	server n1 app srv 192.168.5.2:2000
	client n3 far pings 192.168.5.2:2000
	frozen 0 --standin-after 600000
	assert_eq "$(json .answered_by)" held "$output"
	progress pings
	client_ok pings
}

@test "standin: options that make no sense" {
	run_rc 2 on n1 ms-migrate --standin-after soon app n2
	assert_match "$output" "--standin-after takes milliseconds"
	run_rc 2 on n1 ms-migrate --standin-after 600001 app n2
	run_rc 2 on n1 ms-migrate --hold-freeze -1 app n2
	assert_match "$output" "--hold-freeze takes milliseconds"
}

# ---- what fails ----------------------------------------------------------------------------------------------------------------

under_traffic() {
	server n1 app srv --lock "$BATS_TEST_TMPDIR/lock" --unix "$BATS_TEST_TMPDIR/name" 192.168.5.2:2000
	client n3 far pings --interval 5 192.168.5.2:2000
	client n3 far streams --mode both --rate 2 192.168.5.2:2000
	client n3 far idles --interval 100 192.168.5.2:2000
	client n3 far up --mode upload --rate 2 192.168.5.2:2000
}

# fails POINT ACTION: a move under a live stand-in meets it; then everything holds that must
fails() {
	mover_towards "$@" --standin-after 0 --hold-freeze 300 --json
	mover_met "$@" || return 1
	settled "$*" || return 1
	TIMEOUT=20 finish mover none || return 1
	assert_match "$status" '^[015]$' "$*: exit status" || { tell; return 1; }
	[ "$2" != error ] || { assert_eq "$(json .answered_by)" stand-in "$*: $output" || return 1; }
}

@test "standin: whatever fails while it answers, nothing is lost" {
	local point
	under_traffic
	for point in src.restore src.fence src.records src.parked src.commit src.swapped src.handed \
		dst.restore dst.stands dst.records dst.commit dst.hand-over dst.kept dst.running; do
		fails $point error || return 1
	done
	again
	for c in $CLIENTS up; do client_ok "$c"; done
}

@test "standin: whoever is killed while it answers, nothing is lost" {
	local point
	under_traffic
	for point in src.restore src.records src.parked src.commit src.swapped dst.restore dst.records dst.commit dst.kept; do
		fails $point kill || return 1
	done
	for point in src.restore src.parked src.swapped dst.records dst.kept; do
		fails $point killall || return 1
	done
	again
	for c in $CLIENTS up; do client_ok "$c"; done
}

@test "standin: giving back is interrupted at every step, by the agent's end and by recovery's" {
	local from lines points
	under_traffic
	for lines in "src.restore error:give.pushed error" "src.restore error:give.pushed kill:give.pushed kill" \
		"src.restore kill:rec.begin kill:give.pushed kill:rec.given kill" "src.commit kill:give.pushed killall:rec.given killall" \
		"src.commit kill:rec.settled kill:rec.returned kill:give.pushed error"; do
		from=$(holder)
		IFS=: read -ra points <<<"$lines"
		arm "$from" "${points[@]}"
		spawn mover on "$from" ms-migrate app "$(other "$from")" --standin-after 0 --hold-freeze 300
		wait_for 60 disarmed_minding "$from" || { tell; fail "not come by: $(xargs <"$(root "$from")/run/overlayd/fault")"; return 1; }
		daemon_back "$from"
		settled "$lines" || return 1
		TIMEOUT=20 finish mover none
		assert_eq "$(holder)" "$from" "$lines: holder"
	done
	again
	for c in $CLIENTS up; do client_ok "$c"; done
}

@test "standin: CRIU itself fails, and the tasks run again before anybody has given back a byte" {
	local t=$BATS_TEST_TMPDIR
	spawn sink on n1 ip netns exec app python3 -S -E "$TOP/tests/lib/sink.py" serve "$t/sink.ready" "$t/sink.got" 192.168.5.2 2100
	wait_for 10 test -e "$t/sink.ready"
	spawn source on n3 ip netns exec far python3 -S -E "$TOP/tests/lib/sink.py" send "$t/sink.begun" "$t/sink.enough" 192.168.5.2 2100
	wait_for 10 test -e "$t/sink.begun"
	arm n1 "src.prepare pause"
	spawn mover on n1 ms-migrate app n2 --standin-after 0 --hold-freeze 700 --json
	wait_for 30 test -e "$(root n1)/run/overlayd/fault.reached"
	kill -USR1 "$(cat "$t/sink.ready")"
	wait_for 10 test -e "$t/sink.ready.uring"
	[ "$(cat "$t/sink.ready.uring")" -ge 0 ] || skip "no io_uring here"
	rm -f "$(root n1)/run/overlayd/fault.reached"
	TIMEOUT=60 finish mover none
	assert_eq "$status" 1
	assert_match "$(json .text)" "CRIU could not dump"
	assert_eq "$(json '.taken_bytes > 100000 and .reset_connections == 0')" true "$output"
	touch "$t/sink.enough"
	finish source none
	assert_eq "$status" 0 "$(cat "$t/source.err")"
	wait_for 10 test -e "$t/sink.got"
	assert_eq "$(cat "$t/sink.got")" "$output" "what has arrived"
}

@test "standin: the link is cut while it answers, and after the commit" {
	local point from to
	under_traffic
	for point in src.restore src.commit; do
		from=$(holder)
		to=$(other "$from")
		arm "$from" "$point pause"
		spawn mover on "$from" ms-migrate app "$to" --standin-after 0 --hold-freeze 300
		wait_for 30 test -e "$(root "$from")/run/overlayd/fault.reached"
		lab cut n1 n2
		rm -f "$(root "$from")/run/overlayd/fault.reached"
		if [ $point = src.commit ]; then wait_for 20 runs_at "$to"; else wait_for 30 mover_ended; fi
		for c in $CLIENTS; do progress "$c" 20; done
		lab heal n1 n2
		settled "link cut at $point"
		finish mover none
	done
	again
	for c in $CLIENTS up; do client_ok "$c"; done
}

@test "standin: the destination's tunstack dies when it has the records: its successor gets them" {
	local from to
	under_traffic
	spawn churn on n3 ip netns exec far ms-churn --kinds us --threads 3 192.168.5.2:2000
	from=$(holder)
	to=$(other "$from")
	arm "$to" "dst.hand-over pause"
	spawn mover on "$from" ms-migrate app "$to" --standin-after 0 --hold-freeze 300 --json
	wait_for 30 test -e "$(root "$to")/run/overlayd/fault.reached"
	kill -KILL "$(state "$to" .tunstack.pid)"
	rm -f "$(root "$to")/run/overlayd/fault.reached"
	TIMEOUT=60 finish mover none
	assert_eq "$status" 0
	settled "the destination's tunstack killed"
	wait_for 10 on n3 ip netns exec far ms-testcli --rounds 3 192.168.5.2:2000
	for c in $CLIENTS up churn; do client_ok "$c"; done
}

@test "standin: a tunstack killed before its time has come loses nothing" {
	local from
	under_traffic
	from=$(holder)
	arm "$from" "src.restore pause"
	spawn mover on "$from" ms-migrate app "$(other "$from")" --standin-after 600000
	wait_for 30 test -e "$(root "$from")/run/overlayd/fault.reached"
	kill -KILL "$(state "$from" .tunstack.pid)"
	rm -f "$(root "$from")/run/overlayd/fault.reached"
	TIMEOUT=60 finish mover none
	assert_eq "$status" 1
	refute_match "$(cat "$BATS_TEST_TMPDIR/mover.err")" "reset"
	settled "tunstack killed, armed"
	for c in $CLIENTS up; do client_ok "$c"; done
}

@test "standin: a tunstack killed while it answers: its connections are reset and named, the workload goes on" {
	local from killer
	for killer in tunstack both; do
		server "$(holder)" app "srv-$killer" 192.168.5.2:"$([ $killer = both ] && echo 2002 || echo 2001)"
		client n3 far "cut-$killer" --mode upload --rate 2 192.168.5.2:"$([ $killer = both ] && echo 2002 || echo 2001)"
		from=$(holder)
		arm "$from" "src.restore pause"
		spawn mover on "$from" ms-migrate app "$(other "$from")" --standin-after 0 --hold-freeze 300 --json
		wait_for 30 test -e "$(root "$from")/run/overlayd/fault.reached"
		kill -KILL "$(state "$from" .tunstack.pid)"
		[ $killer = tunstack ] || kill -KILL "$(jq .agent.pid "$(root "$from")"/run/overlayd/migrations/*/journal.json)"
		rm -f "$(root "$from")/run/overlayd/fault.reached"
		TIMEOUT=60 finish mover none
		if [ $killer = tunstack ]; then
			assert_eq "$status" 1
			assert_eq "$(json '.reset_connections >= 1')" true "$output"
			assert_match "$(json .text)" "192.168.5.5"
		else
			assert_eq "$status" 5
			wait_for 20 grep -q "connections are reset" "$(root "$from")/run/overlayd/overlayd.log"
		fi
		# it does not wait for ever: the client is told
		wait_for 30 jq -e '.lost == 1' "$BATS_TEST_TMPDIR/cut-$killer.json"
		wait_for 20 on n3 ip netns exec far ms-testcli --rounds 3 192.168.5.2:2001
		finish "cut-$killer"
	done
}
