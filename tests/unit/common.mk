# SPDX-License-Identifier: Apache-2.0
UNIT_TESTS	+= test_common test_migrate
test_common_SRC	:= tests/unit/test_common.c $(common_SRC)
test_migrate_SRC	:= tests/unit/test_migrate.c overlayd/agent/migrate.c overlayd/agent/journal.c overlayd/agent/fault.c $(state_SRC) $(common_SRC)
test_migrate_LIBS	:= $(LIBS_json)
