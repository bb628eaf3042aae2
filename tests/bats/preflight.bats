#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# preflight.bats - what the scan sees of real processes, and what pre-flight says of them
#
# Every test has a network namespace of its own ($NS), puts tests/lib/situation.c into one situation in it and asks
# tests/lib/scantool.c. "The destination" is this machine again, or a tree of files made for the purpose.

load helpers

setup_file() {
	need_root
	mountpoint -q /run/netns && touch "$BATS_FILE_TMPDIR/had-netns"
	true
}

# `ip netns add` makes /run/netns a mount of itself when it is the first to use it
teardown_file() {
	[ -e "$BATS_FILE_TMPDIR/had-netns" ] || umount /run/netns 2>/dev/null || true
}

setup() {
	NS=pf-$TAG-$BATS_TEST_NUMBER
	DIR=$BATS_TEST_TMPDIR
	ip netns add "$NS"
	ip -n "$NS" link set lo up
}

# whatever still runs in this test's own namespace, daemons that left their session too
kill_all() {
	local pid
	for pid in $(ip netns pids "$NS" 2>/dev/null); do
		kill -KILL "$pid" 2>/dev/null || true
	done
}

teardown() {
	end_spawned
	kill_all
	ip netns del "$NS" 2>/dev/null || true
	ip netns del "$NS-b" 2>/dev/null || true
}

is_ready() { grep -q '^ready' "$DIR/$1.out"; }

# start NAME SITUATION...: inside $NS; $PID is the process that said so
start() {
	local name=$1
	shift
	spawn "$name" ip netns exec "$NS" situation "$@"
	wait_for 10 is_ready "$name" || { cat "$DIR/$name.err" >&2; return 1; }
	PID=$(awk '/^ready/ { print $2 }' "$DIR/$name.out")
}

# outside NAME SITUATION...: in a namespace of another workload
outside() {
	local name=$1
	shift
	[ -e "/run/netns/$NS-b" ] || ip netns add "$NS-b"
	spawn "$name" ip netns exec "$NS-b" situation "$@"
	wait_for 10 is_ready "$name" || { cat "$DIR/$name.err" >&2; return 1; }
}

# scan_of PID: its JSON is in $output
scan_of() { run_ok scantool scan "$1"; }

codes() { json "[.[] | select(.severity == \"$1\") | .code] | sort | unique | join(\" \")"; }

# refused PID CODES [TEXT...]: exactly these refusals, and each TEXT (a regex) in them
refused() {
	local pid=$1 want=$2 text
	shift 2
	_run scantool refuse "$pid" shim "${OPTS[@]}"
	assert_eq "$(codes refuse)" "$want" "refusals in $output"
	for text in "$@"; do
		assert_match "$(json '.[].text')" "$text"
	done
}

# warned PID CODE TEXT: no refusal, but this warning
warned() {
	run_ok scantool refuse "$1" shim
	assert_match " $(codes warn) " " $2 "
	assert_match "$(json '.[].text')" "$3"
}

# dest CODES TEXT... -- ARGS: the destination's refusals
dest() {
	local want=$1 texts=() text
	shift
	while [ "$1" != -- ]; do texts+=("$1"); shift; done
	shift
	_run scantool dest "$PID" "$@"
	assert_eq "$(codes refuse)" "$want" "refusals in $output"
	for text in "${texts[@]}"; do
		assert_match "$(json '.[].text')" "$text"
	done
}

# ---- what the scan sees --------------------------------------------------------------------------------------------------

@test "scan: a process, its program, its descriptors opened outside as externals" {
	start a plain
	scan_of "$PID"
	assert_eq "$(json '.tasks | length')" 1
	assert_eq "$(json '.tasks[0].comm')" situation
	assert_eq "$(json '.tasks[0].exe')" "$(readlink -f "$BUILD/bin/situation")"
	assert_eq "$(json '[.externals[] | .path] | sort | join(" ")')" "/dev/null $DIR/a.err $DIR/a.out"
	assert_eq "$(json ".externals[] | select(.path == \"$DIR/a.out\") | .pos")" "$(stat -c %s "$DIR/a.out")"
	# CRIU's key: mount id and inode in hex
	local mnt
	mnt=$(awk '/^mnt_id/ { print $2 }' "/proc/$PID/fdinfo/1")
	assert_eq "$(json ".externals[] | select(.path == \"$DIR/a.out\") | .key")" \
		"$(printf 'file[%x:%x]' "$mnt" "$(stat -c %i "$DIR/a.out")")"
	assert_match "$(json '.mapped[] | select(.path | endswith("libc.so.6")) | .build_id')" '^(16|20)$'
	refused "$PID" ""
}

