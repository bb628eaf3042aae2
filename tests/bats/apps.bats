#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Real programs are moved from n1 to n2 and on to n3 while a client on n3 uses them: no error at the client, every byte right

load helpers

setup_file() { lab_up 3; }
teardown_file() { lab_down; }
teardown() {
	rm -rf "/tmp/$TAG-www"
	drop_workloads && end_spawned
}

VIP=192.168.5.2

setup() {
	T=$BATS_TEST_TMPDIR
	workload n1 app $VIP
	workload n3 far 192.168.5.5
}

# start NAME CMD...: the program, in the workload on n1
start() {
	local name=$1
	shift
	spawn "$name" on n1 ip netns exec app "$@"
}

far() { on n3 ip netns exec far "$@"; }
listens() { far bash -c "exec 3<>/dev/tcp/$VIP/$1" 2>/dev/null; }
move_on() { TIMEOUT=60 move n1 app n2 && TIMEOUT=60 move n2 app n3; }
# curl gets FILE, as "big", at so much a second while its server moves twice
download_meanwhile() { # RATE PORT FILE
	spawn get on n3 ip netns exec far curl -sS --fail --limit-rate "$1" -o "$T/got" "http://$VIP:$2/big"
	wait_for 10 test -s "$T/got"
	move_on
	TIMEOUT=90 finish get none
	assert_eq "$status" 0 "curl: $(cat "$T/get.err")"
	assert_eq "$(sha256sum <"$T/got")" "$(sha256sum <"$3")" "checksum"
}
count_is_over() { [ "$(cat "$1" 2>/dev/null || echo 0)" -gt "$2" ]; }
counts_on() { wait_for 20 count_is_over "$1" $(($(cat "$1") + 50)); }

@test "redis-server: a ledger of INCR and redis-benchmark" {
	start redis redis-server --bind $VIP --port 6379 --save '' --protected-mode no --dir "$T" --daemonize no
	wait_for 10 listens 6379
	spawn ledger on n3 ip netns exec far python3 "$TOP/tests/lib/redis_incr.py" $VIP 6379 "$T/stop" "$T/count"
	spawn bench on n3 ip netns exec far redis-benchmark -h $VIP -c 20 -n 60000 -t get,set -q
	wait_for 10 count_is_over "$T/count" 50
	move_on
	counts_on "$T/count"
	touch "$T/stop"
	finish ledger none
	assert_eq "$status" 0 "ledger: $output"
	TIMEOUT=60 finish bench none
	assert_eq "$status" 0 "redis-benchmark: $output"
	refute_match "$output$(cat "$T/bench.err")" "[Ee]rror" "redis-benchmark"
}

@test "nginx with workers: a checksummed download of 300 MB" {
	local www=/tmp/$TAG-www		# the workers are not root
	mkdir -m 755 "$www"
	head -c 300000000 /dev/zero | openssl enc -aes-128-ctr -pass pass:x -nosalt 2>/dev/null >"$www/big"
	cat >"$T/nginx.conf" <<-CONF
		worker_processes 2;
		pid $T/nginx.pid;
		error_log $T/nginx.log;
		events { worker_connections 256; }
		http {
			access_log off;
			client_body_temp_path $T/body; proxy_temp_path $T/proxy; fastcgi_temp_path $T/fcgi;
			uwsgi_temp_path $T/uwsgi; scgi_temp_path $T/scgi;
			server { listen $VIP:8080; root $www; }
		}
	CONF
	start nginx nginx -c "$T/nginx.conf" -g 'daemon off;'
	wait_for 10 listens 8080
	download_meanwhile 40M 8080 "$www/big"
	run_ok on n3 ip netns exec far curl -sS --fail -o /dev/null -r 0-9 "http://$VIP:8080/big"
}

@test "iperf3: a test that runs through the moves, both directions" {
	local way
	for way in "" -R; do
		start iperf iperf3 -s -1 -B $VIP
		wait_for 10 listens_iperf
		# shellcheck disable=SC2086
		spawn run on n3 ip netns exec far iperf3 -c $VIP -t 6 -P 2 -b 50M -J $way
		wait_for 10 _connected
		move n1 app n2
		TIMEOUT=30 finish run none
		assert_eq "$status" 0 "iperf3 $way: $output"
		assert_eq "$(json '.error // "none"')" none "error of iperf3 $way"
		assert_eq "$(json '[.intervals[].sum.seconds] | add >= 5')" true "seconds that iperf3 $way measured"
		run_ok on n2 overlayd netns del app --force
		end_spawned
		workload n1 app $VIP
	done
}
listens_iperf() { on n1 ip netns exec app ss -Hltn 'sport = :5201' | grep -q .; }
_connected() { [ "$(far ss -Htn state established dst $VIP | wc -l)" -ge 3 ]; }

