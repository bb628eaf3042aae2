# SPDX-License-Identifier: Apache-2.0
# of path.mk's sources: not yet known here, hence not :=
FUZZERS			+= fuzz_forward
fuzz_forward_SRC	= tests/fuzz/fuzz_forward.c tests/fuzz/forwardsink.c tests/lib/packet.c $(filter-out tests/%,$(fuzz_tunnel_SRC))
fuzz_forward_LIBS	= $(LIBS_aead)