@test "scan: a double-forked daemon is found, as a tree of its own" {
	start a daemon
	scan_of "$PID"
	assert_eq "$(json '[.tasks[].comm] | sort | join(" ")')" "situation the-daemon"
	assert_eq "$(json '.trees | length')" 2
	warned "$PID" trees '2 separate process trees'
}

@test "scan: threads, zombies and a listener's queue" {
	start a threads 40
	start b zombie-child
	start c backlog
	scan_of "$PID"
	assert_eq "$(json '[.tasks[] | .threads] | sort | join(" ")')" "1 1 1 40"
	refused "$PID" ""
	scan_of "$PID"
	assert_eq "$(json '[.sockets[] | select(.state == 10) | .rqueue] | tojson')" "[1]" "connections that wait at the listener"
}

@test "scan: 300 processes and 1000 sockets in one look, fast" {
	start a crowd 300 1000
	local best=1000000 us _
	for _ in 1 2 3; do
		scan_of "$PID"
		us=$(json .cpu_us)
		[ "$us" -ge "$best" ] || best=$us
	done
	assert_eq "$(json '.tasks | length')" 300
	assert_eq "$(json '.sockets | length')" 897
	# 50 ms on a quiet machine; sanitizers and a machine at work elsewhere are allowed ten times that
	# of processor time; 50 ms on a quiet machine, and sanitizers are allowed ten times that
	assert_le "$best" 500000 "microseconds of the best of three scans"
	echo "# scan of 300 processes: $best us" >&3
}

@test "scan: just the pids, daemons and zombies too, for asking again" {
	start a daemon
	start b zombie-child
	run_ok scantool pids "$PID"
	assert_eq "$(json '.pids | length')" 4
	assert_eq "$(json '.pids[]' | sort)" "$({ ip netns pids "$NS"; ps -o pid= --ppid "$PID" | tr -d ' '; } | sort)"
}

@test "scan: what has to travel: memory, a memfd, a removed file, once each" {
	local empty
	start a plain
	scan_of "$PID"
	empty=$(json .memory)
	finish a KILL
	start b memory 20
	scan_of "$PID"
	assert_le $((empty + 19 * 1048576)) "$(json .memory)"	# the kernel counts pages in batches
	assert_le "$(json .memory)" $((empty + 22 * 1048576))
	finish b KILL
	start c deleted "$DIR/gone" 3000000
	scan_of "$PID"
	assert_le $((empty + 2900000)) "$(json .memory)"
	assert_le "$(json .memory)" $((empty + 3300000))
}

@test "scan: nobody in the namespace, or no such process" {
	run_fail scantool scan 999999999
	assert_match "$output" 'no such process'
}

@test "fine: kernel objects CRIU carries are no reason" {
	start a fine
	refused "$PID" ""
	start b unix-inside "$DIR/in.sock"
	refused "$PID" ""
	scan_of "$PID"
	assert_eq "$(json '[.externals[] | select(.kind != "file")] | length')" 0
}

# ---- the source's refusals -----------------------------------------------------------------------------------------------

@test "refused: io_uring" {
	start a io_uring
	refused "$PID" io_uring "situation.$PID. fd [0-9]+: .io_uring. cannot be moved: switch io_uring off"
}

@test "refused: multipath TCP, with the hint for Go" {
	[ "$(cat /proc/sys/net/mptcp/enabled 2>/dev/null)" = 1 ] || skip "this kernel has no MPTCP"
	start a mptcp
	refused "$PID" mptcp 'fd [0-9]+: a multipath TCP socket.*GODEBUG=multipathtcp=0'
}

