# SPDX-License-Identifier: Apache-2.0
# The project's build. `make help` lists what can be asked for. Each folder's module.mk names its programs and their sources.

BUILD	?= build
CC	?= gcc
V	?= 0
SAN	?=
FAULTS	?=
prefix	?= /usr
sysconfdir ?= /etc
DESTDIR	?=

PKGS	:= libnl-3.0 libnl-route-3.0 libprotobuf-c libssl libcrypto sqlite3 jansson libconfuse
# only what builds needs the packages; help and clean must work before anything is installed
BARE	:= help clean deps list-unit-tests list-thread-tests list-fuzzers
ifneq ($(filter-out $(BARE),$(or $(MAKECMDGOALS),all)),)
ifeq ($(DEPS_DONE),)
DEPS_OUT := $(shell scripts/install-deps >&2 && echo ok)
ifneq ($(DEPS_OUT),ok)
$(error scripts/install-deps failed)
endif
export DEPS_DONE := 1
endif
PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS)) $(patsubst -I%,-isystem %,$(shell pkg-config --cflags-only-I lwip))
endif

WARN	:= -Wall -Wextra -Werror -Wshadow -Wpointer-arith -Wwrite-strings -Wstrict-prototypes -Wmissing-prototypes \
	   -Wno-missing-field-initializers -Wvla
OPT	?= -O2 -g
# SAN=1: AddressSanitizer and UndefinedBehaviorSanitizer; SAN=thread: ThreadSanitizer
comma	:= ,
ifneq ($(SAN),)
SANITIZE := -fsanitize=$(if $(filter thread,$(SAN)),thread,address$(comma)undefined -fno-sanitize-recover=all)
OPT	:= -O1 -g -fno-omit-frame-pointer $(SANITIZE)
endif
CPPFLAGS += -D_GNU_SOURCE -I. -I$(BUILD)/gen -DOVERLAYD_LIBEXEC_DIR='"$(prefix)/lib/overlayd"' -MMD -MP
# FAULTS=1: named fault points of migrations are live (overlayd/agent/fault.h); for tests only
CPPFLAGS += $(if $(FAULTS),-DOVERLAYD_FAULTS)
CFLAGS	+= -std=gnu11 $(WARN) $(OPT) $(PKG_CFLAGS) $(EXTRA_CFLAGS)
LDFLAGS	+= $(SANITIZE)
Q	:= $(if $(filter 1,$(V)),,@)

LIBS_nl		:= -lnl-route-3 -lnl-3
LIBS_pb		:= -lprotobuf-c
LIBS_tls	:= -lssl -lcrypto
LIBS_json	:= -ljansson
LIBS_ev		:= -lev -lm
LIBS_lwip	:= -llwip

PROGRAMS	:=
UNIT_TESTS	:=
THREAD_TESTS	:= test_fastpath test_dirsqlite
FUZZERS		:=
SHARED		:=

all: programs

