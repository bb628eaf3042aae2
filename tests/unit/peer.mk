# SPDX-License-Identifier: Apache-2.0
# the test includes overlayd/peer.c, to reach its back-off
UNIT_TESTS	+= test_peer
test_peer_SRC	:= tests/unit/test_peer.c overlayd/peer_link.c overlayd/peer_key.c overlayd/peer_req.c tests/unit/testpki.c $(crypto_SRC) $(conn_SRC) $(common_SRC)
test_peer_PB	:= peer
test_peer_LIBS	:= $(LIBS_tls) $(LIBS_aead) $(LIBS_ev) $(LIBS_pb) $(LIBS_json)