@test "refused: a UNIX stream to a process outside, which is named" {
	outside srv unix-server "$DIR/out.sock"
	local srv
	srv=$(awk '{ print $2 }' "$DIR/srv.out")
	start a unix-client "$DIR/out.sock"
	refused "$PID" unix-outside "fd [0-9]+: a UNIX stream connection.* to situation.$srv., which is not part"
}

@test "refused: a process outside connected to a listener of ours" {
	start a unix-server "$DIR/in.sock"
	outside cli unix-client "$DIR/in.sock"
	refused "$PID" unix-outside "a UNIX connection that situation.$(awk '{ print $2 }' "$DIR/cli.out"). made from another"
}

@test "refused: UNIX datagrams to another namespace" {
	outside srv unix-dgram-server "$DIR/log.sock"
	start a unix-dgram-client "$DIR/log.sock"
	refused "$PID" unix-outside 'a UNIX datagram connection to situation'
}

@test "refused: being traced, the tracer is named" {
	start a plain
	local traced=$PID
	start t trace "$traced"
	refused "$traced" ptraced "situation.$traced. is traced by situation.$PID. .of the same workload.: detach"
	finish t KILL
	refused "$traced" ""
}

@test "refused: strace from outside" {
	start a plain
	spawn s strace -p "$PID" -o /dev/null
	wait_for 10 grep -q '^TracerPid:.*[1-9]' "/proc/$PID/status"
	refused "$PID" ptraced "is traced by strace"
}

@test "refused: System V shared memory of the host, not of an own IPC namespace" {
	start a shm
	refused "$PID" sysv-shm 'System V shared memory .key 0x00000000. of the host: start it with .overlayd exec.'
	spawn b ip netns exec "$NS" unshare -i situation shm
	wait_for 10 is_ready b
	finish a KILL
	refused "$(spawned b)" ""
}

@test "refused: a semaphore set and a message queue of the host" {
	start a sem
	refused "$PID" sysv-ipc "situation.$PID. uses the System V semaphore set $(awk '/^id/ { print $2 }' "$DIR/a.out") of the host"
	finish a KILL
	ipcrm -s "$(awk '/^id/ { print $2 }' "$DIR/a.out")"
	start b msg
	refused "$PID" sysv-ipc "message queue $(awk '/^id/ { print $2 }' "$DIR/b.out") of the host"
	ipcrm -q "$(awk '/^id/ { print $2 }' "$DIR/b.out")"
}

@test "refused: a socket of another network namespace" {
	ip netns add "$NS-b"
	start a foreign-socket "/run/netns/$NS-b"
	refused "$PID" foreign-netns 'a TCP socket of another network namespace'
}

@test "refused: user, mount, IPC, PID and time namespaces of a child's own; one that left the network namespace" {
	start a userns
	refused "$PID" user-namespace 'user namespace of its own'
	finish a KILL
	start b child-ns mnt
	refused "$PID" mount-namespace 'the-child.[0-9]+. is in another mount namespace'
	finish b KILL
	start c child-ns ipc
	refused "$PID" ipc-namespace
	finish c KILL
	start d child-ns pid
	refused "$PID" pid-namespace
	finish d KILL
	start t child-ns time
	refused "$PID" time-namespace 'the-child.[0-9]+. is in another time namespace'
	finish t KILL
	start e child-ns net
	refused "$PID" netns-left 'the-child.[0-9]+., a descendant of the workload, has moved to another network namespace'
	finish e KILL
	start f thread-ns
	refused "$PID" thread-netns
	finish f KILL
	start g own-mnt
	refused "$PID" mapped-foreign "was mapped from a mount of another mount namespace"
}

@test "refused: a process that is pid 1 of a PID namespace of its own" {
	spawn a ip netns exec "$NS" unshare -p -f --mount-proc --kill-child situation plain
	wait_for 10 is_ready a
	refused "$(spawned a)" "mapped-foreign pid-namespace"
}

@test "refused: uninterruptible sleep behind vfork, a process without its first thread" {
	start a vfork
	wait_for 5 eval "ps -o stat= --ppid $PID | grep -q ^D"
	refused "$PID" unfreezable 'waits for a vfork child'
	finish a KILL
	start b zombie-leader
	wait_for 5 grep -q "^State:.Z" "/proc/$PID/status"
	start c plain
	refused "$PID" zombie-leader 'its first thread has ended while 1 others run'
}

