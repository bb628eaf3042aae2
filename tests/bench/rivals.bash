# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# rivals.bash - two nodes, and every way between them that tests/bench/{throughput,latency} compare
#
# Sourced after bench.bash. `rivals_up NAME...` makes labs of two nodes (one encrypted, one plain, one that spins: nodes that differ
# refuse each other) and starts the rivals in the first one's nodes. `on_a NAME CMD`, `on_b NAME CMD` run a command at either end of a way,
# `addr_b NAME` is where b is reached on it. Names:
#
#   direct        kernel TCP over the underlay itself; bare: likewise, between nodes on which no overlayd runs
#   vxlan         the kernel's VXLAN over it
#   encrypted     this project as it comes; plain: with `tunnel { encryption = off }`; spin: with `tunnel { spin = $SPIN }`
#   nebula, wireguard-go, tinc        in user space like we are, each as it comes (tinc: cipher none, its fastest)
#   colocated, veth                   two workloads on one node; two namespaces and a veth pair
#
# The wire is harsh and honest (WIRE=wire, the default): MTU 1500 and no segmentation offload of any kind on the veths, so that
# every packet crosses one by one, as on a real wire (bench.bash).

RIVAL_BIN=/opt/overlayd/bench/root/usr/bin
SPIN=200
RIVAL_PIDS=()
declare -A DAEMONS	# way -> host pids, once it is up

lab_of() { case $1 in plain | spin | bare) echo "bench-$1-$$" ;; *) echo "bench-$$" ;; esac; }
in_lab() { # WAY NODE CMD...
	local way=$1 node=$2
	shift 2
	LAB_NAME=$(lab_of "$way") "$TOP/scripts/lab" exec "$node" "$@"
}

# the ends: a at n1; b at n2, or at n1 as well when the way is within one node
on_a() {
	local way=$1
	shift
	case $way in
	encrypted | plain | spin | colocated) in_lab "$way" n1 ip netns exec a "$@" ;;
	veth) in_lab "$way" n1 ip netns exec va "$@" ;;
	*) in_lab "$way" n1 "$@" ;;
	esac
}
on_b() {
	local way=$1
	shift
	case $way in
	encrypted | plain | spin) in_lab "$way" n2 ip netns exec b "$@" ;;
	colocated) in_lab "$way" n1 ip netns exec near "$@" ;;
	veth) in_lab "$way" n1 ip netns exec vb "$@" ;;
	*) in_lab "$way" n2 "$@" ;;
	esac
}
addr_b() {
	case $1 in
	direct | bare) echo 10.77.0.2 ;;
	vxlan) echo 10.90.1.2 ;;
	nebula) echo 10.90.2.2 ;;
	tinc) echo 10.90.3.2 ;;
	wireguard-go) echo 10.90.4.2 ;;
	encrypted | plain | spin) echo 192.168.5.3 ;;
	colocated) echo 192.168.5.4 ;;
	veth) echo 10.90.5.2 ;;
	esac
}

wanted() { [[ " ${WAYS[*]} " == *" $1 "* ]]; }

# in the background, in a node of the first lab, until the end
rival_start() { # NODE CMD...
	local node=$1
	shift
	in_lab direct "$node" "$@" >>"$WORK/rivals.log" 2>&1 </dev/null &
	RIVAL_PIDS+=($!)
	disown $!
}

vxlan_up() {
	local n
	for n in 1 2; do
		in_lab vxlan n$n ip link add vx0 type vxlan id 42 dev eth0 remote 10.77.0.$((3 - n)) local 10.77.0.$n dstport 4789
		in_lab vxlan n$n ip link set vx0 mtu 1450 up
		in_lab vxlan n$n ip addr add 10.90.1.$n/24 dev vx0
	done
}

