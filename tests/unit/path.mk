# SPDX-License-Identifier: Apache-2.0
# the data path, room by room
UNIT_TESTS		+= test_offload
test_offload_SRC	:= tests/unit/test_offload.c tests/lib/packet.c tunstack/offload.c $(common_SRC)