@test "refused: removed files that are too large or have another name" {
	start a deleted "$DIR/gone" 5000
	refused "$PID" ""
	OPTS=(ghost=4999)
	refused "$PID" deleted-size "$DIR/gone was removed and has 5000 bytes; at most 4999"
	OPTS=()
	start b deleted "$DIR/linked" 10 yes
	refused "$PID" deleted-link "$DIR/linked was removed but has another name"
	OPTS=(remap)
	refused "$PID" ""
}

@test "refused: vsock, packet ring, message queue, foreign pidfd, device" {
	start a vsock
	refused "$PID" socket-family 'AF_VSOCK'
	finish a KILL
	start b ring
	refused "$PID" packet-ring
	finish b KILL
	start c mqueue "/$TAG"
	refused "$PID" mqueue "POSIX message queue /$TAG"
	finish c KILL
	start d pidfd 1
	refused "$PID" pidfd 'a pidfd of process 1,'
	finish d KILL
	start e open /dev/loop-control
	refused "$PID" device 'the device /dev/loop-control'
}

@test "refused: a netlink socket with an answer it has not read; read, it is fine" {
	start a netlink
	refused "$PID" netlink-unread 'situation.[0-9]+. fd 3: a netlink socket with messages it has not read.*try again'
	finish a KILL
	start b netlink read
	refused "$PID" ""
}

@test "refused: pending urgent data, unless its loss is accepted" {
	start a urgent
	refused "$PID" urgent 'urgent .out of band. data waits.*--allow-urgent-loss'
	run_ok scantool refuse "$PID" shim urgent
	assert_eq "$(codes warn)" urgent
}

@test "refused: what two trees share" {
	start a daemon pipe
	refused "$PID" shared-between-trees 'a pipe shared with'
	kill_all
	start b daemon memory
	refused "$PID" shared-between-trees 'shares memory'
	kill_all
	start c daemon eventfd
	refused "$PID" shared-between-trees 'eventfd. is shared with'
}

@test "refused: a terminal whose master is in another tree" {
	start a split-pty
	refused "$PID" shared-between-trees 'the terminal /dev/pts/[0-9]+ belongs to situation'
}

@test "refused: a local address that does not move with the workload" {
	ip -n "$NS" addr add 192.168.5.2/32 dev lo
	ip -n "$NS" addr add fd00::2/128 dev lo nodad
	OPTS=(vip=192.168.5.2)
	start a listen 192.168.5.2
	start b listen 127.0.0.1
	start c listen 0.0.0.0
	start d listen ::
	start e listen ::ffff:192.168.5.2
	refused "$PID" ""
	start f listen fd00::2
	refused "$PID" address 'a socket at address fd00::2, which is none of'
	finish f KILL
	OPTS=(vip=192.168.5.3)
	refused "$(spawned a)" address 'a socket at address 192.168.5.2'
}

@test "reasons of forked processes are told once, with their number" {
	start a many 20
	refused "$PID" io_uring '.and 20 more such processes.'
	assert_eq "$(json 'length')" 1
}

@test "warned: somebody outside waits for a lock" {
	start a flock "$DIR/l"
	ip netns add "$NS-b"
	spawn w ip netns exec "$NS-b" situation lock-waiter "$DIR/l"
	wait_for 10 grep -q -- "-> FLOCK .* $(spawned w) " /proc/locks
	warned "$PID" lock-waiter "outside waits for the lock on $DIR/l that situation.$PID. holds"
}

@test "warned: a FIFO whose other end is outside, kept as an external; the same one inside is fine" {
	mkfifo "$DIR/fifo"
	start a fifo "$DIR/fifo"
	refused "$PID" ""
	scan_of "$PID"
	assert_eq "$(json '[.externals[] | select(.kind == "fifo")] | length')" 0
	finish a KILL
	spawn r bash -c "exec situation fifo $DIR/fifo r"
	start b fifo "$DIR/fifo" w
	warned "$PID" pipe-outside 'a FIFO to situation.[0-9]+., outside the workload'
	scan_of "$PID"
	assert_eq "$(json '.externals[] | select(.kind == "fifo") | .path')" "$DIR/fifo"
	dest "" -- /
	_run unshare -m bash -c "touch $DIR/plain && mount --bind $DIR/plain $DIR/fifo && scantool dest $PID /"
	assert_eq "$(codes refuse)" file-kind
}

