#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# The stand-in, proven without CRIU: a server's sockets stay in the kernel while it is frozen, its tunstack answers for them and
# gives them back (tests/lib/cycle.c), over a wire of 5 ms, 100 Mbit/s and 1 % loss (tests/lib/wirelab.bash has the drawing).
#
# A short run belongs to every check. In full, with MS_SOAK=1 (make soak-standin): 1,000 freezes and more than 150 hand-overs.
#
# A stall is a pause of an application (between two pieces sent or received, a round of ping-pong, a connect()), measured by the
# application itself. What remains of it when the freezes within are taken off is its excess. A lost packet stalls a connection
# without any freeze, so the excess is charged to the stand-in when the wire has dropped no packet of that connection meanwhile
# (tests/lib/stalls.py), and once more, with no such exception, on a wire that loses nothing. While the machine itself stands still
# nobody is charged: a process that only sleeps, 5 ms at a time, notes when it comes back late (tests/lib/standsstill.py).
load helpers

# short or in full
full() { [ -n "${MS_SOAK:-}" ] && echo "$2" || echo "$1"; }

setup() {
	need_root
	# shellcheck source=tests/lib/wirelab.bash
	source "$TOP/tests/lib/wirelab.bash"
	DIR=$(mktemp -d /tmp/ms-si.XXXXXX)
	TALKERS=()
}
teardown() {
	[ -n "${BATS_TEST_COMPLETED:-}" ] || { tail -n 5 "$DIR"/stack.*.log "$DIR"/*.err >&2; }
	wl_down
	rm -rf "$DIR"
}

# talk NODE NAME PROGRAM ARGS...: a client on NODE
talk() {
	local node=$1 name=$2
	shift 2
	wl_bg "$name" nsenter -t "$(cat "$DIR/node.$node")" -n -m -- ip netns exec "$(_wl_name "$node")" "$@"
	echo "$WL_PID" >"$DIR/$name.talker"
	TALKERS+=("$name")
}
cli() { # node name endpoint args...
	local node=$1 name=$2 at=$3
	shift 3
	talk "$node" "$name" "$BUILD/bin/ms-testcli" --gaps "$DIR/$name.gaps" --ready "$DIR/$name.ready" "$@" "$at"
	wait_for 30 test -s "$DIR/$name.ready"
}
churn() { talk far churn "$BUILD/bin/ms-churn" --threads 4 --gaps "$DIR/churn.gaps" "$@" 192.168.5.2:80; }

# everything at once: the wire is full
mixed() {
	cli far both 192.168.5.2:80 --mode both
	cli far upload 192.168.5.2:80 --mode upload
	cli far download 192.168.5.2:80 --mode download
	cli far paced 192.168.5.2:80 --mode upload --rate 1
	cli far pings 192.168.5.2:80 -n 3
	churn "$@"
}

# every talker ends in order, nothing was wrong, lost or reset, as the programs themselves have it; the server says the same. (On
# the wire there are resets: the second ACK of a repeated FIN finds nobody any more.)
all_well() {
	local name t=80
	for name in "${TALKERS[@]}"; do
		kill "$(cat "$DIR/$name.talker")"
	done
	for name in "${TALKERS[@]}"; do
		wait_for $t test -s "$DIR/$name.out" || { cat "$DIR/$name.err" >&2; return 1; }
		assert_eq "$(json '"\(.errors) \(.lost)"' "$DIR/$name.out")" "0 0" "errors and lost of $name: $(cat "$DIR/$name.out")" || return 1
	done
	TIMEOUT=60 run_ok wl_net far "$BUILD/bin/ms-testcli" --mode query 192.168.5.2:80
	assert_eq "$(json '"\(.errors) \(.lost)"')" "0 0" "errors and lost of the server: $output" || return 1
	echo "$output" >"$DIR/server.json"
}

# resets by peers reach the server, but for those that the wire lost, each behind all that was acknowledged before
resets_arrive() {
	local said got cut lost
	said=$(jq .r "$DIR/churn.out")
	got=$(jq .resets "$DIR/server.json")
	cut=$(jq .cut "$DIR/server.json")
	lost=$(awk '$2 != "reset" && $4 == 80 && $5 == "reset"' "$DIR/drops" | wc -l)
	echo "# $said resets said, $got heard with all that went before, $cut without; $lost lost by the wire" >&3
	assert_le "$(((said - lost) * 8 / 10 - 2))" "$got" "resets of $said that reached the server"
	assert_eq "$cut" 0 "resets of $said that cut off what had been acknowledged"
}

cycles() { # ms-cycle's arguments; its JSON is in $output
	local last=${!#} at
	wl_bg still python3 -S -E "$TOP/tests/lib/standsstill.py" "$DIR/still"
	wait_for 10 test -e "$DIR/still"
	TIMEOUT=1800 run_ok "$BUILD/bin/ms-cycle" --log "$DIR/freezes" "$@" || return 1
	echo "$output" >"$DIR/cycle.json"
	at=$(json '"\(.cycles) freezes, \(.handovers) hand-overs, \(.answered_segments) segments answered, \(.taken_bytes) bytes taken in, " +
		"\(.new_connections) connections made; longest freeze \(.longest_freeze_ms) ms; release median " +
		"\(.phases.release.median), longest \(.phases.release.longest) ms"')
	echo "# $at" >&3
	assert_eq "$(json .dropped)" 0 "packets dropped by the tunstack of $last"
}

# ours by more than 100 ms: none. A machine that stops programs for longer than that by itself proves nothing: then its own longest.
no_stalls() {
	TIMEOUT=60 run_ok python3 "$TOP/tests/lib/stalls.py" "$DIR/freezes" "$DIR/drops" "$DIR/still" "$DIR"/*.gaps
	echo "# $(json '"\(.gaps) stalls in freezes, excess at most \(.excess_ms) ms, \(.wire_excess_ms) ms where the wire dropped " +
		"something; longest without a freeze \(.usual_ms) ms, of the machine \(.still_ms) ms"')" >&3
	assert_le "$(json .excess_ms)" "$(json '[100, .usual_ms] | max')" "longest stall beyond its freeze, ms: $output"
}

# the longest that this machine stood still by itself, for each of the four processes on the way, in ms: it is nobody's fault
still_ms() { awk 'NF == 2 { t = ($2 - $1) / 1000; if (t > most) most = t } END { printf "%d", 4 * most }' "$DIR/still"; }

@test "stand-in: mixed traffic over a bad wire: every byte, no reset, no long stall" {
	wl_up "$DIR" --drops "$DIR/drops" --loss 1
	wl_server here srv 192.168.5.2:80
	mixed
	cycles --cycles "$(full 50 1000)" --freeze 5-300 --run 0-100 --after 0,50 --answer-syn "$WL_SERVER=$(wl_stack here)"
	assert_le 1000 "$(json .answered_segments)"
	assert_le 100000 "$(json .taken_bytes)"
	all_well
	resets_arrive
	no_stalls
}

@test "stand-in: the same on a wire that loses nothing, without excuses" {
	wl_up "$DIR" --drops "$DIR/drops" --queue 100000 --rate 0
	wl_server here srv 192.168.5.2:80
	cli far both 192.168.5.2:80 --mode both --rate 4
	cli far upload 192.168.5.2:80 --mode upload --rate 3
	cli far download 192.168.5.2:80 --mode download --rate 3
	cli far pings 192.168.5.2:80 -n 3
	churn
	cycles --cycles "$(full 25 200)" --freeze 5-300 --run 0-100 --after 0,50 --answer-syn "$WL_SERVER=$(wl_stack here)"
	all_well
	assert_eq "$(awk '$2 != "reset"' "$DIR/drops" | wc -l)" 0 "packets the wire dropped"
	no_stalls
}

@test "stand-in: records travel between two tunstacks during a freeze, there and back" {
	wl_up "$DIR" --there --drops "$DIR/drops" --loss 1 --reorder 1
	wl_server here srv 192.168.5.2:80
	mixed
	cycles --cycles "$(full 15 120)" --freeze 50-300 --run 0-100 --answer-syn --there "$(wl_stack there)" --wire "$DIR/wire" --hops 4 \
		"$WL_SERVER=$(wl_stack here)"
	assert_le "$(full 10 150)" "$(json .handovers)" "hand-overs"
	all_well
	resets_arrive
	no_stalls
}

@test "stand-in: both ends are frozen at once" {
	wl_up "$DIR" --drops "$DIR/drops" --loss 1
	wl_server here srv 192.168.5.2:80
	cli far both 192.168.5.2:80 --mode both
	cli far pings 192.168.5.2:80 -n 5
	cycles --cycles "$(full 20 200)" --freeze 5-300 --run 0-100 --after 0,50 "$WL_SERVER=$(wl_stack here)" \
		"$(cat "$DIR/both.talker")=$(wl_stack far)"
	assert_le 100 "$(json .answered_segments)"
	all_well
}

@test "stand-in: a connect() during a freeze takes a round trip, not the freeze" {
	wl_up "$DIR" --delay 5
	wl_server here srv 192.168.5.2:80
	churn --kinds q
	cycles --cycles 3 --freeze 2000 --run 100 --after 0 --answer-syn "$WL_SERVER=$(wl_stack here)"
	assert_le 1 "$(json .new_connections)"
	all_well
	assert_le "$(json .longest_connect_ms "$DIR/churn.out")" $((500 + $(still_ms))) "longest connect(), ms, in freezes of 2000 ms"
}

@test "stand-in: a peer with keepalive of 1 s x 3 hears answers through a long freeze" {
	wl_up "$DIR" --delay 5
	wl_server here srv 192.168.5.2:80
	cli far idle 192.168.5.2:80 --interval 3600000 --keepalive 1
	cycles --freeze "$(full 7000 30000)" --after 50 "$WL_SERVER=$(wl_stack here)"
	run_ok wl_wire report
	assert_eq "$(json .b.resets_heard)" 0 "resets the peer heard: $output"
	assert_le "$(full 5 28)" "$(json .b.probes)" "probes of the peer"
	assert_le "$(json .b.silence_ms)" $((500 + $(still_ms))) "longest silence of $(json .b.silent), which asks every second"
	all_well
}

@test "stand-in: the limit of what is taken in closes windows, and nothing is lost" {
	wl_up "$DIR" --delay 5
	wl_server here srv 192.168.5.2:80
	cli far upload 192.168.5.2:80 --mode upload
	cli far paced 192.168.5.2:80 --mode upload --rate 1
	cycles --cycles 2 --freeze 2000 --run 500 --socket-limit 300000 "$WL_SERVER=$(wl_stack here)"
	assert_le 1 "$(json .limit_hits)"
	assert_le "$(json .taken_bytes)" 40000000 "bytes taken in"
	all_well
}

# an answer of the network's own: what 10,000 sockets cost
@test "stand-in: 10,000 idle sockets" {
	local n=10000
	wl_up "$DIR" --there --delay 0 --rate 0 --queue 100000
	wl_server here srv 192.168.5.2:80
	talk far idle "$BUILD/bin/ms-testcli" -n $n --interval 3600000 --ready "$DIR/idle.ready" 192.168.5.2:80
	wait_for 120 test -s "$DIR/idle.ready"
	wl_wire set delay 5
	cycles --freeze 3000 --there "$(wl_stack there)" --wire "$DIR/wire" --hops 2 --seed 2 "$WL_SERVER=$(wl_stack here)"
	assert_le $n "$(json .records)" "records"
	local kb
	kb=$(awk '/^VmHWM:/ { print $2 }' "/proc/$(wl_stack_pid here)/status")
	echo "# $(json '"10,000 sockets, ms: \(.handovers) hand-overs \(.phases.hops.longest), stop \(.phases.stop.longest), capture \(.phases.capture.longest), export " +
		"\(.phases.export.longest), load \(.phases.load.longest), park \(.phases.park.longest), push " +
		"\(.phases.push.longest), release \(.phases.release.longest)"'); tunstack at most $kb KB" >&3
	assert_le "$kb" 300000 "KB of the tunstack"
	assert_le "$(json '.phases | [.capture, .export, .load, .park, .push, .release] | map(.longest) | add')" 20000 "ms of all steps"
	all_well
}
