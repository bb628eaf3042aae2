# SPDX-License-Identifier: Apache-2.0

# the data path: what moves packets between overlay0 and the nodes
path_SRC	:= overlayd/fastpath.c overlayd/forward.c overlayd/icmp.c overlayd/fib.c overlayd/tunnel.c overlayd/tunnel_wire.c \
		   tunstack/offload.c tunstack/tun.c
