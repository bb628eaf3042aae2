#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Never on both, never on none, continued: faults during recovery, on both sides at once, cut links, a directory that is away, a
# tunstack that dies, and what an operator may do.
#
#	n1, n2: the workload moves between them    n3: the clients, and the directory

load helpers
load faults

setup_file() { fault_setup_file; }
teardown_file() { lab_down; }
setup() { fault_setup; }
teardown() {
	on n2 sh -c 'rm -f /run/fill; mount -o remount,size=50%,nr_inodes=100000 /run'
	fault_teardown
}

# ---- twice in one migration --------------------------------------------------------------------------------------------------

# both_sides "AT SRC"... -- "AT DST"...: lines for both nodes, then one migration, until all is quiet
both_sides() {
	local from to src=() dst=()
	while [ "$1" != -- ]; do src+=("$1"); shift; done
	shift
	dst=("$@")
	from=$(holder)
	to=$(other "$from")
	[ ${#src[@]} -eq 0 ] || arm "$from" "${src[@]}"
	[ ${#dst[@]} -eq 0 ] || arm "$to" "${dst[@]}"
	spawn mover on "$from" ms-migrate app "$to"
	wait_for 60 disarmed_minding "$from" "$to" ||
		{ tell; fail "not come by: $(cat "$(root "$from")/run/overlayd/fault" "$(root "$to")/run/overlayd/fault" 2>/dev/null | xargs)"; return 1; }
	daemon_back n1
	daemon_back n2
	settled "${src[*]} / ${dst[*]}" || return 1
	TIMEOUT=20 finish mover none
	FROM=$from TO=$to
}

@test "faults: recovery of a committed migration is itself killed at every step" {
	both_sides "src.swapped kill" "rec.settled kill" "rec.killed kill" "rec.done kill" --
	assert_eq "$(holder)" "$TO"
	again
	both_sides "src.handed killall" "rec.settled killall" "rec.killed killall" --
	assert_eq "$(holder)" "$TO"
	again
	both_sides -- "dst.running kill" "rec.runs kill" "rec.done kill"
	assert_eq "$(holder)" "$TO"
	again
	ended
}

@test "faults: recovery of a migration that was not committed is itself killed at every step" {
	both_sides "src.commit kill" "rec.begin kill" "rec.settled kill" "rec.returned kill" --
	assert_eq "$(holder)" "$FROM"
	again
	both_sides "src.restore kill" "rec.returned killall" "rec.done kill" --
	assert_eq "$(holder)" "$FROM"
	again
	ended
}

@test "faults: the copy is lost after the commit, and taking the vIPs back is interrupted at every step" {
	both_sides -- "dst.kept kill" "rec.ended kill" "rec.done kill"
	assert_eq "$(holder)" "$FROM"
	again
	both_sides "src.handed kill" "rec.settled kill" "rec.back kill" "rec.returned kill" -- "dst.kept error"
	assert_eq "$(holder)" "$FROM"
	again
	both_sides "src.swapped killall" "rec.back kill" -- "dst.hand-over killall" "rec.ended kill"
	assert_eq "$(holder)" "$FROM"
	again
	ended
}

# ---- held at a point ---------------------------------------------------------------------------------------------------------

# paused_move POINT [ARGS]: a move that waits at a point; it is node $AT that waits
paused_move() {
	mover_towards "$1" pause "${@:2}"
	wait_for 30 test -e "$(root "$AT")/run/overlayd/fault.reached" || { tell; return 1; }
}
go_on() { rm -f "$(root "$AT")/run/overlayd/fault.reached"; }
mover_ends() { # with STATUS
	TIMEOUT=60 finish mover none || { tell; return 1; }
	assert_eq "$status" "$1" "exit status of ms-migrate ($(cat "$BATS_TEST_TMPDIR/mover.err"))" || { tell; return 1; }
}
is_in_doubt() { on "$1" overlayd status --json | jq -e '.migrations[0].in_doubt'; }

agent() { jq .agent.pid "$(root "$1")"/run/overlayd/migrations/*/journal.json; }
daemon() { cat "$(root "$1")/run/overlayd/overlayd.pid"; }

@test "faults: both agents, or everything on both nodes, dies at the same moment" {
	local point what victims
	for point in src.commit src.swapped dst.running; do
		for what in agents all; do
			paused_move $point
			# the destination first: left alone for some milliseconds it learns of the commit and goes on, which is right, too
			victims="$(agent "$TO") $(agent "$FROM")"
			[ $what = agents ] || victims+=" $(daemon n1) $(daemon n2)"
			# shellcheck disable=SC2086
			kill -KILL $victims
			go_on
			if [ $what = all ]; then
				wait_for 5 daemon_dead n1
				wait_for 5 daemon_dead n2
				daemon_back n1
				daemon_back n2
			fi
			settled "$what killed at $point"
			finish mover none
			if [ $point = dst.running ]; then assert_eq "$(holder)" "$TO"; else assert_eq "$(holder)" "$FROM"; fi
		done
	done
	again
	ended
}

@test "faults: overlayd gets SIGTERM in the middle of a migration and is started again: nobody notices" {
	local point
	for point in src.captured src.restore src.swapped dst.restore dst.kept; do
		paused_move $point
		kill -TERM "$(daemon "$AT")"
		wait_for 10 daemon_dead "$AT"
		go_on
		daemon_back "$AT"
		mover_ends 0
		settled "SIGTERM to overlayd at $point"
		assert_eq "$(holder)" "$TO" "holder, SIGTERM at $point"
	done
	again
	ended
}

@test "faults: the link is cut before the commit: it goes on at the source, and the copy ends when the link is back" {
	local point
	local lock
	for point in src.captured src.restore dst.stands; do
		paused_move $point
		lab cut n1 n2
		go_on
		mover_ends 1
		assert_eq "$(holder)" "$FROM" "holder, link cut at $point"
		for c in $CLIENTS; do progress $c; done
		lab heal n1 n2
		# a copy out of reach cannot be told to let go of a lock on a filesystem both share; pre-flight refuses such locks
		[ $point != dst.stands ] || lock=lost
		FAULT_LOCK=$lock settled "link cut at $point"
	done
	again
	ended
}

@test "faults: the link is cut after the commit: it goes on at the destination, and the source ends when the link is back" {
	local point
	for point in src.commit dst.running; do
		paused_move $point
		lab cut n1 n2
		go_on
		wait_for 20 runs_at "$TO"
		for c in $CLIENTS; do progress $c; done
		wait_for 60 is_in_doubt "$FROM"
		lab heal n1 n2
		mover_ends 0
		settled "link cut at $point"
		assert_eq "$(holder)" "$TO" "holder, link cut at $point"
	done
	again
	ended
}
directory() { cat "$(root n3)/run/overlayd/directoryd.pid"; }

@test "faults: the directory is silent at the commit: in doubt, until it answers" {
	paused_move src.commit
	kill -STOP "$(directory)"
	go_on
	wait_for 30 is_in_doubt "$FROM"
	kill -CONT "$(directory)"
	mover_ends 0
	settled "directory stopped at the commit"
	assert_eq "$(holder)" "$TO"
	again
	ended
}

@test "faults: the directory dies at the commit and is started again" {
	paused_move src.commit
	kill -KILL "$(directory)"
	go_on
	run_ok on n3 directoryd start
	TIMEOUT=60 finish mover none
	settled "directory killed at the commit"
	again
	ended
}

@test "faults: in doubt, and then the agent is killed, too" {
	paused_move src.commit
	kill -STOP "$(directory)"
	go_on
	wait_for 30 is_in_doubt "$FROM"
	kill -KILL "$(agent "$FROM")"
	mover_ends 5
	wait_for 30 is_in_doubt "$FROM"
	kill -CONT "$(directory)"
	settled "directory stopped, agent killed"
	again
	ended
}

@test "faults: a tunstack dies while it captures, on either side, before and after the commit" {
	local point
	for point in src.captured src.restore src.commit src.handed dst.restore dst.commit; do
		# with it dies what it has acknowledged: standin_move.bats
		paused_move $point --standin-after off
		kill -KILL "$(state "$AT" .tunstack.pid)"
		go_on
		TIMEOUT=60 finish mover none
		settled "tunstack killed at $point"
	done
	again
	ended
}

server_in() { # INODE of a network namespace
	find /proc/[0-9]*/ns/net -lname "net:\[$1\]" 2>/dev/null | cut -d/ -f3 | while read -r p; do
		[ "$(cat "/proc/$p/comm")" != ms-testsrv ] || echo "$p"
	done
}

is_zombie() { [ "$(awk '/^State:/ { print $2 }' "/proc/$1/status")" = Z ]; }

@test "faults: the standing copy is killed by somebody" {
	local pid reaper
	paused_move src.commit
	pid=$(server_in "$(state "$TO" .netns)")
	reaper=$(awk '/^PPid:/ { print $2 }' "/proc/$pid/status")
	kill -STOP "$reaper"	# nobody hears of it: it stays a zombie, which kill(2) takes for a process
	kill -KILL "$pid"
	wait_for 10 is_zombie "$pid"
	go_on
	TIMEOUT=60 finish mover none || { tell; return 1; }
	settled "the copy was killed before it ran"
	assert_eq "$(holder)" "$FROM"
	again
	ended
}

repair_on() { # PID: every TCP socket of it is in repair mode, as if whoever reads them had just begun
	python3 -S -E -c '
import ctypes, os, socket, sys
pid, libc, n = int(sys.argv[1]), ctypes.CDLL(None, use_errno=True), 0
p = os.pidfd_open(pid)
for name in os.listdir("/proc/%d/fd" % pid):
    if not os.readlink("/proc/%d/fd/%s" % (pid, name)).startswith("socket:"):
        continue
    s = socket.socket(fileno=libc.syscall(438, p, int(name), 0))
    if s.family == socket.AF_INET and s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) != b"\x0a":
        s.setsockopt(socket.IPPROTO_TCP, 19, 1)
        n += 1
assert n == 3, n' "$1"
}

@test "faults: the agent is killed while it reads sockets in repair mode" {
	paused_move src.reading
	repair_on "$(server_in "$(state "$FROM" .netns)")"
	kill -KILL "$(agent "$FROM")"
	go_on
	mover_ends 5
	settled "killed while reading sockets"
	assert_eq "$(holder)" "$FROM"
	again
	ended
}

# ---- the operator ------------------------------------------------------------------------------------------------------------

@test "faults: Ctrl-C before the commit rolls back, after it changes nothing" {
	local point
	for point in src.prepare src.captured src.dump dst.restore; do
		paused_move $point
		kill -INT "$(pgrep -s "$(spawned mover)" -x ms-migrate)"
		go_on
		mover_ends 4
		assert_eq "$(holder)" "$FROM" "Ctrl-C at $point"
		settled "Ctrl-C at $point"
	done
	paused_move src.swapped
	kill -INT "$(pgrep -s "$(spawned mover)" -x ms-migrate)"
	go_on
	mover_ends 0
	settled "Ctrl-C after the commit"
	ended
}

@test "faults: ms-migrate is killed: the migration goes on without it" {
	paused_move src.dump
	kill -KILL "$(pgrep -s "$(spawned mover)" -x ms-migrate)"
	go_on
	finish mover none
	wait_for 20 runs_at "$TO"
	settled "ms-migrate killed"
	assert_eq "$(holder)" "$TO"
	ended
}

@test "faults: --timeout" {
	paused_move dst.restore --timeout 5	# enough to get there
	mover_ends 1
	assert_match "$(cat "$BATS_TEST_TMPDIR/mover.err")" "--timeout"
	go_on
	settled "out of time"
	assert_eq "$(holder)" "$FROM"
	again
	ended
}

refused_move() { # STATUS TEXT TO
	run_rc "$1" on "$(holder)" ms-migrate app "$3"
	assert_match "$output" "$2"
	settled "refused: $2"
}

@test "faults: no daemon there, no such node, a CRIU that does not work: said, and nothing has happened" {
	refused_move 3 "no node nowhere" nowhere
	run_ok on n2 overlayd stop
	refused_move 3 "n2" n2
	daemon_back n2
	no_criu n2
	no_criu n1
	again
	ended
}
no_criu() { # NODE: says what its daemon runs with, not what has become of the file since
	local conf
	conf=$(root "$1")/etc/overlayd/overlayd.conf
	cp "$conf" "$BATS_TEST_TMPDIR/conf"
	sed -i 's,^criu {,&\n\tpath = "/nonexistent/criu",' "$conf"
	grep -q nonexistent "$conf" || printf 'criu {\n\tpath = "/nonexistent/criu"\n}\n' >>"$conf"
	run_ok on n1 ms-migrate app n2 --dry-run
	run_ok on "$1" overlayd reload
	refused_move 3 "nonexistent" n2
	cat "$BATS_TEST_TMPDIR/conf" >"$conf"
	run_ok on "$1" overlayd reload
}

@test "faults: no room in /run at the destination: said at once, by name and number, and nothing has happened" {
	local kb
	kb=$(on n2 df -k --output=used /run | tail -n 1)
	run_ok on n2 mount -o "remount,size=$((kb + 256))k" /run
	run_rc 1 on n2 dd if=/dev/zero of=/run/fill bs=4k
	refused_move 3 "n2: [0-9] KB are free in /run/overlayd, a migration's records take about [0-9]+ KB: make room" n2
	run_ok on n2 rm -f /run/fill
	refused_move 3 "n2: [0-9]+ KB are free in /run/overlayd, a migration's records take about [0-9]+ KB: make room" n2
	run_ok on n2 mount -o "remount,size=50%,nr_inodes=$(on n2 df --output=iused /run | tail -n 1 | xargs)" /run
	refused_move 3 "n2: /run/overlayd/migrations/[0-9a-f]+: No space left on device" n2
	run_ok on n2 mount -o remount,nr_inodes=100000 /run
	assert_eq "$(holder)" n1
	again
	ended
}

@test "faults: no room in /run any more when the destination begins: the reason comes at once, its word when there is room again" {
	local kb
	arm n2 "dst.prepare pause"
	spawn mover on n1 ms-migrate app n2
	wait_for 30 test -e "$(root n2)/run/overlayd/fault.reached" || { tell; return 1; }
	kb=$(on n2 df -k --output=used /run | tail -n 1)
	run_ok on n2 mount -o "remount,size=$((kb + 256))k" /run
	run_rc 1 on n2 dd if=/dev/zero of=/run/fill bs=4k
	rm -f "$(root n2)/run/overlayd/fault.reached"
	TIMEOUT=60 finish mover none
	assert_eq "$status" 1 "exit status: $(cat "$BATS_TEST_TMPDIR/mover.err")"
	assert_match "$(cat "$BATS_TEST_TMPDIR/mover.err")" "n2: /run/overlayd/.*No space left on device"
	run_ok on n2 rm -f /run/fill
	run_ok on n2 mount -o remount,size=50% /run
	settled "no room in /run"
	assert_eq "$(holder)" n1
	again
	ended
}

# ---- several trees -------------------------------------------------------------------------------------------------------------

@test "faults: one of two process trees does not come up: said with its name and an exit status of its own, and nothing runs twice" {
	local second
	server n1 app two --lock "$BATS_TEST_TMPDIR/lock2" 192.168.5.2:2001
	second=$SERVER
	arm n2 "dst.tree error"
	_run on n1 ms-migrate app n2 --json
	assert_eq "$status" 7 "$output"
	output=$(grep '^{' <<<"$output")
	assert_match "$(json .text)" "app runs on n2, .*; but ms-testsrv\\[[0-9]+\\] did not come up there and is lost: "
	assert_eq "$(json '"\(.exit_status) \(.lost_processes | length) \(.lost_processes[0].command)"')" "7 1 ms-testsrv"
	assert_eq "$(holder)" n2
	assert_eq "$(on n1 overlayd netns list --json)" "[]" "workloads of n1"
	assert_eq "$(on n2 ip netns pids app | xargs -I{} cat /proc/{}/comm | grep -c ms-testsrv)" 1 "servers that run"
	[ ! -d "/proc/$second" ]
	[ ! -d "/proc/$(cat "$BATS_TEST_TMPDIR/srv.ready")" ]
}

# ---- what is remembered --------------------------------------------------------------------------------------------------------

outcomes() { find "$(root "$1")/run/overlayd/migrations" -name '*.outcome' -exec jq .outcome {} + | sort | uniq -c | xargs; }

@test "faults: a move that is over on both sides leaves nothing on file, however often; killed at its last step, it is over as well" {
	local was
	was="$(outcomes n1) / $(outcomes n2)"
	for _ in {1..4}; do again || return 1; done
	assert_eq "$(outcomes n1) / $(outcomes n2)" "$was" "outcomes on file"
	both_sides "src.finished kill" --
	assert_eq "$(holder)" "$TO"
	both_sides "src.finished killall" --
	assert_eq "$(holder)" "$TO"
	both_sides "src.finished kill" -- "dst.finish killall"
	assert_eq "$(holder)" "$TO"
	again
	ended
}
