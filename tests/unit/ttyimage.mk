# SPDX-License-Identifier: Apache-2.0
UNIT_TESTS	+= test_ttyimage
test_ttyimage_SRC	:= tests/unit/test_ttyimage.c overlayd/agent/ttyimage.c $(common_SRC)
test_ttyimage_PB	:= criuimg
test_ttyimage_LIBS	:= $(LIBS_pb)

FUZZERS	+= fuzz_ttyimage
fuzz_ttyimage_SRC	:= tests/fuzz/fuzz_ttyimage.c overlayd/agent/ttyimage.c $(common_SRC)
fuzz_ttyimage_PB	:= criuimg
fuzz_ttyimage_LIBS	:= $(LIBS_pb)
