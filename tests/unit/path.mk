# SPDX-License-Identifier: Apache-2.0
# the data path, room by room
UNIT_TESTS		+= test_offload
test_offload_SRC	:= tests/unit/test_offload.c tests/lib/packet.c tunstack/offload.c $(common_SRC)

UNIT_TESTS		+= test_fib
test_fib_SRC		:= tests/unit/test_fib.c tests/lib/packet.c overlayd/fib.c $(common_SRC)

UNIT_TESTS		+= test_forward
forwardrig_SRC		:= tests/unit/forwardrig.c tests/lib/packet.c $(forward_SRC) overlayd/tunnel.c overlayd/pace.c overlayd/tunnel_wire.c \
			   tunstack/offload.c $(seal_SRC) $(common_SRC)
test_forward_SRC	:= tests/unit/test_forward.c $(forwardrig_SRC)
test_forward_LIBS	:= $(LIBS_aead)

UNIT_TESTS		+= test_forward_source
test_forward_source_SRC	:= tests/unit/test_forward_source.c $(forwardrig_SRC)
test_forward_source_LIBS := $(LIBS_aead)

UNIT_TESTS		+= test_forward_path
test_forward_path_SRC	:= tests/unit/test_forward_path.c $(forwardrig_SRC)
test_forward_path_LIBS	:= $(LIBS_aead)

UNIT_TESTS		+= test_source test_inner test_fragment
test_fragment_SRC	:= tests/unit/test_fragment.c tests/lib/packet.c overlayd/fragment.c tunstack/offload.c $(common_SRC)
test_source_SRC		:= tests/unit/test_source.c overlayd/source.c directory/htab.c $(common_SRC)
test_inner_SRC		:= tests/unit/test_inner.c tests/lib/packet.c overlayd/inner.c tunstack/offload.c $(common_SRC)

UNIT_TESTS		+= test_tunnel
test_tunnel_SRC		:= tests/unit/test_tunnel.c tests/lib/packet.c overlayd/tunnel.c overlayd/pace.c overlayd/tunnel_probe.c overlayd/tunnel_wire.c $(common_SRC)
test_tunnel_LIBS	:= -Wl,--wrap=sendmmsg

# one node's data path, driven by tests/bats/tunnel.bats
PROGRAMS		+= pathtool
pathtool_SRC		:= tests/lib/pathtool.c $(path_SRC) $(state_SRC) $(common_SRC)
pathtool_LIBS		:= $(LIBS_ev) $(LIBS_json) $(LIBS_aead) -lpthread

UNIT_TESTS		+= test_fastpath
test_fastpath_SRC	:= tests/unit/test_fastpath.c tests/lib/packet.c $(path_SRC) $(common_SRC)
test_fastpath_LIBS	:= $(LIBS_ev) $(LIBS_aead) -lpthread

tsan-fastpath:	## the fast path's thread under ThreadSanitizer
	@mkdir -p $(BUILD)/tests
	$(Q)$(CC) -std=gnu11 -D_GNU_SOURCE -I. -O1 -g -fsanitize=thread -o $(BUILD)/tests/test_fastpath.tsan $(test_fastpath_SRC) \
		$(test_fastpath_LIBS) -lcmocka
	$(BUILD)/tests/test_fastpath.tsan
.PHONY: tsan-fastpath

UNIT_TESTS		+= test_tun
test_tun_SRC		:= tests/unit/test_tun.c tests/lib/packet.c tunstack/tun.c tunstack/offload.c $(common_SRC)

UNIT_TESTS		+= test_pace
test_pace_SRC		:= tests/unit/test_pace.c overlayd/pace.c

UNIT_TESTS		+= test_spin
test_spin_SRC		:= tests/unit/test_spin.c overlayd/spin.c
