# SPDX-License-Identifier: Apache-2.0
UNIT_TESTS		+= test_tcpimage
test_tcpimage_SRC	:= tests/unit/test_tcpimage.c overlayd/agent/tcpimage.c tunstack/sock_image.c $(common_SRC)
test_tcpimage_PB	:= criuimg
test_tcpimage_LIBS	:= $(LIBS_pb) -lcrypto

FUZZERS	+= fuzz_tcpimage
fuzz_tcpimage_SRC	:= tests/fuzz/fuzz_tcpimage.c overlayd/agent/tcpimage.c tunstack/sock_image.c $(common_SRC)
fuzz_tcpimage_PB	:= criuimg
fuzz_tcpimage_LIBS	:= $(LIBS_pb) -lcrypto
