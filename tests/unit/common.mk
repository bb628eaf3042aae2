# SPDX-License-Identifier: Apache-2.0
UNIT_TESTS	+= test_common test_migrate
test_common_SRC	:= tests/unit/test_common.c $(common_SRC)
test_migrate_SRC	:= tests/unit/test_migrate.c overlayd/agent/migrate.c overlayd/agent/journal.c overlayd/agent/fault.c $(state_SRC) $(common_SRC)
test_migrate_LIBS	:= $(LIBS_json)
UNIT_TESTS	+= test_outcomes
test_outcomes_SRC	:= tests/unit/test_outcomes.c overlayd/outcomes.c overlayd/agent/journal.c $(state_SRC) $(common_SRC)
test_outcomes_LIBS	:= $(LIBS_json)
# asks another node's overlayd in an agent's name, for tests/bats/outcomes.bats
PROGRAMS	+= askagent
askagent_SRC	:= tests/lib/askagent.c overlayd/agent/journal.c $(ctlclient_SRC) overlayd/common/conn_frame.c $(state_SRC) $(common_SRC)
askagent_PB	:= ctl peer
askagent_LIBS	:= $(LIBS_json) $(LIBS_pb)
