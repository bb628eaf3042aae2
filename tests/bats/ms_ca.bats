#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# scripts/ms-ca: the authority, certificates of nodes, and what it refuses

load helpers

setup() {
	D=$BATS_TEST_TMPDIR/ca
}

@test "ms-ca: init and node make keys that only the owner reads" {
	run_ok ms-ca init --dir "$D"
	run_ok ms-ca node n1 --dir "$D"
	for f in ca.key ca.crt n1.key n1.crt; do
		assert_eq "$(stat -c %a "$D/$f")" 600 "mode of $f"
	done
	assert_eq "$(find "$D" -mindepth 1 | wc -l)" 5 "files in the folder" # and index.txt
}

@test "ms-ca: a node's certificate is good for both ends of a TLS connection and carries its name" {
	ms-ca init --dir "$D"
	ms-ca node n1 --dir "$D"
	run_ok openssl verify -CAfile "$D/ca.crt" -purpose sslserver "$D/n1.crt"
	run_ok openssl verify -CAfile "$D/ca.crt" -purpose sslclient "$D/n1.crt"
	run_ok openssl x509 -in "$D/n1.crt" -noout -subject -text
	assert_match "$output" "subject=CN = n1"
	assert_match "$output" "prime256v1"
	assert_match "$output" "CA:FALSE"
	assert_eq "$(openssl x509 -in "$D/n1.crt" -noout -pubkey)" "$(openssl pkey -in "$D/n1.key" -pubout)" "public key"
}

@test "ms-ca: a node's certificate cannot sign another" {
	ms-ca init --dir "$D"
	ms-ca node n1 --dir "$D"
	openssl req -new -key "$D/n1.key" -subj /CN=evil -out "$BATS_TEST_TMPDIR/evil.csr"
	openssl x509 -req -in "$BATS_TEST_TMPDIR/evil.csr" -CA "$D/n1.crt" -CAkey "$D/n1.key" -set_serial 5 \
		-out "$BATS_TEST_TMPDIR/evil.crt" 2>/dev/null
	run_fail openssl verify -CAfile "$D/ca.crt" -untrusted "$D/n1.crt" "$BATS_TEST_TMPDIR/evil.crt"
}

@test "ms-ca: two nodes get different keys and serial numbers" {
	ms-ca init --dir "$D"
	ms-ca node n1 --dir "$D"
	ms-ca node n2 --dir "$D"
	[ "$(openssl x509 -in "$D/n1.crt" -noout -serial)" != "$(openssl x509 -in "$D/n2.crt" -noout -serial)" ]
	! cmp -s "$D/n1.key" "$D/n2.key"
}

