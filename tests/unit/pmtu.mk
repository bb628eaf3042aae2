# SPDX-License-Identifier: Apache-2.0
UNIT_TESTS	+= test_pmtu
test_pmtu_SRC	:= tests/unit/test_pmtu.c tests/lib/packet.c overlayd/pmtu.c $(common_SRC)
