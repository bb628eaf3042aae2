#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# bench.bats - what the benchmarks say is what was measured: the producer and consumer, and the table-maker, on made-up numbers

load helpers

setup_file() { lab_up 1 --bare; }
teardown_file() { lab_down; }
teardown() { end_spawned; }

consumer() {
	spawn consumer on n1 ms-prodcons consume 127.0.0.1:5000 "$BATS_TEST_TMPDIR/ready"
	wait_for 5 test -s "$BATS_TEST_TMPDIR/ready"
}

@test "ms-prodcons: messages of every size arrive whole, one producer after another" {
	local size
	consumer
	for size in 1000003 65536 1024 97; do
		run_ok on n1 ms-prodcons produce 127.0.0.1:5000 --size $size --mib 3
		assert_eq "$(jq -c '[.size, .mib, .ms > 0]' <<<"$output")" "[$size,3,true]"
	done
	run_rc 2 on n1 ms-prodcons produce 127.0.0.1:5000 --size 0 --mib 3
	run_rc 2 on n1 ms-prodcons produce 127.0.0.1:5000 --size 1024
}

@test "ms-prodcons: a consumer that had something else, by number or by sum, is noticed" {
	local at
	consumer
	# its answer: eight bytes of the number, eight of the sum
	for at in 6 14; do
		spawn relay on n1 python3 "$TOP/tests/lib/mangle.py" 5100 5000 flip $at
		wait_for 5 on n1 bash -c "ss -Htln sport = :5100 | grep -q ."
		run_rc 1 on n1 ms-prodcons produce 127.0.0.1:5100 --size 1024 --mib 1
		assert_match "$output" "has not had what was produced" "after byte $at of the answer was flipped"
		finish relay none
	done
}

# three rounds in which everything of a later one is slower, as on a busy machine: only ratios within a round are the same
samples() { # BASE WAY FACTOR KIND NUMBER
	local round
	for round in 1 2 3; do
		printf '%s\t%s\t%s\t%s\t%s\n' "$4" "$1" $round "$5" $((round * 100))
		printf '%s\t%s\t%s\t%s\t%s\n' "$4" "$2" $round "$5" $((round * 100 * $3))
	done
}
report() { # BENCH SETTING...
	local bench=$1 s args=()
	shift
	for s in "$@"; do args+=(--setting "$s"); done
	run_ok python3 "$TOP/tests/bench/bench_table.py" "$bench" "$BATS_TEST_TMPDIR/samples" --json "$BATS_TEST_TMPDIR/j" \
		--plot "$BATS_TEST_TMPDIR/p.svg" --md "$BATS_TEST_TMPDIR/m.md" "${args[@]}"
	run_ok python3 -c 'import sys, xml.dom.minidom as m; m.parse(sys.argv[1])' "$BATS_TEST_TMPDIR/p.svg"
}
of_row() { # CASE FILTER
	jq -c --arg c "$1" ".rows[] | select(.case == \$c) | $2" "$BATS_TEST_TMPDIR/j"
}

@test "bench: medians and spread, ratios taken within a round, in JSON, page and plot" {
	local place way
	cd "$BATS_TEST_TMPDIR"
	{ samples direct encrypted 3 tcp1 gbps; samples veth colocated 2 local gbps; } >samples
	report throughput rounds=3 seconds=1 wire=wire rivals=none
	assert_eq "$(of_row encrypted '[.value, .min, .max, .ratio, .ratio_min, .ratio_max, .runs, .unit]')" '[600,300,900,3,3,3,3,"Gb/s"]'
	assert_eq "$(of_row colocated '.ratio')" 2
	grep -qF '| **encrypted** | 600.00 (300.00..900.00) | 3.00 (3.00..3.00) |' m.md || fail "the page" "$(cat m.md)"
	{ samples direct encrypted 2 64B p50; samples direct encrypted 2 64B p99; } >samples
	report latency rounds=3 seconds=1 wire=wire rivals=none spin=200
	assert_eq "$(of_row encrypted '[.value, .added_us, .added_us_min, .added_us_max, .p99_us]')" '[400,200,100,300,400]'
	samples none in 2 "1 KiB" ms >samples
	report paper2001 rounds=3 mib=1 congestion=cubic
	assert_eq "$(of_row "in 1 KiB" '[.overhead_percent, .overhead_percent_min]')" '[100,100]'
	for place in 1,2 1,1 2,2 2,3 3,3; do
		samples moved relayed 4 "$place 256" mean
		samples direct nat 2 "$place 256" mean
		for way in moved relayed nat direct; do printf '%s\t%s\t1\tsend1\t5\n' "$place 256" $way; done
	done >samples
	report thesis rounds=3 sends=1
	assert_eq "$(of_row "2,3 256 KiB" '[.value, .gain_percent, .gain_over_nat_percent, .relayed_ms, .nat_ms, .direct_ms]')" '[200,75,50,800,400,200]'
}
