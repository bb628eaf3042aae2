# SPDX-License-Identifier: Apache-2.0
FUZZERS		+= fuzz_dirrpc
fuzz_dirrpc_SRC	:= tests/fuzz/fuzz_dirrpc.c $(dircore_SRC) directory/backend_mem.c $(common_SRC)
fuzz_dirrpc_PB	:= dir
fuzz_dirrpc_LIBS	:= $(LIBS_pb) $(LIBS_json)
