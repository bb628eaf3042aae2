# SPDX-License-Identifier: Apache-2.0
# prints what scan and preflight say of a network namespace, for tests/bats/preflight.bats, and the situations it looks at
PROGRAMS	+= scantool situation
scantool_SRC	:= tests/lib/scantool.c $(scan_SRC) $(preflight_SRC) overlayd/diag.c overlayd/netns.c $(common_SRC)
scantool_PB	:= mig
scantool_LIBS	:= $(LIBS_json) $(LIBS_pb) $(LIBS_nl)
situation_SRC	:= tests/lib/situation.c
situation_LIBS	:= -lutil -lrt -lpthread

UNIT_TESTS	+= test_procfs
test_procfs_SRC	:= tests/unit/test_procfs.c overlayd/agent/procfs.c overlayd/agent/buildid.c $(common_SRC)

UNIT_TESTS	+= test_preflight test_aside
test_preflight_SRC	:= tests/unit/test_preflight.c $(scan_SRC) $(preflight_SRC) overlayd/diag.c overlayd/netns.c $(common_SRC)
test_preflight_PB	:= mig
test_preflight_LIBS	:= $(LIBS_json) $(LIBS_pb) $(LIBS_nl)
test_aside_SRC	:= tests/unit/test_aside.c overlayd/agent/flocks.c overlayd/agent/unixpath.c overlayd/agent/timerfds.c $(scan_SRC) overlayd/diag.c overlayd/netns.c $(common_SRC)
test_aside_LIBS	:= $(LIBS_json) $(LIBS_nl)
