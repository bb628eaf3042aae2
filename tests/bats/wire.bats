#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# The user-space wire does what it says, and measures what it claims to. tests/lib/wirelab.bash has the drawing.
load helpers

setup() {
	need_root
	# shellcheck source=tests/lib/wirelab.bash
	source "$TOP/tests/lib/wirelab.bash"
	DIR=$(mktemp -d /tmp/ms-wire.XXXXXX)
}
teardown() {
	wl_down
	rm -rf "$DIR"
}

cli() { TIMEOUT=60 _run wl_net far "$BUILD/bin/ms-testcli" "$@"; }
rtt() { wl_net far ping -nqc "${1:-10}" -i 0.01 192.168.5.2 | sed -nE 's|^rtt.* = ([0-9.]+)/.*|\1|p'; }

@test "wire: the delay is there, both ways, and little more" {
	wl_up "$DIR" --delay 20 --rate 0
	assert_le 40 "$(rtt)" "shortest round trip, ms"
	best_of 5 is_quick 50
	run_ok wl_wire set delay 5
	best_of 5 is_quick 20
}
is_quick() { assert_le "$(rtt)" "$1" "shortest round trip, ms"; }

@test "wire: a stream gets the rate and no more; the queue drops its tail" {
	wl_up "$DIR" --delay 1 --rate 20 --queue 20
	wl_server here srv 192.168.5.2:80
	cli --mode upload --total 5000000 192.168.5.2:80
	assert_eq "$status" 0 "$output"
	run_ok wl_wire report
	assert_le 1 "$(json .b.overflow)" "packets dropped at the queue"
	assert_eq "$(json '.b.lost + .b.late')" 0
	run_ok wl_wire mark
	local start
	start=$(date +%s%3N)
	cli --mode upload --total 5000000 192.168.5.2:80
	run_ok wl_wire report
	# 8 * bytes / 20 Mbit/s = microseconds / 2.5, in ms
	assert_le "$(json '.b.bytes * 0.0004 | floor')" $(($(date +%s%3N) - start)) "ms that the bytes take at 20 Mbit/s"
}

@test "wire: so much is lost by chance, and the streams come whole all the same" {
	wl_up "$DIR" --delay 1 --rate 0 --queue 10000 --loss 5 --reorder 2
	wl_server here srv 192.168.5.2:80
	cli --mode both -n 4 --total 2000000 192.168.5.2:80
	assert_eq "$status $(json '"\(.errors) \(.lost)"')" "0 0 0" "$output"
	run_ok wl_wire report
	assert_eq "$(json '[.a, .b] | map(.lost > .packets * 0.03 and .lost < .packets * 0.07) | all')" true "5 % lost: $output"
	assert_eq "$(json '[.a, .b] | map(.late > .packets * 0.01 and .late < .packets * 0.03) | all')" true "2 % late: $output"
	assert_eq "$(json '.a.overflow + .b.overflow + .b.resets_heard')" 0
	assert_le 10 "$(json .b.repeated)" "segments the peer repeated"
}

@test "wire: silence is measured as the peer has it" {
	wl_up "$DIR" --delay 5 --rate 100
	wl_server here srv 192.168.5.2:80
	wl_bg cli nsenter -t "$(cat "$DIR/node.far")" -n -m -- ip netns exec peer "$BUILD/bin/ms-testcli" --interval 20 --ready "$DIR/ready" \
		192.168.5.2:80
	wait_for 10 test -s "$DIR/ready"
	run_ok wl_wire report
	assert_le 10 "$(json .b.silence_ms)" "silence of an answering host: its round trip at least"
	local usual
	usual=$(json .b.silence_ms)
	run_ok "$BUILD/bin/stacktool" "$(wl_stack here)" capture
	wait_for 10 silent_ms 300
	run_ok "$BUILD/bin/stacktool" "$(wl_stack here)" release
	wait_for 10 answered
	assert_le 300 "$(json .b.silence_ms)" "silence of a captured host"
	assert_match "$(json .b.silent)" "^192.168.5.7:[0-9]+ > 192.168.5.2:80$"
	best_of 5 begins_anew "$usual"
	run_ok wl_wire flows "$DIR/flows"
	assert_match "$(cat "$DIR/flows")" "192.168.5.7:[0-9]+ > 192.168.5.2:80 silence "
}
begins_anew() {
	run_ok wl_wire mark && run_ok wl_wire report &&
		assert_le "$(json .b.silence_ms)" 300 "silence since the mark (usual: $1)"
}
silent_ms() { run_ok wl_wire report && [ "$(json '.b.silence_ms | floor')" -ge "$1" ]; }
answered() { run_ok wl_wire report && [ "$(json .b.waiting)" -eq 0 ]; }

@test "wire: what comes from b goes to the home it is told" {
	wl_up "$DIR" --there --delay 1
	wl_server here one 192.168.5.2:80
	wl_server there two 192.168.5.2:80
	local homes=("$(cat "$DIR/one.ready")" "$(cat "$DIR/two.ready")")
	for home in 1 0 1; do
		run_ok wl_wire to $home
		cli --mode query 192.168.5.2:80
		assert_eq "$(json .pid)" "${homes[home]}" "who answers"
	done
	run_fail wl_wire to 2
	assert_match "$output" "refused"
	run_fail wl_wire set delay x
}
