# SPDX-License-Identifier: Apache-2.0
# lwIP as stand-in, alone
UNIT_TESTS		+= test_stack
test_stack_SRC		:= tests/unit/test_stack.c tests/unit/stackrig.c $(stack_SRC) tunstack/sock_image.c tunstack/offload.c $(common_SRC)
test_stack_LIBS		:= $(LIBS_lwip) -lcrypto
