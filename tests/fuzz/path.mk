# SPDX-License-Identifier: Apache-2.0
# the decoders of the data path
FUZZERS			+= fuzz_tunnel fuzz_offload
fuzz_tunnel_SRC		:= tests/fuzz/fuzz_tunnel.c tests/fuzz/forwardsink.c $(forward_SRC) overlayd/tunnel.c overlayd/pace.c overlayd/tunnel_wire.c \
			   tunstack/offload.c $(seal_SRC) $(common_SRC)
fuzz_tunnel_LIBS	:= $(LIBS_aead)
fuzz_offload_SRC	:= tests/fuzz/fuzz_offload.c tunstack/offload.c

FUZZERS			+= fuzz_fragment
fuzz_fragment_SRC	:= tests/fuzz/fuzz_fragment.c overlayd/fragment.c overlayd/inner.c tunstack/offload.c

FUZZERS			+= fuzz_seal
fuzz_seal_SRC		:= tests/fuzz/fuzz_seal.c tests/fuzz/forwardsink.c $(filter-out tests/%,$(fuzz_tunnel_SRC))
fuzz_seal_LIBS		:= $(LIBS_aead)
