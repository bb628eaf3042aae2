# SPDX-License-Identifier: Apache-2.0
UNIT_TESTS		+= test_launch
test_launch_SRC		:= tests/unit/test_launch.c $(launch_SRC) overlayd/common/conn_frame.c $(state_SRC) $(common_SRC)
test_launch_PB		:= stack
test_launch_LIBS	:= $(LIBS_json) $(LIBS_pb) $(LIBS_ev)
UNIT_TESTS		+= test_launch_door
test_launch_door_SRC	:= tests/unit/test_launch_door.c $(launch_SRC) overlayd/common/conn_frame.c $(state_SRC) $(common_SRC)
test_launch_door_PB	:= stack
test_launch_door_LIBS	:= $(LIBS_json) $(LIBS_pb) $(LIBS_ev)
