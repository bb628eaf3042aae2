# SPDX-License-Identifier: Apache-2.0
FUZZERS		+= fuzz_procfs
fuzz_procfs_SRC	:= tests/fuzz/fuzz_procfs.c overlayd/agent/procfs.c overlayd/agent/buildid.c $(common_SRC)
