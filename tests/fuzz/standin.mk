# SPDX-License-Identifier: Apache-2.0
FUZZERS			+= fuzz_newconn
fuzz_newconn_SRC	:= tests/fuzz/fuzz_newconn.c $(addprefix tunstack/,newconn.c segment.c offload.c sock_image.c) $(common_SRC)
fuzz_newconn_LIBS	:= -lcrypto
