#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# revoke.bats - a certificate is revoked: its connections and tunnels end within seconds, everywhere the list has come to
#
#	n1 (directory)   n2   n3, whose certificate it is      app 192.168.5.2 on n1, two .3 on n2, bad .4 on n3

load helpers

setup_file() { lab_up 3; }
teardown_file() { lab_down; }
setup() {
	T=$BATS_TEST_TMPDIR
	PKI=/tmp/ms-lab-$LAB_NAME/pki
	workload n1 app 192.168.5.2
	workload n2 two 192.168.5.3
	workload n3 bad 192.168.5.4
}
teardown() { drop_workloads && end_spawned; }

# as an operator's copy would: whole, at once
give() { # FILE NODE NAME
	local to=/tmp/ms-lab-$LAB_NAME/nodes/$2/etc/pki/$3
	install -m 600 "$1" "$to.new"
	mv "$to.new" "$to"
}
give_crl() { local n; for n in "$@"; do give "$PKI/crl" "$n" crl; done; }
peer_of() { on "$1" overlayd status --json | jq -r ".peers[] | select(.name == \"$2\") | $3"; }
peer_is() { assert_match "$(peer_of "$1" "$2" "$3")" "$4"; }
drops() { on "$1" overlayd status --json | jq -r ".fastpath.drops.\"$2\" // 0"; }
crl_is() { [ "$(on "$1" overlayd status --json | jq -r ".revocation | $2")" = "$3" ]; }
pinged() { wait_for 10 on "$1" ip netns exec "$2" ping -c 1 -W 1 "$3"; }
log_says() { on "$1" grep -q "$2" "/run/overlayd/${3:-overlayd}.log"; }

# n3 gets a new certificate and comes back
n3_again() {
	rm -f "$PKI/n3.crt" "$PKI/n3.key"
	run_ok ms-ca node n3 --dir "$PKI"
	give "$PKI/n3.crt" n3 node.crt
	give "$PKI/n3.key" n3 node.key
	run_ok on n3 overlayd stop
	run_ok on n3 overlayd start
}

@test "revoke: connections and tunnels of a revoked certificate end at once, and no other's" {
	pinged n1 app 192.168.5.4
	pinged n2 two 192.168.5.4
	pinged n3 bad 192.168.5.3
	server n1 app srv 192.168.5.2:2000
	client n2 two c1 192.168.5.2:2000
	client n3 bad c2 --keepalive 60 192.168.5.2:2000
	run_ok ms-ca revoke n3 --dir "$PKI"
	# n3 itself hears nothing of it, and is as it was before
	give_crl n1 n2
	for n in n1 n2; do
		wait_for 5 crl_is $n .revoked 1
		wait_for 5 peer_is $n n3 .last_error revoked
		# what it sends, and may send for minutes with the keys it has, is opened by nobody
		[ "$(peer_of $n n3 .state)" != up ] || fail "n3 is up at $n"
	done
	run_fail on n3 ip netns exec bad ping -c 3 -i 0.1 -W 1 192.168.5.3
	[ "$(drops n2 no-key)" -ge 1 ] || fail "n2 took what n3 sealed"
	run_fail on n2 ip netns exec two ping -c 1 -W 1 192.168.5.4
	# the directory does not know it any more, nor does anybody move anything there
	wait_for 5 log_says n1 "1 revoked certificate" directoryd
	run_fail on n3 overlayd netns add more 192.168.5.9
	assert_match "$output" "refused by the other side: .*certificate revoked"
	run_fail on n1 ms-migrate "$SERVER" n3
	assert_match "$output" "revoked|not reached|refused"
	# nobody else is disturbed
	progress c1 10
	client_ok c1
	peer_is n1 n2 .state up
	# its next certificate is as good as any
	n3_again
	pinged n2 two 192.168.5.4
	pinged n3 bad 192.168.5.3
}

@test "revoke: overlayd reload takes the list over at once, and refuses one that is not ours" {
	run_ok ms-ca crl --dir "$PKI"
	give_crl n1
	run_ok on n1 overlayd reload
	crl_is n1 .number "$((16#$(openssl crl -in "$PKI/crl" -noout -crlnumber | sed 's/.*0x//')))"
	run_ok ms-ca init --dir "$T/other"
	run_ok ms-ca crl --dir "$T/other"
	give "$T/other/crl" n1 crl
	run_fail on n1 overlayd reload
	assert_match "$output" "crl: not signed by the CA in"
	wait_for 5 log_says n1 "crl: not signed by the CA in"
	# what was in force stays so; a restart with it is refused, aloud
	crl_is n1 .present true
	run_ok on n1 overlayd stop
	run_fail on n1 overlayd start
	assert_match "$output" "crl: not signed by the CA in"
	give_crl n1
	run_ok on n1 overlayd start
	pinged n1 app 192.168.5.3
}

