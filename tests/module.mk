# SPDX-License-Identifier: Apache-2.0
# programs the tests run: a server and a client that check every byte, and what lets CRIU work on small test machines
SHARED		+= criushim
criushim_SRC	:= tests/lib/criushim.c