nebula_up() {
	local n d=$WORK/nebula
	mkdir "$d"
	"$RIVAL_BIN/nebula-cert" ca -name bench -out-crt "$d/ca.crt" -out-key "$d/ca.key"
	for n in 1 2; do
		"$RIVAL_BIN/nebula-cert" sign -name n$n -ip 10.90.2.$n/24 -ca-crt "$d/ca.crt" -ca-key "$d/ca.key" \
			-out-crt "$d/n$n.crt" -out-key "$d/n$n.key"
		cat >"$d/n$n.yml" <<-YML
			pki: { ca: $d/ca.crt, cert: $d/n$n.crt, key: $d/n$n.key }
			static_host_map: { "10.90.2.$((3 - n))": ["10.77.0.$((3 - n)):4242"] }
			lighthouse: { am_lighthouse: false, hosts: [] }
			listen: { host: 10.77.0.$n, port: 4242 }
			cipher: aes
			tun: { dev: neb0, mtu: 1440 }
			firewall:
			  outbound: [{ port: any, proto: any, host: any }]
			  inbound: [{ port: any, proto: any, host: any }]
		YML
		rival_start n$n "$RIVAL_BIN/nebula" -config "$d/n$n.yml"
	done
}

tinc_up() {
	local n d
	for n in 1 2; do
		d=$WORK/tinc/n$n
		mkdir -p "$d/hosts"
		printf 'Name = n%d\nInterface = tinc0\nDeviceType = tun\nAddressFamily = ipv4\nBindToAddress = 10.77.0.%d 655\n' $n $n >"$d/tinc.conf"
		[ $n -eq 1 ] || echo "ConnectTo = n1" >>"$d/tinc.conf"
		printf '#!/bin/sh\nip addr add 10.90.3.%d/24 dev tinc0; ip link set tinc0 mtu 1440 up\n' $n >"$d/tinc-up"
		chmod +x "$d/tinc-up"
		printf 'Address = 10.77.0.%d\nSubnet = 10.90.3.%d/32\nCipher = none\nDigest = none\n' $n $n >"$d/hosts/n$n"
		tincd -c "$d" -K2048 </dev/null >>"$WORK/rivals.log" 2>&1
	done
	cp "$WORK/tinc/n1/hosts/n1" "$WORK/tinc/n2/hosts/"
	cp "$WORK/tinc/n2/hosts/n2" "$WORK/tinc/n1/hosts/"
	for n in 1 2; do
		rival_start n$n tincd -D -c "$WORK/tinc/n$n" --pidfile "$WORK/tinc/n$n.pid"
	done
}

wireguard_up() {
	local n d=$WORK/wg
	mkdir "$d"
	for n in 1 2; do (umask 077; wg genkey >"$d/n$n.key"); wg pubkey <"$d/n$n.key" >"$d/n$n.pub"; done
	for n in 1 2; do
		rival_start n$n env WG_PROCESS_FOREGROUND=1 LOG_LEVEL=error "$RIVAL_BIN/wireguard-go" -f wg0
		await wireguard-go in_lab direct n$n ip link show wg0
		in_lab direct n$n wg set wg0 listen-port 51820 private-key "$d/n$n.key" peer "$(cat "$d/n$((3 - n)).pub")" \
			allowed-ips 10.90.4.$((3 - n))/32 endpoint 10.77.0.$((3 - n)):51820
		in_lab direct n$n ip addr add 10.90.4.$n/24 dev wg0
		in_lab direct n$n ip link set wg0 mtu 1420 up
	done
}

veth_up() {
	# shellcheck disable=SC2016
	in_lab veth n1 bash -euc '
		ip netns add va; ip netns add vb
		ip link add eth0 netns va type veth peer name eth0 netns vb
		ip -n va addr add 10.90.5.1/24 dev eth0; ip -n vb addr add 10.90.5.2/24 dev eth0
		for n in va vb; do ip -n $n link set lo up; ip -n $n link set eth0 up; done'
}

