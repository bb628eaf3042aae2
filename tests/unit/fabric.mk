# SPDX-License-Identifier: Apache-2.0
# the fabric's pure parts, and the program that drives the rest for tests/bats/fabric.bats
UNIT_TESTS		+= test_fabric
test_fabric_SRC		:= tests/unit/test_fabric.c overlayd/netlink.c overlayd/netns.c $(common_SRC)
test_fabric_LIBS	:= $(LIBS_nl)

PROGRAMS		+= fabrictool
fabrictool_SRC		:= tests/lib/fabrictool.c $(fabric_SRC) overlayd/netlink.c overlayd/netns.c $(tun_SRC) $(common_SRC)
fabrictool_LIBS		:= $(LIBS_nl)
