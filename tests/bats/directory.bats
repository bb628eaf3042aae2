#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# directory.bats - the real directoryd and its commands, in a network and mount namespace of its own
#
#   one namespace (unshare -nm, held by a sleeper), private /run/overlayd:
#     directoryd 127.0.0.1:7471  192.168.5.0/24, and 192.168.6.0/24 for n1 only
#     ms-dirtool as n1, n2, n3: what a node's overlayd or agent says to it

load helpers

setup_file() {
	need_root
	export D=$BATS_FILE_TMPDIR
	export SERVE="192.168.5.0/24=127.0.0.1:7471"
	"$TOP/scripts/ms-ca" init --dir "$D/pki" >/dev/null
	for n in d1 n1 n2 n3; do "$TOP/scripts/ms-ca" node $n --dir "$D/pki" >/dev/null; done
	unshare -nm sleep 86400 </dev/null >/dev/null 2>&1 3>&- &
	echo $! >"$D/holder"
	wait_for 5 apart
	in_ns mount --make-rprivate /
	in_ns mkdir -p /run
	in_ns mount -t tmpfs none /run
	in_ns ip link set lo up
}

teardown_file() {
	[ -f "$D/holder" ] || return 0
	! in_ns test -e /run/overlayd/directoryd.pid || in_ns "$BUILD/bin/directoryd" stop
	kill "$(cat "$D/holder")"
}

apart() { [ "$(readlink "/proc/$(cat "$D/holder")/ns/mnt")" != "$(readlink /proc/self/ns/mnt)" ]; }

in_ns() { nsenter --target "$(cat "$D/holder")" --net --mount -- "$@"; }

setup() {
	conf >"$D/conf"
	rm -rf "$D/db"
	directoryd start -c "$D/conf"
}

teardown() {
	end_spawned
	directoryd stop
}

conf() { # [LINES]
	cat <<-TEXT
		node = "d1"
		listen = "127.0.0.1:7471"
		database = "$D/db/directory.db"
		lease = ${LEASE:-15}
		hold = ${HOLD:-3600}
		quarantine = ${QUARANTINE:-30}
		log-level = "debug"
		pki {
			ca = "$D/pki/ca.crt"
			cert = "$D/pki/d1.crt"
			key = "$D/pki/d1.key"
		}
		subnet "192.168.5.0/24" { }
		subnet "192.168.6.0/24" { nodes = {"n1"} }
		subnet "10.0.0.0/8" { }
	TEXT
}

directoryd() { in_ns "$BUILD/bin/directoryd" "$@"; }

# TOOL: the command with which NODE asks; tool NODE COMMAND...: run it
as() { # NODE
	TOOL=(nsenter --target "$(cat "$D/holder")" --net --mount -- "$BUILD/bin/ms-dirtool" -n "$1" -p "$D/pki" -s "$SERVE"
	      -s 192.168.6.0/24=127.0.0.1:7471 -s 10.0.0.0/8=127.0.0.1:7471 -a "10.0.0.${1#n}:7470")
}

tool() {
	as "$1"
	shift
	timeout 100 "${TOOL[@]}" "$@"
}

with_settings() { # NAME=VALUE...: start again with them
	directoryd stop
	env "$@" bash -c "$(declare -f conf); conf" >"$D/conf"
	directoryd start -c "$D/conf"
}

@test "start returns when it listens, a second one is refused, stop ends it, both leave nothing" {
	run_rc 1 directoryd start -c "$D/conf"
	assert_match "$output" "already running \(pid [0-9]+\)"
	run_ok directoryd status -c "$D/conf"
	assert_match "$output" "server +\"d1\""
	run_ok directoryd status --json -c "$D/conf"
	assert_eq "$(json .running)" true
	run_ok directoryd stop
	run_rc 3 directoryd status -c "$D/conf"
	run_ok directoryd stop
	assert_match "$output" "does not run"
	in_ns test ! -e /run/overlayd/directoryd.pid
	assert_eq "$(stat -c %a "$D/db/directory.db")" 600
	directoryd start -c "$D/conf"
}

@test "a wrong configuration is refused with its line before anything starts" {
	sed 's/^lease.*/lease = 0/' "$D/conf" >"$D/bad"
	run_rc 2 directoryd check-config -c "$D/bad"
	assert_match "$output" "$D/bad:4: lease = 0: expected seconds"
	run_rc 2 directoryd start -c "$D/bad"
	sed 's/^node.*/node = "x"/' "$D/conf" >"$D/bad"
	directoryd stop
	run_rc 1 directoryd start -c "$D/bad"
	assert_match "$output" "the configuration says node x, the certificate .* says d1"
	sed 's|pki/d1.key|pki/none.key|' "$D/conf" >"$D/bad"
	run_rc 1 directoryd start -c "$D/bad"
	assert_match "$output" "none.key"
	run_ok directoryd check-config -c "$D/conf"
	directoryd start -c "$D/conf"
}

