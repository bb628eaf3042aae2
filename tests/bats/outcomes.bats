#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# What a node says of migrations it has never heard of: it binds, and nobody can fill /run with it
#
#	n1, n3: ask    n2: is asked

load helpers

setup_file() { lab_up 3; }
teardown_file() { lab_down; }

DIR=/run/overlayd/migrations

id() { printf '%032x' "$1"; }
addr() { on n2 overlayd status --json | jq -r .address; }
# query NODE ID [N]   expect NODE ID WORKLOAD: of n2
query() { run_ok on "$1" askagent query "$(id "$2")" n2 "$ADDR" ${3:+"$3"}; }
on_file() { on n2 find $DIR -name '*.outcome' | wc -l; }
expected() { on n2 overlayd status --json | jq -r '.migrations | map(.id) | join(" ")'; }

setup() { ADDR=$(addr); }
teardown() { on n2 sh -c "rm -f $DIR/*.outcome"; run_ok on n2 overlayd stop; run_ok on n2 overlayd start; }

@test "outcomes: an id nobody has heard of is gone, for good: who comes with it later is sent away" {
	query n1 16
	assert_eq "$(json .gone)" 1
	assert_eq "$(on n2 jq -r '"\(.outcome) \(.asked_by)"' "$DIR/$(id 16).outcome")" "3 n1"
	run_rc 1 on n1 askagent expect "$(id 16)" n2 "$ADDR" app
	assert_match "$output" "migration 00000000 is over at n2"
	run_ok on n2 overlayd stop
	run_ok on n2 overlayd start
	run_rc 1 on n1 askagent expect "$(id 16)" n2 "$ADDR" app
	assert_match "$output" "is over at n2"
	assert_eq "$(expected)" ""
}

@test "outcomes: one node's questions leave so many files and no more; another one is answered all the same" {
	query n1 1000 300
	assert_eq "$(json '"\(.gone) \(.pending)"')" "256 44" "$output"
	assert_eq "$(on_file)" 256 "files"
	query n1 1000 300 # what has been said is said again
	assert_eq "$(json '"\(.gone) \(.pending)"')" "256 44" "$output"
	query n3 5000
	assert_eq "$(json .gone)" 1
	run_ok on n2 overlayd stop
	run_ok on n2 overlayd start
	query n1 6000
	assert_eq "$(json .pending)" 1 "after a restart"
	run_ok on n2 sh -c "touch -d '2 hours ago' $DIR/*.outcome"
	run_ok on n2 overlayd stop
	run_ok on n2 overlayd start
	assert_eq "$(on_file)" 0 "old files"
	query n1 6000
	assert_eq "$(json .gone)" 1 "when the old ones have gone"
}

@test "outcomes: only who announced a migration ends its announcement by asking" {
	run_ok on n1 askagent expect "$(id 7)" n2 "$ADDR" app
	query n3 7
	assert_eq "$(json .pending)" 1
	assert_eq "$(expected)" "$(id 7)"
	query n1 7
	assert_eq "$(json .gone)" 1
	assert_eq "$(expected)" ""
}

@test "outcomes: a migration is announced with a workload's name, not with anything" {
	local name
	for name in "" $'a\nb' ../../etc "$(printf '%064d' 1)"; do
		run_rc 1 on n1 askagent expect "$(id 8)" n2 "$ADDR" "$name"
		assert_match "$output" "workload without a proper name"
	done
	assert_eq "$(expected)" ""
	run_ok on n1 askagent expect "$(id 8)" n2 "$ADDR" app
}
