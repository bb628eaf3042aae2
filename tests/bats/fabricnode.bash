# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# fabricnode.bash - a node without daemons, whose fabric and tunstacks are made by fabrictool and stacktool: `load fabricnode`
#
#   fabric_node NAME          a node of its own, private /run                                    -> $SPAWNED
#   in_node CMD...            in the node $NODE
#   stack CMD...              ask the tunstack of app there
#   state KEY                 its value in the last line of $output
#   _lives_as NAME PID, _gone NAME PID

fabric_node() {
	spawn "$1" unshare -n -m bash -c 'mount --make-rprivate / && mount -t tmpfs none /run && ip link set lo up &&
		>/run/ready && exec sleep 3600'
	wait_for 10 test -e "/proc/$SPAWNED/root/run/ready"
}

in_pid() { nsenter -t "$1" -n -m -- "${@:2}"; }
in_node() { in_pid "$NODE" "$@"; }
stack() { in_node "$BUILD/bin/stacktool" /run/app.sock "$@"; }
state() { sed -nE '$s/.* '"$1"'=([0-9a-z]+).*/\1/p' <<<"$output"; }
_lives_as() { [ "$(cat "/proc/$2/comm" 2>/dev/null)" = "$1" ]; }
_gone() { ! _lives_as "$@"; }