lab_two() { # WAY
	local n how=''
	LAB_NAME=$(lab_of "$1") "$TOP/scripts/lab" up 2 --stopped --quarantine 0 >/dev/null
	case $1 in
	plain) how="encryption = off" ;;
	spin) how="spin = $SPIN" ;;
	esac
	# shellcheck disable=SC2016
	for n in n1 n2; do in_lab "$1" $n bash -c 'echo "tunnel { $1 }" >>/etc/overlayd/overlayd.conf' conf "$how"; done
	for n in n1 n2; do in_lab "$1" $n overlayd start >/dev/null; done
	in_lab "$1" n1 overlayd netns add a 192.168.5.2
	in_lab "$1" n2 overlayd netns add b 192.168.5.3
	wire_offloads "$(lab_of "$1")" 2
}

lab_bare() {
	LAB_NAME=$(lab_of bare) "$TOP/scripts/lab" up 2 --bare >/dev/null
	wire_offloads "$(lab_of bare)" 2
}

# rivals_up WAY...: everything that stands while the benchmark runs; idle rivals cost nothing
rivals_up() {
	local way
	WAYS=("$@")
	trap rivals_down EXIT
	trap "exit 143" TERM INT
	lab_two encrypted
	! wanted plain || lab_two plain
	! wanted spin || lab_two spin
	! wanted bare || lab_bare
	! wanted vxlan || vxlan_up
	! wanted nebula || nebula_up
	! wanted tinc || tinc_up
	! wanted wireguard-go || wireguard_up
	! wanted veth || veth_up
	! wanted colocated || in_lab encrypted n1 overlayd netns add near 192.168.5.4
	for way in "${WAYS[@]}"; do
		await "$way" on_a "$way" ping -c 1 -W 1 "$(addr_b "$way")"
		DAEMONS[$way]=$(daemons_of "$way" | tr '\n' ' ')
	done
}

rival_versions() {
	echo "nebula $("$RIVAL_BIN/nebula" -version | awk '{ print $2 }'), wireguard-go $("$RIVAL_BIN/wireguard-go" --version | awk 'NR == 1 { print $2 }')," \
		"$(tincd --version | awk 'NR == 1 { print $1, $3 }')"
}

rivals_down() {
	local p lab
	for p in "${RIVAL_PIDS[@]}" $(jobs -pr); do kill -KILL "$p" 2>/dev/null || true; done
	for lab in "bench-$$" "bench-plain-$$" "bench-spin-$$" "bench-bare-$$"; do
		[ ! -d "/tmp/ms-lab-$lab" ] || LAB_NAME=$lab "$TOP/scripts/lab" down --kill >/dev/null || true
	done
	[ -z "${KEEP:-}" ] && rm -rf "$WORK"
}

# seconds of CPU that the tunnel's own processes on both nodes have used (user and system), for the way's cost
cpu_of() { # WAY
	local way=$1 pid sum=0 t hz
	hz=$(getconf CLK_TCK)
	for pid in ${DAEMONS[$way]}; do
		t=$(awk '{ sub(/.*\) /, ""); print $12 + $13 }' "/proc/$pid/stat" 2>/dev/null) || continue
		sum=$((sum + ${t:-0}))
	done
	awk -v s=$sum -v hz="$hz" 'BEGIN { print s / hz }'
}
daemons_of() { # WAY: host pids
	local name dir
	case $1 in
	encrypted | plain | spin) name=overlayd ;;
	nebula) name=nebula ;;
	tinc) name=tincd ;;
	wireguard-go) name=wireguard-go ;;
	*) return 0 ;;
	esac
	dir=$(LAB_NAME=$(lab_of "$1") bash -c 'awk "\$3 == \"cgroup2\" { print \$2; exit }" /proc/mounts')/ms-lab-$(lab_of "$1")
	find "$dir" -name cgroup.procs -exec cat {} + 2>/dev/null | while read -r pid; do
		[ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$name" ] && echo "$pid"
	done
	return 0
}
