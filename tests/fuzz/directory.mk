# SPDX-License-Identifier: Apache-2.0
FUZZERS		+= fuzz_dirrpc
fuzz_dirrpc_SRC	:= tests/fuzz/fuzz_dirrpc.c $(dircore_SRC) directory/backend_mem.c $(common_SRC)
fuzz_dirrpc_PB	:= dir
fuzz_dirrpc_LIBS	:= $(LIBS_pb) $(LIBS_json)

FUZZERS		+= fuzz_dirclient
fuzz_dirclient_SRC	:= tests/fuzz/fuzz_dirclient.c $(dirplain_SRC) overlayd/dircache.c $(common_SRC)
fuzz_dirclient_PB	:= dir
fuzz_dirclient_LIBS	:= $(LIBS_pb) $(LIBS_json) $(LIBS_ev)
