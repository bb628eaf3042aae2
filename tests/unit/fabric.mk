# SPDX-License-Identifier: Apache-2.0
# the fabric's pure parts, and the program that drives the rest for tests/bats/fabric.bats
UNIT_TESTS		+= test_fabric
test_fabric_SRC		:= tests/unit/test_fabric.c overlayd/netlink.c overlayd/netns.c $(common_SRC)
test_fabric_LIBS	:= $(LIBS_nl)

# the steps of capture and activation, in every order, over a kernel made of arrays
UNIT_TESTS		+= test_fabric_rules
test_fabric_rules_SRC	:= tests/unit/test_fabric_rules.c $(fabric_SRC) overlayd/netlink.c overlayd/netns.c $(common_SRC)
test_fabric_rules_LIBS	:= $(LIBS_nl) $(patsubst %,-Wl$(comma)--wrap=netlink_%,rule_ensure rule_remove route_ensure route_remove routes link_get error)

PROGRAMS		+= fabrictool
fabrictool_SRC		:= tests/lib/fabrictool.c $(fabric_SRC) overlayd/netlink.c overlayd/netns.c $(tun_SRC) $(common_SRC)
fabrictool_LIBS		:= $(LIBS_nl)