@test "revoke: a list past its date revokes all the same, and a file that goes away takes nothing back" {
	pinged n1 app 192.168.5.4
	pinged n2 two 192.168.5.4
	run_ok ms-ca revoke n3 --dir "$PKI"
	printf '[ca]\ndefault_ca = c\n[c]\ndatabase = %s\ncrlnumber = %s\ndefault_md = sha256\n' "$PKI/index.txt" "$PKI/crlnumber" >"$T/cnf"
	run_ok openssl ca -config "$T/cnf" -cert "$PKI/ca.crt" -keyfile "$PKI/ca.key" -gencrl -out "$PKI/crl" \
		-crl_lastupdate 20200101000000Z -crl_nextupdate 20200201000000Z
	give_crl n1 n2
	for n in n1 n2; do
		wait_for 5 crl_is $n .expired true	# it has been read, here and there
		wait_for 5 peer_is $n n3 .last_error revoked
	done
	local revoked
	revoked=$(on n2 overlayd status --json | jq .revocation.revoked)
	on n2 rm /etc/overlayd/pki/crl
	wait_for 5 log_says n2 "crl is gone"
	crl_is n2 .revoked "$revoked"
	run_fail on n2 ip netns exec two ping -c 1 -W 1 192.168.5.4
	run_ok ms-ca crl --dir "$PKI"
	give_crl n1 n2
	n3_again
	wait_for 5 crl_is n1 .expired false
	pinged n2 two 192.168.5.4
}

# ---- without encryption: there are no keys, the address is all that datagrams are known by -------------------------------

plaintext() {
	local n conf
	for n in n1 n2 n3; do
		conf=/tmp/ms-lab-$LAB_NAME/nodes/$n/etc/overlayd.conf
		echo "tunnel { encryption = off }" >>"$conf"
		run_ok on $n overlayd stop
		run_ok on $n overlayd start
	done
}

# datagrams to port 9 of a workload, a line each
listen9() { # NODE WORKLOAD NAME
	spawn "$3" on "$1" ip netns exec "$2" python3 -c "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 9)); print('listening', flush=True)
while True: print(s.recvfrom(100)[0].decode(), flush=True)"
	wait_for 10 grep -q listening "$T/$3.out"
}
say() { # NODE WORKLOAD TARGET TEXT...: a datagram each
	run_ok on "$1" ip netns exec "$2" python3 -c "
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for word in sys.argv[2:]: s.sendto(word.encode(), (sys.argv[1], 9))" "${@:3}"
}
hears() { wait_for 10 grep -q "^$2\$" "$T/$1.out"; }
dropped() { [ "$(drops "$1" revoked)" -ge "$2" ]; }

@test "revoke: without encryption nothing is taken from a revoked node or sent to it, until it has a new certificate" {
	local before
	plaintext
	pinged n1 app 192.168.5.4
	pinged n2 two 192.168.5.4
	listen9 n2 two two
	listen9 n3 bad bad
	say n3 bad 192.168.5.3 before
	hears two before
	server n1 app srv 192.168.5.2:2000
	client n2 two c1 192.168.5.2:2000
	assert_eq "$(drops n1 revoked) $(drops n2 revoked)" "0 0" "dropped so far"
	run_ok ms-ca revoke n3 --dir "$PKI"
	give_crl n1 n2
	# n3 is as it was, and never stops
	spawn pings on n3 ip netns exec bad ping -n -i 0.1 192.168.5.3
	wait_for 10 dropped n2 5
	wait_for 5 log_says n2 "n3: its certificate has been revoked, its datagrams are dropped"
	# each way what is sent is counted at n2, so it has been and gone
	before=$(drops n2 revoked)
	say n3 bad 192.168.5.3 a1 a2 a3 a4 a5
	say n2 two 192.168.5.4 b1 b2 b3 b4 b5
	wait_for 10 dropped n2 $((before + 10))
	run_fail on n2 ip netns exec two ping -c 1 -w 20 192.168.5.4 # ends when an error is heard of
	assert_match "$output" "Destination Host Unreachable"
	run_fail on n1 ip netns exec app ping -c 1 -W 1 192.168.5.4
	# a daemon that has never met n3 finds out by itself what the certificate there is worth
	run_ok on n2 overlayd stop
	run_ok on n2 overlayd start
	wait_for 20 dropped n2 5
	# nobody else is disturbed
	progress c1 10
	client_ok c1
	assert_eq "$(cat "$T/two.out")" "listening
before"
	assert_eq "$(cat "$T/bad.out")" listening
	n3_again
	pinged n2 two 192.168.5.4
	say n3 bad 192.168.5.3 after
	hears two after
	say n2 two 192.168.5.4 after
	hears bad after
}
