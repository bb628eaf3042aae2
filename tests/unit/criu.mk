# SPDX-License-Identifier: Apache-2.0
PROGRAMS	+= criutool
criutool_SRC	:= tests/lib/criutool.c $(criu_SRC) $(common_SRC)
criutool_PB	:= $(criu_PB)
criutool_LIBS	:= $(LIBS_ev) $(LIBS_pb)