@test "refused: root lacks CAP_SYS_RESOURCE and the process runs as somebody else" {
	spawn a ip netns exec "$NS" setpriv --reuid 33 --regid 33 --clear-groups sleep 1000
	PID=$SPAWNED
	wait_for 10 grep -q '^Uid:.33' "/proc/$PID/status"
	wait_for 10 grep -qx sleep "/proc/$PID/comm"
	_run scantool refuse "$PID"
	if capsh --has-p=cap_sys_resource 2>/dev/null; then
		assert_eq "$(codes refuse)" ""
	else
		assert_eq "$(codes refuse)" capability
		assert_match "$(json '.[].text')" 'sleep.[0-9]+. runs as uid 33'
	fi
	refused "$PID" ""	# with the shim
}

@test "everything at once: several reasons, each named" {
	start a io_uring
	start b vsock
	start c deleted "$DIR/gone" 5000
	OPTS=(ghost=1)
	refused "$PID" "deleted-size io_uring socket-family"
}

# ---- warnings, relays ----------------------------------------------------------------------------------------------------

@test "warned: a terminal outside, kept as an external" {
	spawn t situation tty ip netns exec "$NS" situation plain
	wait_for 10 is_ready t
	PID=$(awk '/^ready/ { print $2 + 0 }' "$DIR/t.out")
	warned "$PID" tty 'the terminal /dev/pts/[0-9]+ is outside the workload: output continues'
	scan_of "$PID"
	local pts
	pts=$(readlink "/proc/$PID/fd/1")
	assert_eq "$(json '.externals[] | select(.kind == "tty") | .key')" \
		"$(printf 'tty[%x:%x]' "$(stat -c %r "$pts")" "$(stat -c %d "$pts")")"
	assert_eq "$(json '.externals | length')" 1
}

@test "warned: a pipe whose reader is outside, kept as an external" {
	spawn a bash -c "ip netns exec $NS situation plain | cat"
	wait_for 10 is_ready a
	PID=$(awk '/^ready/ { print $2 }' "$DIR/a.out")
	warned "$PID" pipe-outside "fd 1: a pipe to cat.[0-9]+., outside the workload: output continues"
	scan_of "$PID"
	assert_eq "$(json '.externals[] | select(.kind == "pipe") | .key')" "$(readlink "/proc/$PID/fd/1")"
}

# ---- the destination -----------------------------------------------------------------------------------------------------

@test "destination: the same machine has everything" {
	start a plain
	dest "" -- /
}

@test "destination: a missing program, a wrong size, a wrong mode, another build are told by name" {
	cp "$BUILD/bin/situation" "$DIR/prog"
	echo hello >"$DIR/data"
	spawn a ip netns exec "$NS" "$DIR/prog" open "$DIR/data"
	wait_for 10 is_ready a
	PID=$SPAWNED
	mkdir -p "$DIR/root$DIR"
	dest "external-missing file-missing" "n2: $DIR/prog is missing .prog" "n2: /.*libc.so.6 is missing" -- "$DIR/root"
	# everything but one thing: the machine's own tree with other files over two of its own, in a mount namespace
	cp "$DIR/prog" "$DIR/other"
	echo longer than hello >"$DIR/data2"
	chmod 600 "$DIR/data2"
	printf 'x' | dd of="$DIR/other" bs=1 seek="$(build_id_offset "$DIR/prog")" conv=notrunc status=none
	_run unshare -m bash -c "mount --bind $DIR/other $DIR/prog && mount --bind $DIR/data2 $DIR/data && scantool dest $PID /"
	assert_eq "$(codes refuse)" "file-differs file-mode file-size"
	assert_match "$(json '.[].text')" "n2: $DIR/prog differs from the one at n1 .build-id."
	assert_match "$(json '.[].text')" "n2: $DIR/data has 18 bytes, 6 at n1"
	assert_match "$(json '.[].text')" "n2: $DIR/data has mode 0600, 0644 at n1"
}

