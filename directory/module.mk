# SPDX-License-Identifier: Apache-2.0
# dirplain: a record as data, for server and clients. dirserver: what a program needs to be a directory server. dirclient: to ask one
dirplain_SRC	:= directory/binding.c directory/htab.c
dircore_SRC	:= $(dirplain_SRC) directory/lease.c directory/store.c directory/store_rules.c directory/store_upkeep.c \
		   directory/watch.c directory/rpc.c
dirserver_SRC	:= $(dircore_SRC) directory/server.c directory/backend_sqlite.c
dirclient_only	:= overlayd/dircache.c overlayd/dirclient.c overlayd/dirclient_site.c overlayd/dirclient_request.c
dirclient_SRC	:= $(dirplain_SRC) $(dirclient_only)
LIBS_dir	:= -lsqlite3 -lpthread

PROGRAMS	+= directoryd
directoryd_SRC	:= directory/main.c directory/conf.c $(dirserver_SRC) $(dirclient_only) $(confine_SRC) $(conn_SRC) $(common_SRC)
directoryd_PB	:= dir
directoryd_LIBS	:= $(LIBS_confine) $(LIBS_pb) $(LIBS_tls) $(LIBS_json) $(LIBS_ev) $(LIBS_dir) -lconfuse
