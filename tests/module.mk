# SPDX-License-Identifier: Apache-2.0
# programs the tests run: a server and a client that check every byte, and what lets CRIU work on small test machines
SHARED		+= criushim
criushim_SRC	:= tests/lib/criushim.c
PROGRAMS		+= ms-testsrv ms-testcli
ms-testsrv_SRC		:= tests/lib/testsrv.c tests/lib/chk.c $(common_SRC)
ms-testcli_SRC		:= tests/lib/testcli.c tests/lib/chk.c $(common_SRC)
# the same server without one shared library, for the tests that move a static binary
ifeq ($(SAN),)
PROGRAMS		+= ms-testsrv-static
ms-testsrv-static_SRC	:= $(ms-testsrv_SRC)
ms-testsrv-static_LIBS	:= -static
endif
# programs in a state that a move must carry, for handled.bats and refusals.bats
PROGRAMS	+= ms-probe
ms-probe_SRC	:= tests/lib/probe.c
ms-probe_LIBS	:= -lpthread
PROGRAMS	+= ms-churn
ms-churn_SRC	:= tests/lib/churn.c tests/lib/chk.c tests/lib/packet.c $(common_SRC)
ms-churn_LIBS	:= -lpthread
# blocks of 1 KiB, each echoed before the next, by ends that move themselves (tests/bench/thesis)
PROGRAMS		+= ms-blockecho
ms-blockecho_SRC	:= tests/lib/blockecho.c tests/lib/door.c $(common_SRC)
# messages of one size from a producer to a consumer (tests/bench/paper2001)
PROGRAMS		+= ms-prodcons
ms-prodcons_SRC		:= tests/lib/prodcons.c tests/lib/door.c $(common_SRC)
# what systemd would do to a unit's process, without systemd (sandbox.bats)
PROGRAMS		+= ms-unitbox
ms-unitbox_SRC		:= tests/lib/unitbox.c
ms-unitbox_LIBS		:= $(LIBS_confine)