@test "ms-ca: what exists is never overwritten" {
	ms-ca init --dir "$D"
	ms-ca node n1 --dir "$D"
	local before
	before=$(cat "$D"/* | sha256sum)
	run_rc 1 ms-ca init --dir "$D"
	assert_match "$output" "already holds an authority"
	run_rc 1 ms-ca node n1 --dir "$D"
	assert_match "$output" "already has a certificate"
	assert_eq "$(cat "$D"/* | sha256sum)" "$before" "files"
}

@test "ms-ca: bad names are refused" {
	ms-ca init --dir "$D"
	local name
	for name in ../n1 a/b -n1 .n1 "" "n 1" ca "$(printf 'x%.0s' {1..64})"; do
		run_fail ms-ca node "$name" --dir "$D"
	done
	assert_eq "$(find "$D" -mindepth 1 | wc -l)" 2 "files in the folder"
}

@test "ms-ca: a node before the authority is refused, and so is a folder that cannot be written" {
	run_rc 1 ms-ca node n1 --dir "$D"
	assert_match "$output" "run 'ms-ca init"
	run_rc 1 ms-ca init --dir /proc/nowhere
	assert_match "$output" "cannot create /proc/nowhere"
}

@test "ms-ca: show lists the authority and every node" {
	ms-ca init --dir "$D"
	ms-ca node n1 --dir "$D"
	ms-ca node n2 --dir "$D" --days 30
	run_ok ms-ca show --dir "$D"
	assert_eq "${#lines[@]}" 3 "lines"
	assert_match "$output" "overlayd cluster CA .*until"
	assert_match "$output" $'\n'"n1 .*"$'\n'"n2 "
}

revoked() { openssl verify -CAfile "$D/ca.crt" -CRLfile "$D/crl" -crl_check "$1"; }

@test "ms-ca: revoke makes a list that is signed, and holds every certificate of the name, also of before" {
	ms-ca init --dir "$D"
	for n in n1 n2; do ms-ca node $n --dir "$D"; done
	cp "$D/n1.crt" "$BATS_TEST_TMPDIR/first.crt"
	run_ok ms-ca revoke n1 --dir "$D"
	assert_match "$output" "1 certificate"
	# the name is free again, the old key is gone
	[ ! -e "$D/n1.key" ] && [ ! -e "$D/n1.crt" ]
	run_ok ms-ca node n1 --dir "$D"
	run_ok openssl crl -in "$D/crl" -CAfile "$D/ca.crt" -noout -crlnumber
	assert_match "$output" "verify OK"
	run_fail revoked "$BATS_TEST_TMPDIR/first.crt"
	assert_match "$output" "certificate revoked"
	run_ok revoked "$D/n1.crt"
	run_ok revoked "$D/n2.crt"
	# a lost one, removed by hand, goes with the one that is there
	cp "$D/n2.crt" "$BATS_TEST_TMPDIR/lost.crt"
	rm "$D/n2.key" "$D/n2.crt"
	ms-ca node n2 --dir "$D"
	cp "$D/n2.crt" "$BATS_TEST_TMPDIR/second.crt"
	run_ok ms-ca revoke n2 --dir "$D"
	assert_match "$output" "2 certificate"
	for f in first lost second; do run_fail revoked "$BATS_TEST_TMPDIR/$f.crt"; done
	run_ok revoked "$D/n1.crt"
	assert_eq "$(stat -c %a "$D/crl")" 600 "mode of crl"
	run_ok ms-ca show --dir "$D"
	assert_eq "$(grep -c revoked <<<"$output")" 3 "revoked ones shown"
}

@test "ms-ca: the list's number grows, it is signed anew on request, and nothing is lost by a refusal" {
	ms-ca init --dir "$D"
	ms-ca node n1 --dir "$D"
	run_ok ms-ca crl --dir "$D" --days 20
	run_ok revoked "$D/n1.crt"
	number() { openssl crl -in "$D/crl" -noout -crlnumber; }
	assert_eq "$(number)" "crlNumber=0x01"
	cp "$D/n1.crt" "$BATS_TEST_TMPDIR/"
	run_ok ms-ca revoke n1 --dir "$D"
	assert_eq "$(number)" "crlNumber=0x02"
	run_rc 1 ms-ca revoke n1 --dir "$D"
	run_rc 1 ms-ca revoke n9 --dir "$D"
	assert_eq "$(number)" "crlNumber=0x02"
	run_ok ms-ca crl --dir "$D" --days 20
	assert_eq "$(number)" "crlNumber=0x03"
	run_fail revoked "$BATS_TEST_TMPDIR/n1.crt"
	run_rc 2 ms-ca revoke --dir "$D"
	run_rc 2 ms-ca crl n1 --dir "$D"
}

@test "ms-ca: an authority from before there were lists can revoke what lies beside it" {
	ms-ca init --dir "$D"
	ms-ca node n1 --dir "$D"
	rm "$D/index.txt"
	cp "$D/n1.crt" "$BATS_TEST_TMPDIR/"
	run_ok ms-ca revoke n1 --dir "$D"
	run_fail revoked "$BATS_TEST_TMPDIR/n1.crt"
}

@test "ms-ca: wrong usage is told with exit status 2" {
	run_rc 2 ms-ca
	run_rc 2 ms-ca frobnicate
	run_rc 2 ms-ca node --dir "$D"
	run_rc 2 ms-ca init --days ten --dir "$D"
	run_rc 2 ms-ca init --dir
	run_ok ms-ca help
	assert_match "$output" "usage: ms-ca init"
}
