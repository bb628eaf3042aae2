# SPDX-License-Identifier: Apache-2.0
UNIT_TESTS	+= test_ctl
test_ctl_SRC	:= tests/unit/test_ctl.c overlayd/ctl.c overlayd/ctlclient.c $(conn_SRC) $(common_SRC)
test_ctl_PB	:= ctl
test_ctl_LIBS	:= $(LIBS_tls) $(LIBS_ev) $(LIBS_pb)
