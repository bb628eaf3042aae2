# SPDX-License-Identifier: Apache-2.0
LIBS_dirtest	:= $(LIBS_pb) $(LIBS_tls) $(LIBS_json) $(LIBS_ev) $(LIBS_dir)

UNIT_TESTS	+= test_dirclient
test_dirclient_SRC	:= tests/unit/test_dirclient.c tests/unit/testpki.c $(dirserver_SRC) $(dirclient_only) $(conn_SRC) $(common_SRC)
test_dirclient_PB	:= dir
test_dirclient_LIBS	:= $(LIBS_dirtest)
