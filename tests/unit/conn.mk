# SPDX-License-Identifier: Apache-2.0
UNIT_TESTS	+= test_conn test_conn_frame test_tls test_crl
testpki_SRC	:= tests/unit/testpki.c
test_conn_SRC	:= tests/unit/test_conn.c $(testpki_SRC) $(conn_SRC) $(common_SRC)
test_conn_LIBS	:= $(LIBS_tls) $(LIBS_ev)
test_conn_frame_SRC	:= tests/unit/test_conn_frame.c overlayd/common/conn_frame.c $(common_SRC)
test_tls_SRC	:= tests/unit/test_tls.c $(testpki_SRC) $(tls_SRC) $(common_SRC)
test_tls_LIBS	:= $(LIBS_tls)
test_crl_SRC	:= tests/unit/test_crl.c $(testpki_SRC) $(tls_SRC) $(common_SRC)
test_crl_LIBS	:= $(LIBS_tls)
