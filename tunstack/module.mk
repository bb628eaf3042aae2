# SPDX-License-Identifier: Apache-2.0
# the hold queue and the capture of one workload, and the plain data of its sockets

stackclient_SRC	:= tunstack/stackclient.c
# what is asked of the stand-in; wants sock_image.c and -lcrypto
standinclient_SRC	:= tunstack/stackclient_standin.c tunstack/imgstream.c
sock_image_SRC	:= tunstack/sock_image.c tunstack/sock_repair.c tunstack/sock_list.c tunstack/sock_diag.c overlayd/diag.c
handback_SRC	:= tunstack/handback.c
tun_SRC		:= tunstack/tun.c
# lwIP as the TCP of a frozen workload's sockets; wants segment.c and LIBS_lwip
stack_SRC	:= tunstack/stack.c tunstack/stack_in.c tunstack/stack_syn.c tunstack/stack_out.c
# BPF programs, and what drives them; bpfobject.c has them inside. Wants segment.c and offload.c
bpf_SRC		:= tunstack/bpfobject.c tunstack/sockpeek.c tunstack/acceptq.c tunstack/orphan.c
LIBS_bpf	:= -lbpf
BPF_OBJECTS	:= $(BUILD)/gen/sockpeek.bpf.o $(BUILD)/gen/acceptq.bpf.o
$(BUILD)/gen/%.bpf.o: tunstack/%.bpf.c tunstack/%_wire.h
	@mkdir -p $(@D)
	$(if $(filter 1,$(V)),,@echo "  BPF     $<")
	$(Q)clang -target bpf -mcpu=v3 -O2 -g -Wall -Wextra -Werror -I. -I/usr/include/$(shell gcc -print-multiarch) -c -o $@ $<
$(BUILD)/obj/tunstack/bpfobject.o: CPPFLAGS += -DBPF_DIR='"$(BUILD)/gen"'
$(BUILD)/obj/tunstack/bpfobject.o: $(BPF_OBJECTS)
# the capture and who answers meanwhile
standin_SRC	:= $(addprefix tunstack/,standin.c newconn.c segment.c imgstream.c sock_image.c)
capture_SRC	:= $(addprefix tunstack/,capture.c catchup.c hold.c offload.c) $(standin_SRC)

PROGRAMS	+= tunstack
tunstack_SRC	:= tunstack/main.c tunstack/server.c tunstack/echo.c $(capture_SRC) $(stack_SRC) $(tun_SRC) overlayd/fabric_capture.c overlayd/fabric_steps.c overlayd/netlink.c overlayd/netns.c $(confine_SRC) $(conn_SRC) $(common_SRC)
tunstack_PB	:= stack
tunstack_LIBS	:= $(LIBS_confine) $(LIBS_nl) $(LIBS_pb) $(LIBS_tls) $(LIBS_ev) $(LIBS_lwip)

PROGRAMS	+= ms-sockets
ms-sockets_SRC	:= tunstack/ms_sockets.c $(sock_image_SRC) overlayd/netns.c $(common_SRC)
ms-sockets_LIBS	:= $(LIBS_nl) $(LIBS_json) -lcrypto
