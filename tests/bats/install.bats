#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# make install, into a folder, and scripts/install-deps when nothing is missing

load helpers

setup_file() {
	export D=$BATS_FILE_TMPDIR/root
	DEPS_DONE=1 make -s -C "$TOP" BUILD="$BUILD" DESTDIR="$D" prefix=/usr install >"$BATS_FILE_TMPDIR/log" 2>&1 ||
		{ cat "$BATS_FILE_TMPDIR/log" >&2; return 1; }
}

@test "install: commands, helpers, units, man pages, examples, completions" {
	local f
	for f in bin/overlayd bin/directoryd bin/ms-migrate bin/ms-sockets bin/ms-ca lib/overlayd/ms-agent lib/overlayd/ms-init \
		lib/overlayd/tunstack; do
		[ -x "$D/usr/$f" ] || fail "$f is missing"
	done
	for f in lib/overlayd/msrestart.so lib/systemd/system/overlayd.service lib/systemd/system/directoryd.service \
		lib/systemd/system/overlayd-launcher.service \
		share/man/man8/overlayd.8 share/man/man8/ms-migrate.8 share/man/man8/directoryd.8 share/man/man8/ms-ca.8 \
		share/doc/overlayd/overlayd.conf.example share/doc/overlayd/directoryd.conf.example \
		share/bash-completion/completions/ms-migrate; do
		[ -f "$D/usr/$f" ] || fail "$f is missing"
	done
	assert_eq "$(stat -c %a "$D/etc/overlayd/pki")" 700 "mode of the folder of keys"
}

@test "install: nothing of the tests is installed" {
	run_ok find "$D" \( -name '*test*' -o -name '*tool*' -o -name '*shim*' \)
	assert_eq "$output" "" "files"
}

@test "install: the units start what was installed" {
	run_ok cat "$D/usr/lib/systemd/system/overlayd.service" "$D/usr/lib/systemd/system/directoryd.service" \
		"$D/usr/lib/systemd/system/overlayd-launcher.service"
	assert_match "$output" "ExecStart=/usr/bin/overlayd start --foreground --launcher /run/overlayd/launcher.sock"
	assert_match "$output" "ExecStart=/usr/bin/overlayd launcher /run/overlayd/launcher.sock"
	assert_match "$output" "ExecStart=/usr/bin/directoryd start --foreground"
	refute_match "$output" "@[a-z]+@"
}

@test "install: systemd understands the units, and finds the daemons sandboxed" {
	local units=$BATS_TEST_TMPDIR/units f
	command -v systemd-analyze >/dev/null || skip "no systemd-analyze here"
	need_root
	mkdir "$units"
	for f in directoryd overlayd overlayd-launcher; do
		sed "s#=/usr/bin/#=$D/usr/bin/#" "$D/usr/lib/systemd/system/$f.service" >"$units/$f.service"
	done
	run_ok analyze verify --man=no "$units/directoryd.service" "$units/overlayd-launcher.service" "$units/overlayd.service"
	assert_eq "$output" "" "what systemd has to say"
	run_ok analyze security --offline=true --threshold=70 "$units/overlayd.service"
	run_ok analyze security --offline=true --threshold=70 "$units/directoryd.service"
	run_fail analyze security --offline=true --threshold=70 "$units/overlayd-launcher.service"
}
analyze() { # it leaves files in /run
	unshare --mount sh -c 'mount -t tmpfs run /run && exec systemd-analyze "$@"' analyze "$@"
}

@test "install: an installed command runs" {
	run_ok "$D/usr/bin/overlayd" --help
	run_ok "$D/usr/bin/ms-migrate" --help
}

@test "install-deps: nothing is fetched, nothing is said when nothing is missing" {
	mkdir "$BATS_TEST_TMPDIR/stubs"
	printf '#!/bin/sh\necho fetched >>"%s"\n' "$BATS_TEST_TMPDIR/fetched" >"$BATS_TEST_TMPDIR/stubs/apt-get"
	chmod +x "$BATS_TEST_TMPDIR/stubs/apt-get"
	run_ok env PATH="$BATS_TEST_TMPDIR/stubs:$PATH" "$TOP/scripts/install-deps"
	assert_eq "$output" "" "output"
	[ ! -e "$BATS_TEST_TMPDIR/fetched" ]
	run_ok "$TOP/scripts/install-deps" --check
	run_fail "$TOP/scripts/install-deps" --frobnicate
}
