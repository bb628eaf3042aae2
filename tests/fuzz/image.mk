# SPDX-License-Identifier: Apache-2.0
FUZZERS	+= fuzz_image
fuzz_image_SRC	:= tests/fuzz/fuzz_image.c overlayd/agent/image.c $(common_SRC)