# where in an ELF file its build-id's bytes begin
build_id_offset() {
	local hex
	hex=$(readelf -SW "$1" | awk '/build-id/ { for (i = 1; i <= NF; i++) if ($i == "NOTE") print $(i + 2) }')
	echo $((0x$hex + 16))
}

@test "destination: a directory instead of a file, a working directory that is missing" {
	mkdir "$DIR/wd"
	echo x >"$DIR/f"
	spawn a bash -c "cd $DIR/wd && exec ip netns exec $NS situation open $DIR/f"
	wait_for 10 is_ready a
	PID=$SPAWNED
	_run unshare -m bash -c "mount -t tmpfs none $DIR && mkdir $DIR/f && scantool dest $PID /"
	assert_eq "$(codes refuse)" "external-missing file-kind file-missing"
	assert_match "$(json '.[].text')" "n2: $DIR/f is a directory, at n1 a file"
	assert_match "$(json '.[].text')" "n2: $DIR/wd is missing"
}

@test "destination: a log that is only appended to may differ; a file open for writing is warned of" {
	echo 1 >"$DIR/log"
	echo 1 >"$DIR/db"
	start a open "$DIR/log" append
	start b open "$DIR/db" rw
	echo other >"$DIR/log2"
	echo 2 >"$DIR/db2"
	chmod --reference="$DIR/log" "$DIR/log2" "$DIR/db2"
	_run unshare -m bash -c "mount --bind $DIR/log2 $DIR/log && mount --bind $DIR/db2 $DIR/db && scantool dest $PID /"
	assert_eq "$(codes refuse)" ""
	assert_match " $(codes warn) " ' file-not-shared '
	assert_match "$(json '.[].text')" "n2: $DIR/db is open for writing"
	refute_match "$(json '.[].text')" "$DIR/log"
}

@test "destination: what a program was started with is compared as well, unless it is only appended to" {
	start a plain
	_run unshare -m bash -c "cp $DIR/a.out $DIR/x && echo more >>$DIR/x && mount --bind $DIR/x $DIR/a.out && scantool dest $PID /"
	assert_eq "$(codes refuse)" file-size
	assert_match "$(json '.[].text')" "n2: $DIR/a.out has [0-9]+ bytes, $(stat -c %s "$DIR/a.out") at n1: copy it over, or start .* appended"
	_run unshare -m bash -c "chmod 640 $DIR/x && mount --bind $DIR/x $DIR/a.out && scantool dest $PID /"
	assert_eq "$(codes refuse)" file-mode
	finish a KILL
	spawn b bash -c "exec ip netns exec $NS situation plain >>$DIR/log"
	wait_for 10 grep -q ready "$DIR/log"
	PID=$SPAWNED
	_run unshare -m bash -c "cp $DIR/log $DIR/y && echo more >>$DIR/y && mount --bind $DIR/y $DIR/log && scantool dest $PID /"
	assert_eq "$(codes refuse)" ""
}

@test "destination: a POSIX lock or a lease on a file both see is refused, a flock is not" {
	start a flock "$DIR/l1"
	dest "" -- /
	finish a KILL
	start b posix "$DIR/l2"
	dest posix-lock "holds a POSIX lock on $DIR/l2, which n1 and n2 share" -- /
	finish b KILL
	start c lease "$DIR/l3"
	dest lease "holds a lease on $DIR/l3, which n1 and n2 share" -- /
}

@test "destination: a lock somebody else has there on a file of that name" {
	start a flock "$DIR/l"
	: >"$DIR/l2"
	chmod --reference="$DIR/l" "$DIR/l2"
	spawn h flock "$DIR/l2" sleep 1000
	wait_for 10 grep -q "FLOCK .*:$(stat -c %i "$DIR/l2") " /proc/locks
	_run unshare -m bash -c "mount --bind $DIR/l2 $DIR/l && scantool dest $PID /"
	assert_eq "$(codes refuse)" file-locked
	assert_match "$(json '.[].text')" "n2: $DIR/l is locked here by process $(spawned h)"
}

