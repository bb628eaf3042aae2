# SPDX-License-Identifier: Apache-2.0
# the user-space wire, its cores and itself
wire_core_SRC	:= tests/lib/wire_link.c tests/lib/wire_flow.c tests/lib/packet.c
UNIT_TESTS	+= test_wire
test_wire_SRC	:= tests/unit/test_wire.c $(wire_core_SRC) $(common_SRC)

PROGRAMS	+= ms-wire
ms-wire_SRC	:= tests/lib/wire.c tests/lib/wire_ask.c tests/lib/chk.c $(wire_core_SRC) $(tun_SRC) $(common_SRC)
ms-wire_LIBS	:= $(LIBS_ev)
