# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# fabricnode.bash - a node without daemons, whose fabric and tunstacks are made by fabrictool and stacktool: `load fabricnode`
#
#   fabric_node NAME          a node of its own, private /run                                    -> $SPAWNED
#   app_and_db NAME           such a node with two workloads: app 192.168.5.2, slot 1, and db 192.168.5.7, slot 2  -> $SPAWNED
#   stack_up [NODE [LIMIT]]   app's tunstack in $NODE or another one, /run/app.sock, /run/app.log               -> $STACK
#   stacks_down               those that still run
#   in_node CMD...            in the node $NODE
#   stack CMD...              ask the tunstack of app there
#   state KEY                 its value in the last line of $output
#   _lives_as NAME PID, _gone NAME PID

fabric_node() {
	spawn "$1" unshare -n -m bash -c 'mount --make-rprivate / && mount -t tmpfs none /run && ip link set lo up &&
		>/run/ready && exec sleep 3600'
	wait_for 10 test -e "/proc/$SPAWNED/root/run/ready"
}

app_and_db() {
	need_root
	export FABRICTOOL="$BUILD/bin/fabrictool -s 192.168.5.0/24=192.168.5.200"
	fabric_node "$1"
	run_ok in_pid "$SPAWNED" $FABRICTOOL ensure app 1 192.168.5.2
	run_ok in_pid "$SPAWNED" $FABRICTOOL ensure db 2 192.168.5.7
}

stack_up() {
	run_ok in_pid "${1:-$NODE}" "$BUILD/bin/stacktool" spawn app 1 192.168.5.2 /run/app.sock /run/app.log "${2:-0}" /run/netns/ovl-fabric
	STACK=$output
	echo "$STACK" >>"$BATS_TEST_TMPDIR/stacks"
}

stacks_down() {
	local pid
	for pid in $(cat "$BATS_TEST_TMPDIR/stacks"); do
		! _lives_as tunstack "$pid" || kill "$pid"
		wait_for 5 _gone tunstack "$pid"
	done
}

in_pid() { nsenter -t "$1" -n -m -- "${@:2}"; }
in_node() { in_pid "$NODE" "$@"; }
stack() { in_node "$BUILD/bin/stacktool" /run/app.sock "$@"; }
state() { sed -nE '$s/.* '"$1"'=([0-9a-z]+).*/\1/p' <<<"$output"; }
_lives_as() { [ "$(cat "/proc/$2/comm" 2>/dev/null)" = "$1" ]; }
_gone() { ! _lives_as "$@"; }