include overlayd/common/module.mk
include overlayd/module.mk
include overlayd/agent/module.mk
include tunstack/module.mk
include directory/module.mk
include tests/module.mk
-include $(wildcard tests/unit/*.mk tests/fuzz/*.mk)

# protobuf-c: build/gen/NAME.pb-c.[ch] from overlayd/common/proto/NAME.proto
PROTOS	:= $(wildcard overlayd/common/proto/*.proto)
PB_C	:= $(patsubst overlayd/common/proto/%.proto,$(BUILD)/gen/%.pb-c.c,$(PROTOS))
PB_O	:= $(PB_C:.c=.o)
.SECONDARY: $(PB_C)

$(BUILD)/gen/%.pb-c.c: overlayd/common/proto/%.proto
	@mkdir -p $(@D)
	$(Q)protoc-c --proto_path=overlayd/common/proto --c_out=$(BUILD)/gen $<

$(BUILD)/gen/%.pb-c.o: $(BUILD)/gen/%.pb-c.c
	$(Q)$(CC) -std=gnu11 $(OPT) -fPIC $(PKG_CFLAGS) -I$(BUILD)/gen -c -o $@ $<

# every object may include a generated header, so those come first
$(BUILD)/obj/%.o: %.c | $(PB_C)
	@mkdir -p $(@D)
	$(if $(filter 1,$(V)),,@echo "  CC      $<")
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(if $(findstring -fPIC,$(CFLAGS)),,$(PIC_$*)) -c -o $@ $<

# $(1) program name; NAME_SRC its sources, NAME_PB the schemas it uses, NAME_LIBS its libraries
define PROGRAM
$(1)_OBJ := $$(patsubst %.c,$(BUILD)/obj/%.o,$$($(1)_SRC)) $$(patsubst %,$(BUILD)/gen/%.pb-c.o,$$($(1)_PB))
$(BUILD)/bin/$(1): $$($(1)_OBJ)
	@mkdir -p $$(@D)
	$$(if $$(filter 1,$$(V)),,@echo "  LD      $$@")
	$$(Q)$$(CC) $$(LDFLAGS) -o $$@ $$($(1)_OBJ) $$($(1)_LIBS)
-include $$($(1)_OBJ:.o=.d)
endef

# unit tests link one room and few neighbours, with cmocka
define UNIT
$(1)_OBJ := $$(patsubst %.c,$(BUILD)/obj/%.o,$$($(1)_SRC)) $$(patsubst %,$(BUILD)/gen/%.pb-c.o,$$($(1)_PB))
$(BUILD)/tests/$(1): $$($(1)_OBJ)
	@mkdir -p $$(@D)
	$$(if $$(filter 1,$$(V)),,@echo "  LD      $$@")
	$$(Q)$$(CC) $$(LDFLAGS) -o $$@ $$($(1)_OBJ) $$($(1)_LIBS) -lcmocka
-include $$($(1)_OBJ:.o=.d)
endef

# fuzz targets are compiled in one go by clang with libFuzzer, ASan and UBSan
define FUZZER
$(BUILD)/fuzz/$(1): $$($(1)_SRC) $$(PB_C)
	@mkdir -p $$(@D)
	$$(if $$(filter 1,$$(V)),,@echo "  FUZZ    $$@")
	$$(Q)clang -std=gnu11 -D_GNU_SOURCE -DFUZZING -O1 -g -I. -I$(BUILD)/gen $$(PKG_CFLAGS) -fsanitize=fuzzer,address,undefined \
		-fno-sanitize-recover=all -o $$@ $$($(1)_SRC) $$(patsubst %,$(BUILD)/gen/%.pb-c.c,$$($(1)_PB)) $$($(1)_LIBS)
endef

# shared objects preloaded into CRIU
define SHAREDLIB
$(BUILD)/lib/$(1).so: $$($(1)_SRC)
	@mkdir -p $$(@D)
	$$(if $$(filter 1,$$(V)),,@echo "  SO      $$@")
	$$(Q)$$(CC) -D_GNU_SOURCE -I. -std=gnu11 $$(WARN) -O2 -fPIC -shared -o $$@ $$($(1)_SRC) $$($(1)_LIBS)
endef

$(foreach p,$(PROGRAMS),$(eval $(call PROGRAM,$(p))))
$(foreach t,$(UNIT_TESTS),$(eval $(call UNIT,$(t))))
$(foreach f,$(FUZZERS),$(eval $(call FUZZER,$(f))))
$(foreach s,$(SHARED),$(eval $(call SHAREDLIB,$(s))))

programs: $(PROGRAMS:%=$(BUILD)/bin/%) $(SHARED:%=$(BUILD)/lib/%.so)	## build every program (the default)
unit-tests: $(UNIT_TESTS:%=$(BUILD)/tests/%)	## build the unit tests
fuzzers: $(FUZZERS:%=$(BUILD)/fuzz/%)	## build the fuzzers (clang)
list-unit-tests:
	@echo $(UNIT_TESTS)
list-thread-tests:	# of what has threads
	@echo $(THREAD_TESTS)
list-fuzzers:
	@echo $(FUZZERS)

check:		## every test: unit (plain, sanitizers, valgrind), fuzzers briefly, lint, bats
	BUILD=$(BUILD) tests/run
check-%:	## one stage of it: check-unit, check-asan, check-tsan, check-valgrind, check-fuzz, check-lint, check-bats
	BUILD=$(BUILD) tests/run $*
lint:		## clang with -Werror, cppcheck, shellcheck
	BUILD=$(BUILD) tests/run lint
soak-standin:	## the stand-in in full: 1,000 freezes, 150 hand-overs, a 30 s freeze (half an hour)
	MS_SOAK=1 BATS_LIMIT=7200 BUILD=$(BUILD) tests/run tests/bats/standin.bats tests/bats/standin_soak.bats
FUZZ_SECONDS ?= 60
fuzz:		## each fuzzer for FUZZ_SECONDS (60)
	BUILD=$(BUILD) FUZZ_SECONDS=$(FUZZ_SECONDS) FUZZ_SEED=$(or $(FUZZ_SEED),0) tests/run fuzz

# benchmarks are programs named tests/bench/NAME; each takes --quick and --json FILE
BENCHES	:= $(filter-out %.md %.mk %.py %.c %.h %.bash,$(wildcard tests/bench/*))
bench: programs	## every benchmark in full; results in BUILD/bench/NAME.json
	@mkdir -p $(BUILD)/bench
	@for b in $(BENCHES); do echo "== $$b"; \
		BUILD=$(abspath $(BUILD)) $$b --json $(BUILD)/bench/$$(basename $$b).json || exit 1; done

demo: programs	## three nodes, a client and a server, a live move
	BUILD=$(abspath $(BUILD)) scripts/demo

# commands people type go to bin, what commands start themselves to lib/overlayd; test programs are not installed
TEST_PROGRAMS	:= $(foreach p,$(PROGRAMS),$(if $(filter tests/%,$($(p)_SRC)),$(p)))
COMMANDS	:= $(filter overlayd directoryd ms-migrate ms-sockets,$(PROGRAMS))
HELPERS		:= $(filter-out $(COMMANDS) $(TEST_PROGRAMS),$(PROGRAMS))
unitdir		?= $(prefix)/lib/systemd/system

install: programs	## into DESTDIR/prefix: commands, systemd units, man pages, examples, completions
	install -d $(DESTDIR)$(prefix)/bin $(DESTDIR)$(prefix)/lib/overlayd $(DESTDIR)$(unitdir) \
		$(DESTDIR)$(prefix)/share/man/man8 $(DESTDIR)$(prefix)/share/doc/overlayd \
		$(DESTDIR)$(prefix)/share/bash-completion/completions
	install -d -m 700 $(DESTDIR)$(sysconfdir)/overlayd $(DESTDIR)$(sysconfdir)/overlayd/pki $(DESTDIR)/var/lib/overlayd
	install $(COMMANDS:%=$(BUILD)/bin/%) scripts/ms-ca $(DESTDIR)$(prefix)/bin/
	$(if $(HELPERS),install $(HELPERS:%=$(BUILD)/bin/%) $(DESTDIR)$(prefix)/lib/overlayd/)
	$(if $(filter-out criushim,$(SHARED)),install -m 644 $(patsubst %,$(BUILD)/lib/%.so,$(filter-out criushim,$(SHARED))) \
		$(DESTDIR)$(prefix)/lib/overlayd/)
	for u in scripts/packaging/*.service; do sed 's#@bindir@#$(prefix)/bin#' $$u \
		>$(DESTDIR)$(unitdir)/$$(basename $$u); done
	install -m 644 $(wildcard docs/*.example) README.md $(DESTDIR)$(prefix)/share/doc/overlayd/
	$(if $(wildcard docs/man/*.8),install -m 644 docs/man/*.8 $(DESTDIR)$(prefix)/share/man/man8/)
	install -m 644 scripts/completions/* $(DESTDIR)$(prefix)/share/bash-completion/completions/

deps:		## install what the build and the tests need (idempotent)
	scripts/install-deps

clean:		## remove what was built
	rm -rf $(BUILD)

help:		## this list
	@grep -hE '^[a-z%-]+:.*##' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*## */\t/' | expand -t 14 | sort

.PHONY: all programs unit-tests fuzzers list-unit-tests list-thread-tests list-fuzzers check lint soak-standin fuzz bench demo install deps clean help
