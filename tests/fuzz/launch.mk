# SPDX-License-Identifier: Apache-2.0
FUZZERS			+= fuzz_launch
fuzz_launch_SRC		:= tests/fuzz/fuzz_launch.c overlayd/launch_wire.c overlayd/agent/journal.c $(state_SRC) $(common_SRC)
fuzz_launch_LIBS	:= $(LIBS_json)
