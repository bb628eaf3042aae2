# SPDX-License-Identifier: Apache-2.0
# the hold queue and the capture of one workload, and the plain data of its sockets

stackclient_SRC	:= tunstack/stackclient.c
# what is asked of the stand-in; wants sock_image.c and -lcrypto
standinclient_SRC	:= tunstack/stackclient_standin.c tunstack/imgstream.c
sock_image_SRC	:= tunstack/sock_image.c tunstack/sock_repair.c tunstack/sock_list.c tunstack/sock_diag.c
handback_SRC	:= tunstack/handback.c
tun_SRC		:= tunstack/tun.c
# lwIP as the TCP of a frozen workload's sockets; wants LIBS_lwip
stack_SRC	:= tunstack/stack.c tunstack/stack_in.c tunstack/stack_out.c

PROGRAMS	+= tunstack
tunstack_SRC	:= tunstack/main.c tunstack/server.c tunstack/capture.c tunstack/echo.c tunstack/hold.c tunstack/offload.c $(tun_SRC) \
		   overlayd/fabric.c overlayd/netlink.c overlayd/netns.c $(conn_SRC) $(common_SRC)
tunstack_PB	:= stack
tunstack_LIBS	:= $(LIBS_nl) $(LIBS_pb) $(LIBS_tls) $(LIBS_ev)

PROGRAMS	+= ms-sockets
ms-sockets_SRC	:= tunstack/ms_sockets.c $(sock_image_SRC) overlayd/netns.c $(common_SRC)
ms-sockets_LIBS	:= $(LIBS_nl) $(LIBS_json) -lcrypto
