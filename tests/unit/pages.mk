# SPDX-License-Identifier: Apache-2.0
UNIT_TESTS	+= test_pages
test_pages_SRC	:= tests/unit/test_pages.c overlayd/agent/pagemarks.c overlayd/agent/pagestream.c overlayd/agent/procpages.c overlayd/gcm.c \
		   directory/htab.c $(common_SRC)
test_pages_LIBS	:= -lcrypto -lIPSec_MB

PROGRAMS	+= rewriter
rewriter_SRC	:= tests/lib/rewriter.c
rewriter_LIBS	:= -lpthread
