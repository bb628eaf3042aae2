# SPDX-License-Identifier: Apache-2.0
UNIT_TESTS	+= test_conf
test_conf_SRC	:= tests/unit/test_conf.c overlayd/conf.c overlayd/conf_diff.c $(common_SRC)
test_conf_LIBS	:= -lconfuse
