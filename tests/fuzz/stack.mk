# SPDX-License-Identifier: Apache-2.0
FUZZERS			+= fuzz_sock_image fuzz_stack_packet
fuzz_sock_image_SRC	:= tests/fuzz/fuzz_sock_image.c tunstack/sock_image.c $(common_SRC)
fuzz_sock_image_LIBS	:= -lcrypto
fuzz_stack_packet_SRC	:= tests/fuzz/fuzz_stack_packet.c tunstack/hold.c $(common_SRC)
FUZZERS			+= fuzz_echo
fuzz_echo_SRC		:= tests/fuzz/fuzz_echo.c tunstack/echo.c tunstack/offload.c $(common_SRC)
FUZZERS			+= fuzz_imgstream
fuzz_imgstream_SRC	:= tests/fuzz/fuzz_imgstream.c tunstack/imgstream.c $(common_SRC)
