# SPDX-License-Identifier: Apache-2.0
UNIT_TESTS		+= test_handback
test_handback_SRC	:= tests/unit/test_handback.c $(handback_SRC) $(sock_image_SRC) overlayd/netns.c $(common_SRC)
test_handback_LIBS	:= $(LIBS_nl) -lcrypto
UNIT_TESTS		+= test_records
test_records_SRC	:= tests/unit/test_records.c overlayd/agent/records.c tunstack/imgstream.c tunstack/sock_image.c $(common_SRC)
test_records_LIBS	:= -lcrypto
