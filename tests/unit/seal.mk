# SPDX-License-Identifier: Apache-2.0
# encryption of the tunnel, room by room
UNIT_TESTS		+= test_replay
test_replay_SRC		:= tests/unit/test_replay.c tests/lib/packet.c overlayd/replay.c $(common_SRC)

# the test includes overlayd/crypto.c, to reach nonces past its limit
UNIT_TESTS		+= test_crypto
test_crypto_SRC		:= tests/unit/test_crypto.c overlayd/gcm.c $(common_SRC)
test_crypto_LIBS	:= $(LIBS_aead)

UNIT_TESTS		+= test_seal
test_seal_SRC		:= tests/unit/test_seal.c overlayd/tunnel_wire.c $(seal_SRC) $(common_SRC)
test_seal_LIBS		:= $(LIBS_aead)
