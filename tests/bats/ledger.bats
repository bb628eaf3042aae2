# SPDX-License-Identifier: Apache-2.0
# The ledger on sockets that CRIU really restored, one in every state (tests/lib/statezoo.py), checked in its post-restore; then
# every connection goes on to its end, byte-exact.
#
#   $TAG-a 10.77.0.1 (the sockets) -- veth, MTU 1440 -- $TAG-b 10.77.0.2 (their peers); "captured" = the peers' end is down
load helpers

setup() {
	need_root
	CRIU=/opt/overlayd/criu/criu
	[ -x $CRIU ] || CRIU=$(command -v criu)
	DIR=$BATS_TEST_TMPDIR
	IMG=/dev/shm/$TAG-ledger
	mkdir -m 700 "$IMG"
	ip netns add "$TAG-a"
	ip netns add "$TAG-b"
	ip -n "$TAG-a" link add eth0 mtu 1440 type veth peer name eth0 mtu 1440 netns "$TAG-b"
	for n in a b; do
		ip -n "$TAG-$n" link set lo up
		ip -n "$TAG-$n" link set eth0 up
	done
	ip -n "$TAG-a" addr add 10.77.0.1/24 dev eth0
	ip -n "$TAG-b" addr add 10.77.0.2/24 dev eth0
	# nobody: who asked for its hardware address in vain would give up connect() after three seconds
	ip -n "$TAG-a" neigh add 10.77.0.9 lladdr 02:00:00:00:00:09 dev eth0 nud permanent
}

teardown() {
	local pid start
	[ -e "$DIR/restored" ] && read -r pid start <"$DIR/restored" && _lives "$pid" "$start" && kill -KILL "$pid"
	end_spawned
	ip netns del "$TAG-a"
	ip netns del "$TAG-b"
	rm -rf "$IMG"
}

in_a() { nsenter --net="/run/netns/$TAG-a" -- "$@"; }

# shellcheck disable=SC2120
zoo_up() {
	mkfifo "$DIR/stop"
	# CRIU takes no descriptor that was opened in another mount namespace: what a runner above us left open stays outside
	spawn zoo nsenter --net="/run/netns/$TAG-a" -- \
		bash -c "exec '${PYTHON:-python3}' -S '$TOP/tests/lib/statezoo.py' server '$DIR' <>'$DIR/stop' 10>&- 11>&- 12>&-"
	ZOO=$SPAWNED
	spawn peer nsenter --net="/run/netns/$TAG-b" -- "${PYTHON:-python3}" -S "$TOP/tests/lib/statezoo.py" peer "$DIR"
	wait_for 20 test -e "$DIR/ready"
}

@test "ledger: every state, restored by CRIU: nothing lost that is not set again, and the connections go on" {
	zoo_up
	ip -n "$TAG-b" link set eth0 down
	run_ok repairtool save "$DIR/images" "$ZOO"
	for state in ESTABLISHED CLOSE_WAIT FIN_WAIT1 FIN_WAIT2 CLOSING LAST_ACK SYN_SENT LISTEN CLOSE; do
		assert_match "$output" " $state "
	done
	assert_match "$output" "10.77.0.9:9 SYN_SENT"
	export OVERLAYD_CRIU_PRELOAD=$BUILD/lib/criushim.so
	TIMEOUT=60 run_ok in_a "$CRIU" dump -t "$ZOO" -D "$IMG" --tcp-established --network-lock skip --shell-job -v2 -o dump.log
	cat >"$DIR/hook" <<-HOOK
		#!/bin/sh
		[ "\$CRTOOLS_SCRIPT_ACTION" = post-restore ] || exit 0
		'$BUILD/bin/repairtool' check '$DIR/images' \$CRTOOLS_INIT_PID >'$DIR/ledger' 2>&1
		echo \$? >'$DIR/verdict'
		ip -n $TAG-b link set eth0 up
	HOOK
	chmod +x "$DIR/hook"
	wait_for 5 _ended "$ZOO" "$(cut -d' ' -f2 "$DIR/zoo.pid")"
	TIMEOUT=60 run_ok in_a "$CRIU" restore -D "$IMG" --tcp-established --shell-job -d -v2 -o restore.log --action-script "$DIR/hook"
	echo "$ZOO $(_start_time "$ZOO")" >"$DIR/restored"
	assert_eq "$(cat "$DIR/verdict")" 0 "$(cat "$DIR/ledger")"
	local lost
	lost=$(grep -oE '[A-Z0-9_]+ was ' "$DIR/ledger" | sort -u | cut -d' ' -f1 | tr '\n' ' ')
	echo "lost by CRIU and set again: $lost" >&3
	for opt in SO_MAX_PACING_RATE IP_TOS IPV6_TCLASS TCP_SYNCNT TCP_LINGER2 TCP_DEFER_ACCEPT TCP_WINDOW_CLAMP TCP_USER_TIMEOUT \
		TCP_NOTSENT_LOWAT TCP_INQ TCP_THIN_LINEAR_TIMEOUTS TCP_CONGESTION; do
		assert_match " $lost" " $opt "
	done
	touch "$DIR/go"
	wait_for 30 test -e "$DIR/result"
	assert_eq "$(cat "$DIR/result")" ok "$(cat "$DIR/zoo.err")"
	wait_for 10 test -e "$DIR/served"
	run_ok ms-sockets --json "$ZOO"
	assert_eq "$(json '[.sockets[] | select(.options.TCP_USER_TIMEOUT == 60000)] | length')" 3
	assert_eq "$(json '[.sockets[] | select(.options.SO_REUSEPORT == 1)] | length')" 0
}

@test "ledger: a socket that changed since its image was taken is refused" {
	zoo_up
	run_ok repairtool save "$DIR/images" "$ZOO"
	run_ok repairtool check "$DIR/images" "$ZOO"
	touch "$DIR/go"
	wait_for 10 test -e "$DIR/served"
	run_rc 1 repairtool check "$DIR/images" "$ZOO"
	assert_match "$output" "bad tcp [^ ]+ - [^ ]+ CLOSE_WAIT "
	assert_match "$output" "bad tcp [^ ]+ - [^ ]+ ESTABLISHED "
	assert_match "$output" "good .* LISTEN"
}