@test "sshd: a session with a terminal lives on, later logins work" {
	ssh-keygen -q -t ed25519 -N '' -f "$T/host"
	ssh-keygen -q -t ed25519 -N '' -f "$T/user"
	cp "$T/user.pub" "$T/keys"
	chmod 600 "$T/keys"
	cat >"$T/sshd_config" <<-CONF
		ListenAddress $VIP:2222
		HostKey $T/host
		AuthorizedKeysFile $T/keys
		StrictModes no
		PermitRootLogin yes
		UsePAM no
		PidFile none
	CONF
	start sshd /usr/sbin/sshd -D -e -f "$T/sshd_config"
	wait_for 10 listens 2222
	SSH=(ssh -F none -p 2222 -i "$T/user" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR "root@$VIP")
	spawn session on n3 ip netns exec far "${SSH[@]}" -tt \
		"i=0; while [ \$i -lt 120 ]; do i=\$((i+1)); echo tick \$i; read -t 0.05 x; done; tty"
	wait_for 15 grep -q 'tick 10' "$T/session.out"
	move_on
	TIMEOUT=60 finish session none
	assert_eq "$status" 0 "ssh: $(cat "$T/session.err")"
	assert_eq "$(grep -c '^tick' <<<"$output")" 120 "ticks"
	assert_match "$output" "/dev/pts/"
	run_ok on n3 ip netns exec far "${SSH[@]}" echo again
	assert_match "$output" "again"
}

@test "python3 -m http.server: a slow download" {
	mkdir "$T/www"
	head -c 30000000 /dev/zero | openssl enc -aes-128-ctr -pass pass:y -nosalt 2>/dev/null >"$T/www/big"
	start http python3 -m http.server 8000 --bind $VIP --directory "$T/www"
	wait_for 10 listens 8000
	download_meanwhile 5M 8000 "$T/www/big"
}

@test "bash: a pipeline of several processes counts on, no line lost" {
	start pipe setsid bash -c "
		i=0; while :; do i=\$((i + 1)); echo \$i; read -t 0.02 x <> <(:); done |
		while read -r n; do echo \"line \$n\"; done |
		while read -r _ n; do echo \$n >>$T/lines; done"
	wait_for 10 _lines_over 20
	move_on
	wait_for 20 _lines_over $(($(wc -l <"$T/lines") + 50))
	run_ok on n3 overlayd netns del app --force
	assert_eq "$(head -n 1 "$T/lines") $(tail -n 1 "$T/lines")" "1 $(wc -l <"$T/lines")" "first and last line"
	assert_eq "$(awk '$1 != NR' "$T/lines")" "" "lines out of order"
}
_lines_over() { [ "$(wc -l <"$T/lines")" -gt "$1" ]; }

@test "producer and consumer in two workloads, both moved" {
	workload n2 cons 192.168.5.6
	start prod python3 -c "
import socket, time
s = socket.create_server(('$VIP', 7000)); c, _ = s.accept(); n = 0
while True:
    c.sendall(b'%d\n' % n); n += 1; time.sleep(0.002)"
	wait_for 10 listens_7000
	spawn cons on n2 ip netns exec cons python3 -c "
import os, socket
f = socket.create_connection(('$VIP', 7000)).makefile('rb')
for n, line in enumerate(f):
    assert int(line) == n, (n, line)
    if n % 50 == 0:
        with open('$T/n.new', 'w') as out: out.write(str(n))
        os.rename('$T/n.new', '$T/n')"
	wait_for 10 count_is_over "$T/n" 99
	move n1 app n3
	move n2 cons n1
	wait_for 20 count_is_over "$T/n" $(($(cat "$T/n") + 500))
}
listens_7000() { on n1 ip netns exec app ss -Hltn 'sport = :7000' | grep -q .; }