@test "the documented example is a right configuration" {
	run_ok directoryd check-config -c "$TOP/docs/directoryd.conf.example"
}

@test "register, resolve, list, release; a second holder is refused by name" {
	run_ok tool n1 register app 192.168.5.2,192.168.5.3
	run_ok tool n2 resolve 192.168.5.2
	assert_eq "$output" "192.168.5.2 app n1 10.0.0.1:7470 1 live"
	run_rc 1 tool n2 register other 192.168.5.2
	assert_match "$output" "192.168.5.2 is held by app on n1"
	run_rc 1 tool n2 register app 192.168.5.9
	assert_match "$output" "the name app is held by n1"
	run_rc 1 tool n2 register six 192.168.6.9
	assert_match "$output" "n2 may not hold vIPs of 192.168.6.0/24"
	run_ok tool n1 register six 192.168.6.9
	run_ok directoryd list -c "$D/conf"
	assert_match "$output" "192.168.5.3 +app +n1 +10.0.0.1:7470 +1 +live"
	run_ok directoryd list --json -c "$D/conf"
	assert_eq "$(json length)" 3
	run_ok tool n1 release app 192.168.5.2
	run_rc 2 tool n2 resolve 192.168.5.2
	assert_match "$output" "freed by n1 and is in quarantine"
	run_rc 1 tool n2 register other 192.168.5.2
	assert_match "$output" "stays in quarantine for [0-9]+ s more"
}

@test "a move is told to who watches, and is answered the same after a kill -9" {
	run_ok tool n1 register app 192.168.5.2
	run_ok tool n2 register other 192.168.5.20
	as n3
	spawn watch "${TOOL[@]}" watch 192.168.5.2
	wait_for 5 grep -q watching "$BATS_TEST_TMPDIR/watch.out"
	run_ok tool n1 move 7 192.168.5.2 1 n1 n2
	assert_eq "$output" "192.168.5.2 app n2 10.0.0.2:7470 2 live"
	wait_for 5 grep -q "^changed 192.168.5.2 app n2 10.0.0.2:7470 2 live" "$BATS_TEST_TMPDIR/watch.out"
	run_ok directoryd status --json -c "$D/conf"
	kill -9 "$(json .pid)"
	wait_for 5 run_rc 3 directoryd status -c "$D/conf"
	directoryd start -c "$D/conf"
	run_ok tool n1 move 7 192.168.5.2 1 n1 n2
	assert_eq "$output" "192.168.5.2 app n2 10.0.0.2:7470 2 live"
	run_rc 116 tool n1 move 8 192.168.5.2 1 n1 n3
	assert_match "$output" "is on n2 with generation 2, not on n1 with 1"
	run_ok tool n3 migration 7 192.168.5.2
	assert_match "$output" "^moved"
	# the watcher has found the server again, and hears of what comes next
	run_ok tool n1 move 9 192.168.5.2 2 n2 n1 7
	wait_for 10 grep -q "^changed 192.168.5.2 app n1 10.0.0.1:7470 3 live" "$BATS_TEST_TMPDIR/watch.out"
	finish watch
}

@test "a node that does not report becomes suspect, keeps its vIP, and is freed by force or by the cleaner" {
	# long enough that a machine which stands still for a moment makes nobody suspect who reports every third of it
	with_settings LEASE=4
	run_ok tool n1 register app 192.168.5.2
	run_ok tool n1 register app2 192.168.5.3
	as n1
	spawn holder "${TOOL[@]}" -l watch 192.168.5.2 hold 192.168.5.2:1
	is_state() { [[ $(directoryd list -c "$D/conf") =~ $1\ +[^\ ]+\ +n1\ [^$'\n']*$2 ]]; }
	wait_for 5 is_state 192.168.5.3 suspect
	is_state 192.168.5.2 live
	run_rc 1 tool n2 release "" 192.168.5.2 force
	assert_match "$output" "which reports"
	run_rc 1 tool n2 register other 192.168.5.3
	assert_match "$output" "is held by app2 on n1 \(suspect"
	run_ok tool n2 release "" 192.168.5.3 force
	in_ns grep -q "audit: n2: release by force of 192.168.5.3: app2 on n1" /run/overlayd/directoryd.log
	is_state 192.168.5.2 live
	finish holder
	wait_for 5 is_state 192.168.5.2 suspect
	with_settings LEASE=0.5 HOLD=1 QUARANTINE=1
	wait_for 10 in_ns grep -q "audit: cleaner: 192.168.5.2 of app on n1 was freed" /run/overlayd/directoryd.log
	registered() { tool n2 register other 192.168.5.2 >"$BATS_TEST_TMPDIR/registered"; }
	wait_for 10 registered
	assert_match "$(cat "$BATS_TEST_TMPDIR/registered")" "192.168.5.2 other n2 10.0.0.2:7470 2 live"
}

