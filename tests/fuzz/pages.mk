# SPDX-License-Identifier: Apache-2.0
FUZZERS			+= fuzz_pagestream
fuzz_pagestream_SRC	:= tests/fuzz/fuzz_pagestream.c overlayd/agent/pagestream.c overlayd/agent/pagemarks.c overlayd/gcm.c directory/htab.c $(common_SRC)
fuzz_pagestream_LIBS	:= $(LIBS_aead)
