# SPDX-License-Identifier: Apache-2.0
# the user-space wire, its cores and itself
wire_core_SRC	:= tests/lib/wire_link.c tests/lib/wire_flow.c tests/lib/packet.c
UNIT_TESTS	+= test_wire
test_wire_SRC	:= tests/unit/test_wire.c $(wire_core_SRC) $(common_SRC)

PROGRAMS	+= ms-wire
ms-wire_SRC	:= tests/lib/wire.c tests/lib/wire_ask.c tests/lib/chk.c $(wire_core_SRC) $(tun_SRC) $(common_SRC)
ms-wire_LIBS	:= $(LIBS_ev)

# freezes and stand-ins without CRIU, for tests/bats/standin.bats and tests/bench/silence
PROGRAMS	+= ms-cycle
ms-cycle_SRC	:= tests/lib/cycle.c tests/lib/wire_ask.c tests/lib/chk.c tests/lib/packet.c $(stackclient_SRC) $(standinclient_SRC) \
		   $(handback_SRC) $(bpf_SRC) $(sock_image_SRC) tunstack/segment.c tunstack/hold.c tunstack/offload.c overlayd/netns.c overlayd/common/conn_frame.c $(common_SRC)
ms-cycle_PB	:= stack
ms-cycle_LIBS	:= $(LIBS_nl) $(LIBS_pb) $(LIBS_bpf) -lcrypto
