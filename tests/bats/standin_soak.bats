#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# One workload moves to and fro under load, again and again, with and without a stand-in: every byte, no reset, nobody stands still
#
#	n1, n2: the workload moves between them    n3: the clients, and the directory
#
# A few moves in each check; with MS_SOAK=1 (make soak-standin) 120.

load helpers
load faults

setup_file() { lab_up 3 --subnet 192.168.5.0/24=n3; }
teardown_file() { lab_down; }
setup() {
	workload n1 app 192.168.5.2
	workload n3 far 192.168.5.5
}
teardown() { drop_workloads && end_spawned; }

TALKERS=(both slow up down paced pings)

# has each client moved on since `mark`? Bytes of both directions, for both of them. (cp(1) refuses a file that is being replaced.)
mark() { local c; for c in "${TALKERS[@]}"; do cat "$BATS_TEST_TMPDIR/$c.json" >"$BATS_TEST_TMPDIR/$c.mark"; done; }
went_on() {
	local c fields
	for c in "${TALKERS[@]}"; do
		fields='.bytes_sent, .bytes_received'
		case $c in up | paced) fields=.bytes_sent ;; down) fields=.bytes_received ;; esac
		jq -se "[.[] | [$fields]] | [transpose[] | .[0] < .[1]] | all" "$BATS_TEST_TMPDIR/$c.mark" "$BATS_TEST_TMPDIR/$c.json" \
			>/dev/null || { echo "$c" >"$BATS_TEST_TMPDIR/still"; return 1; }
	done
}

# what the kernels of both ends think of their connections
tell_sockets() {
	echo "stands still: $(cat "$BATS_TEST_TMPDIR/still")"
	on n3 ip netns exec far ss -tinmo
	on "$(holder)" ip netns exec app ss -tinmo
}

@test "stand-in: real migrations under load, one after the other" {
	local moves=${MS_MOVES:-6} i how from answered=0 segments=0 taken=0 frozen=0 gap
	[ -z "${MS_SOAK:-}" ] || moves=120
	server n1 app srv 192.168.5.2:2000
	client n3 far both --mode both 192.168.5.2:2000
	client n3 far slow --mode both --rate 4 192.168.5.2:2000
	client n3 far up --mode upload 192.168.5.2:2000
	client n3 far down --mode download --rate 20 192.168.5.2:2000
	client n3 far paced --mode upload --rate 1 192.168.5.2:2000
	client n3 far pings -n 3 192.168.5.2:2000
	spawn churn on n3 ip netns exec far ms-churn --threads 3 192.168.5.2:2000
	for ((i = 0; i < moves; i++)); do
		from=$(holder)
		case $((i % 4)) in
		0) how=() ;;				# as by default
		1) how=(--standin-after 0) ;;
		2) how=(--standin-after 0 --hold-freeze $((RANDOM % 500))) ;;
		3) how=(--hold-freeze $((RANDOM % 300))) ;;
		esac
		move "$from" app "$(other "$from")" "${how[@]}"
		assert_eq "$(json '"\(.reset_connections) \(.behind)"')" "0 0" "reset and behind in move $i: $output"
		[ "$(json .answered_by)" != stand-in ] || answered=$((answered + 1))
		segments=$((segments + $(json '.answered_segments // 0')))
		frozen=$(jq -n "[$frozen, $(json '.frozen_ms // 0')] | max")
		taken=$((taken + $(json '.taken_bytes // 0')))
		mark
		wait_for 30 went_on || { tell_sockets >&2; return 1; }
	done
	finish churn
	assert_eq "$status $(json '"\(.errors) \(.lost)"')" "0 0 0" "churn: $output"
	for c in "${TALKERS[@]}"; do
		gap+=" $c $(jq .longest_gap_ms "$BATS_TEST_TMPDIR/$c.json")"
		TIMEOUT=90 client_ok "$c" || { tell_sockets >&2; return 1; }
	done
	assert_eq "$(query n3 far 192.168.5.2:2000 errors)" 0 "errors of the server"
	assert_le 1 "$answered" "moves in which lwIP answered"
	echo "# $moves moves, lwIP answered in $answered: $segments segments, $taken bytes taken in; longest freeze $frozen ms; longest pauses, ms:$gap" >&3
}
