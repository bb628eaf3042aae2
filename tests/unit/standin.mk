# SPDX-License-Identifier: Apache-2.0
# who answers meanwhile, and how the kernel comes to know of it
UNIT_TESTS		+= test_newconn test_catchup test_standin
test_newconn_SRC	:= tests/unit/test_newconn.c $(addprefix tunstack/,newconn.c segment.c offload.c sock_image.c) $(common_SRC)
test_newconn_LIBS	:= -lcrypto
test_catchup_SRC	:= tests/unit/test_catchup.c $(addprefix tunstack/,catchup.c segment.c offload.c sock_image.c) $(common_SRC)
test_catchup_LIBS	:= -lcrypto
test_standin_SRC	:= tests/unit/test_standin.c $(standin_SRC) tunstack/offload.c $(common_SRC)
test_standin_LIBS	:= -lcrypto