@test "destination: UNIX names: same file fine, taken name and missing directory refused" {
	mkdir "$DIR/run"
	start a unix-server "$DIR/run/s"
	dest "" -- /
	_run unshare -m bash -c "mount -t tmpfs none $DIR/run && touch $DIR/run/s && scantool dest $PID /"
	assert_eq "$(codes refuse)" unix-name-taken
	_run unshare -m bash -c "mount -t tmpfs none $DIR/run && scantool dest $PID /"
	assert_eq "$(codes refuse)" ""
	_run unshare -m bash -c "mount -t tmpfs -o ro none $DIR/run && scantool dest $PID /"
	assert_eq "$(codes refuse)" unix-directory
	# what a killed copy has bound is removed where it was its own, never where the source has its name
	_run unshare -m bash -c "mount -t tmpfs none $DIR/run && situation unix-bind $DIR/run/s && scantool dest $PID / sweep; ls $DIR/run"
	refute_match "$(tail -1 <<<"$output")" s
	_run scantool dest "$PID" / sweep
	[ -S "$DIR/run/s" ]
}

@test "destination: what CRIU calls removed files while it restores is swept up after a killed copy" {
	start a deleted "$DIR/gone" 10
	touch "$DIR/gone.cr.1f.ghost" "$DIR/gone.cr.x.ghost" "$DIR/gone.cr.1f.ghostly" "$DIR/other.cr.1.ghost"
	_run scantool dest "$PID" / sweep
	assert_eq "$(cd "$DIR" && echo *ghost*)" "gone.cr.1f.ghostly gone.cr.x.ghost other.cr.1.ghost"
}

@test "destination: architecture, CRIU, processor, memory, space, pids, room in /run" {
	start a plain
	mkdir "$DIR/run"
	dest arch "n1 a vax one" -- / arch=vax
	dest criu-version "n2 has CRIU 4.2.1, older than 5.0 at n1" -- / criu=5.0
	dest "" -- / criu=4.2
	assert_eq "$(codes warn)" criu-version
	dest cpu "its processor lacks.*no AVX" -- / "cpu=no AVX"
	dest memory "MB of memory are available" -- / mem=9000000000000
	dest "image-space memory" "MB are free in $DIR" -- / mem=9000000000000 "dir=$DIR"
	dest pid-max "raise it" -- / pid=99999999
	mount -t tmpfs -o size=64k,nr_inodes=10 none "$DIR/run"
	dest run-space "n2: (64|60) KB are free in $DIR/run.*take about 26[0-9] KB: make room" -- / "run=$DIR/run"
	mount -o remount,size=10m "$DIR/run"
	dest run-space "n2: only [0-9] more files can be made in $DIR/run" -- / "run=$DIR/run"
	mount -o remount,nr_inodes=1000 "$DIR/run"
	dest "" -- / "run=$DIR/run"
	umount "$DIR/run"
}

in_ns() { ip netns exec "$1" cat "/proc/sys/$2" | xargs; }

@test "destination: the workload's own sysctls go along; the machine's, which a waiting connect() depends on, are compared" {
	start a plain
	ip netns exec "$NS" sh -c 'echo 4096 131072 67108864 >/proc/sys/net/ipv4/tcp_rmem; echo 0 >/proc/sys/net/ipv4/tcp_sack'
	ip netns add "$NS-b"
	dest "" -- / "netns=/run/netns/$NS-b"
	assert_eq "$(codes warn)" ""
	assert_eq "$(in_ns "$NS-b" net/ipv4/tcp_rmem) $(in_ns "$NS-b" net/ipv4/tcp_sack)" "4096 131072 67108864 0"
	dest "" -- / "sysc=1; reboot" "netns=/run/netns/$NS-b"
	assert_match "$(json '.[].text')" 'net/ipv4/tcp_timestamps cannot be set to "1; reboot"'
	dest "" -- / "rmem=$(cat /proc/sys/net/core/rmem_max)" syn=1
	assert_eq "$(codes warn)" ""
	dest "" -- / rmem=2147483647
	assert_eq "$(codes warn)" window-scale
	assert_match "$(json '.[].text')" 'net.core.rmem_max is [0-9]+, 2147483647 at n1'
	dest window-scale "1 of the workload's sockets wait for a connection, with a window scale of 14: here it would be 11" -- / \
		rmem=2147483647 syn=1
}

