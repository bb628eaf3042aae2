# SPDX-License-Identifier: Apache-2.0
FUZZERS			+= fuzz_stack
fuzz_stack_SRC		:= tests/fuzz/fuzz_stack.c $(stack_SRC) tunstack/segment.c tunstack/sock_image.c tunstack/offload.c $(common_SRC)
fuzz_stack_LIBS		:= $(LIBS_lwip) -lcrypto