@test "nobody without a certificate of the cluster gets a word in" {
	"$TOP/scripts/ms-ca" init --dir "$D/foreign" >/dev/null
	"$TOP/scripts/ms-ca" node n1 --dir "$D/foreign" >/dev/null
	run_rc 110 in_ns "$BUILD/bin/ms-dirtool" -n n1 -p "$D/foreign" -s "$SERVE" -t 500 resolve 192.168.5.2
	assert_match "$output" "does not answer"
	printf 'GET / HTTP/1.0\r\n\r\n' >"$D/garbage"
	in_ns timeout 5 bash -c 'exec 3<>/dev/tcp/127.0.0.1/7471; cat '"$D/garbage"' >&3; cat <&3' || true
	run_ok tool n1 register app 192.168.5.2
}

@test "the database can be copied while it runs, and the copy serves" {
	run_ok tool n1 register app 192.168.5.2
	run_ok in_ns sqlite3 "$D/db/directory.db" ".backup '$D/copy.db'"
	run_ok tool n1 register later 192.168.5.3
	directoryd stop
	cp "$D/copy.db" "$D/db/directory.db"
	rm -f "$D/db/directory.db-wal" "$D/db/directory.db-shm"
	directoryd start -c "$D/conf"
	run_ok tool n2 resolve 192.168.5.2
	run_rc 2 tool n2 resolve 192.168.5.3
}

@test "killed again and again under load: every move is made, and made once" {
	spawn load nsenter --target "$(cat "$D/holder")" --net --mount -- "$BUILD/bin/ms-dirload" "$D/pki" 127.0.0.1:7471 updates 600 64
	moves() { [ "$(directoryd status --json -c "$D/conf" | jq .commits)" -gt 200 ]; }
	for i in 1 2 3 4; do
		wait_for 10 moves
		kill -9 "$(in_ns cat /run/overlayd/directoryd.pid)"
		wait_for 5 directoryd start -c "$D/conf"
	done
	finish load	# what is under way is brought to its end
	assert_eq "$status" 0 "$(cat "$BATS_TEST_TMPDIR/load.err")"
	assert_match "$output" '"count": [0-9]{3,}'
}

@test "a watcher that does not read holds nobody up, and then learns how things are" {
	local vips done
	vips=$(seq -s, -f 10.0.0.%g 1 60)
	in_ns ms-dirload "$D/pki" 127.0.0.1:7471 updates 0.1 60
	as n3
	spawn watch "${TOOL[@]}" watch "$vips"
	wait_for 5 grep -q watching "$BATS_TEST_TMPDIR/watch.out"
	kill -STOP "$(spawned watch)"
	behind() { [ "$(directoryd status --json -c "$D/conf" | jq .events_merged)" -gt 0 ]; }
	for ((done = 0; done < 20; done++)); do
		in_ns ms-dirload "$D/pki" 127.0.0.1:7471 updates 1 60 >"$D/load"
		! behind || break
	done
	behind
	quick() {
		in_ns ms-dirload "$D/pki" 127.0.0.1:7471 updates 1 60 >"$D/load" &&
			assert_le "$(jq .p99_us "$D/load")" 1000000 "microseconds for a move meanwhile"
	}
	best_of 5 quick
	# what waits for it is bounded: the server has not grown by more than a few megabytes
	assert_le "$(awk '/VmRSS/ { print $2 }' "/proc/$(in_ns cat /run/overlayd/directoryd.pid)/status")" 65536 "KiB of memory"
	kill -CONT "$(spawned watch)"
	latest() { [ "$(grep -F ' 10.0.0.60 ' "$BATS_TEST_TMPDIR/watch.out" | tail -n 1 | cut -d' ' -f6)" = \
		     "$(tool n2 resolve 10.0.0.60 | cut -d' ' -f5)" ]; }
	wait_for 20 latest
	finish watch
}

@test "a server that is away: a clear word, and what was remembered" {
	run_ok tool n1 register app 192.168.5.2
	directoryd stop
	run_rc 110 tool n2 -t 500 resolve 192.168.5.2
	assert_match "$output" "directory 127.0.0.1:7471 for 192.168.5.0/24 does not answer"
	directoryd start -c "$D/conf"
	run_ok tool n2 resolve 192.168.5.2
}
