# SPDX-License-Identifier: Apache-2.0
# fuzz_ctl includes the room itself, to get at its entrance for foreign bytes; fuzz_peer has connections of its own
FUZZERS		+= fuzz_conn_frame fuzz_conf fuzz_ctl fuzz_peer
fuzz_conn_frame_SRC	:= tests/fuzz/fuzz_conn_frame.c overlayd/common/conn_frame.c $(common_SRC)
fuzz_conf_SRC	:= tests/fuzz/fuzz_conf.c overlayd/conf.c $(common_SRC)
fuzz_conf_LIBS	:= -lconfuse
fuzz_ctl_SRC	:= tests/fuzz/fuzz_ctl.c $(conn_SRC) $(common_SRC)
fuzz_ctl_PB	:= ctl
fuzz_ctl_LIBS	:= $(LIBS_tls) $(LIBS_ev) $(LIBS_pb)
fuzz_peer_SRC	:= tests/fuzz/fuzz_peer.c $(addprefix overlayd/,peer.c peer_link.c peer_key.c peer_req.c) $(crypto_SRC) $(common_SRC)
fuzz_peer_PB	:= peer
fuzz_peer_LIBS	:= $(LIBS_aead) $(LIBS_ev) $(LIBS_pb) $(LIBS_json)

FUZZERS		+= fuzz_crl
fuzz_crl_SRC	:= tests/fuzz/fuzz_crl.c overlayd/common/crl.c $(common_SRC)
fuzz_crl_LIBS	:= $(LIBS_tls)
