# SPDX-License-Identifier: Apache-2.0
# lwIP as stand-in, alone
UNIT_TESTS		+= test_stack test_stack_syn test_stack_flow
stackrig_SRC		:= tests/unit/stackrig.c $(stack_SRC) tunstack/segment.c tunstack/sock_image.c tunstack/offload.c $(common_SRC)
test_stack_SRC		:= tests/unit/test_stack.c $(stackrig_SRC)
test_stack_LIBS		:= $(LIBS_lwip) -lcrypto
test_stack_syn_SRC	:= tests/unit/test_stack_syn.c $(stackrig_SRC)
test_stack_syn_LIBS	:= $(LIBS_lwip) -lcrypto
test_stack_flow_SRC	:= tests/unit/test_stack_flow.c $(stackrig_SRC)
test_stack_flow_LIBS	:= $(LIBS_lwip) -lcrypto
