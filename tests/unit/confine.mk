# SPDX-License-Identifier: Apache-2.0
UNIT_TESTS		+= test_confine
test_confine_SRC	:= tests/unit/test_confine.c $(confine_SRC) $(common_SRC)
test_confine_LIBS	:= $(LIBS_confine) -lpthread