# ---- locks ---------------------------------------------------------------------------------------------------------------

locked() { ! flock -n "$DIR/l" true; }

@test "flock: let go while the task is stopped, taken back, twice each" {
	start a flock "$DIR/l"
	locked
	kill -STOP "$PID"
	run_ok scantool locks "$PID" "$DIR/journal" release
	assert_eq "$(json .count)" 1
	flock -n "$DIR/l" true
	cp "$DIR/journal" "$DIR/kept"
	run_ok scantool locks "$PID" "$DIR/journal2" release	# nothing is held any more
	run_ok scantool locks "$PID" "$DIR/kept" relock
	locked
	run_ok scantool locks "$PID" "$DIR/kept" relock
	locked
	kill -CONT "$PID"
}

@test "flock: relock tells when somebody else has taken it, and passes over the dead" {
	start a flock "$DIR/l"
	run_ok scantool locks "$PID" "$DIR/journal" release
	start b flock "$DIR/l"
	run_fail scantool locks "$PID" "$DIR/journal" relock
	assert_match "$output" "taking the lock on $DIR/l back.*somebody else has taken it"
	finish a KILL
	run_ok scantool locks "$PID" "$DIR/journal" relock
}

@test "flock: shared locks and OFD ranges" {
	start a flock "$DIR/l" shared
	start b ofd "$DIR/o"
	run_ok scantool locks "$PID" "$DIR/journal" release
	assert_eq "$(json .count)" 2
	flock -n "$DIR/l" true
	scantool locks "$PID" "$DIR/none" release
	assert_eq "$(jq length "$DIR/none")" 0
	run_ok scantool locks "$PID" "$DIR/journal" relock
	locked
	flock -n -s "$DIR/l" true
	assert_match "$(cat "/proc/$PID/fdinfo/"*)" 'OFDLCK ADVISORY  WRITE -1 .* 10 14'
}

# ---- names of UNIX sockets -----------------------------------------------------------------------------------------------

greets() { spawn greeter situation unix-client "$1"; wait_for 5 is_ready greeter; finish greeter KILL; }

@test "UNIX name: aside, back, over a copy's, again after a crash; the listener answers" {
	start a unix-server "$DIR/s"
	run_ok scantool names "$PID" "$DIR/journal" aside
	assert_eq "$(json .count)" 1
	[ ! -e "$DIR/s" ]
	[ -S "$DIR/s.ms-00112233445566778899aabbccddeeff" ]
	outside copy unix-server "$DIR/s"
	run_ok scantool names "$PID" "$DIR/journal" back
	[ ! -e "$DIR/s.ms-00112233445566778899aabbccddeeff" ]
	run_ok scantool names "$PID" "$DIR/journal" back
	finish copy KILL
	greets "$DIR/s"
}

@test "UNIX name: after success ours is removed, a copy's stays" {
	start a unix-server "$DIR/s"
	run_ok scantool names "$PID" "$DIR/journal" aside
	outside copy unix-server "$DIR/s"
	finish a KILL
	run_ok scantool names 999999999 "$DIR/journal" finish
	[ ! -e "$DIR/s.ms-00112233445566778899aabbccddeeff" ]
	[ -S "$DIR/s" ]
	run_ok scantool names 999999999 "$DIR/journal" finish
	greets "$DIR/s"
}

@test "UNIX name: a relative one, and one that is somebody else's file by now" {
	mkdir "$DIR/d"
	spawn a bash -c "cd $DIR/d && exec ip netns exec $NS situation unix-server ./rel"
	wait_for 10 is_ready a
	run_ok scantool names "$SPAWNED" "$DIR/journal" aside
	assert_eq "$(json .count)" 1
	[ ! -e "$DIR/d/rel" ]
	echo mine >"$DIR/d/rel"
	run_fail scantool names "$SPAWNED" "$DIR/journal" back
	assert_match "$output" 'File exists'
	assert_eq "$(cat "$DIR/d/rel")" mine
	rm "$DIR/d/rel"
	run_ok scantool names "$SPAWNED" "$DIR/journal" back
	[ -S "$DIR/d/rel" ]
}
