# SPDX-License-Identifier: Apache-2.0
# rooms every program may use
common_SRC	:= overlayd/common/err.c overlayd/common/log.c overlayd/common/util.c overlayd/common/addr.c
state_SRC	:= overlayd/common/statefile.c
tls_SRC		:= overlayd/common/tls.c overlayd/common/crl.c
conn_SRC	:= overlayd/common/conn.c overlayd/common/conn_bio.c overlayd/common/conn_queue.c overlayd/common/conn_listen.c overlayd/common/conn_frame.c overlayd/common/crlwatch.c $(tls_SRC)
# wants LIBS_confine
confine_SRC	:= overlayd/common/confine.c
LIBS_confine	:= -lseccomp
