# SPDX-License-Identifier: Apache-2.0
LIBS_dirtest	:= $(LIBS_pb) $(LIBS_tls) $(LIBS_json) $(LIBS_ev) $(LIBS_dir)

UNIT_TESTS	+= test_dirclient
test_dirclient_SRC	:= tests/unit/test_dirclient.c tests/unit/testpki.c $(dirserver_SRC) $(dirclient_only) $(conn_SRC) $(common_SRC)
test_dirclient_PB	:= dir
test_dirclient_LIBS	:= $(LIBS_dirtest)

UNIT_TESTS	+= test_dirlease test_dirstore test_htab
test_htab_SRC	:= tests/unit/test_htab.c directory/htab.c $(common_SRC)
test_dirlease_SRC	:= tests/unit/test_dirlease.c directory/lease.c $(common_SRC)
test_dirstore_SRC	:= tests/unit/test_dirstore.c $(dircore_SRC) directory/backend_mem.c $(common_SRC)
test_dirstore_PB	:= dir
test_dirstore_LIBS	:= $(LIBS_dirtest)

UNIT_TESTS	+= test_dirwatch test_dirsqlite
test_dirwatch_SRC	:= tests/unit/test_dirwatch.c directory/watch.c directory/htab.c $(common_SRC)
test_dirwatch_PB	:= dir
test_dirwatch_LIBS	:= $(LIBS_pb)
test_dirsqlite_SRC	:= tests/unit/test_dirsqlite.c directory/backend_sqlite.c $(common_SRC)
test_dirsqlite_PB	:= dir
test_dirsqlite_LIBS	:= $(LIBS_pb) $(LIBS_ev) $(LIBS_dir)

UNIT_TESTS	+= test_dirrpc test_dircache test_dirconf
test_dirrpc_SRC		:= tests/unit/test_dirrpc.c $(dircore_SRC) directory/backend_mem.c $(common_SRC)
test_dirrpc_PB		:= dir
test_dirrpc_LIBS	:= $(LIBS_dirtest)
test_dircache_SRC	:= tests/unit/test_dircache.c overlayd/dircache.c directory/htab.c $(common_SRC)
test_dircache_PB	:= dir
test_dircache_LIBS	:= $(LIBS_pb)
test_dirconf_SRC	:= tests/unit/test_dirconf.c directory/conf.c $(common_SRC)
test_dirconf_PB		:= dir
test_dirconf_LIBS	:= $(LIBS_pb) -lconfuse -lm

# a client for shell tests, and one that measures
PROGRAMS		+= ms-dirtool ms-dirload
ms-dirtool_SRC	:= tests/lib/dirtool.c tests/lib/clientpki.c $(dirclient_SRC) $(conn_SRC) $(common_SRC)
ms-dirtool_PB	:= dir
ms-dirtool_LIBS	:= $(LIBS_dirtest)
ms-dirload_SRC	:= tests/lib/dirload.c tests/lib/clientpki.c $(dirclient_SRC) $(conn_SRC) $(common_SRC)
ms-dirload_PB	:= dir
ms-dirload_LIBS	:= $(LIBS_dirtest)
