# Flink Bridge: one non-recursive Makefile.
#
#   make            build everything            VARIANT=release|debug|asan|tsan   CC=gcc|clang   V=1 shows the commands
#   make help       the other targets

VARIANT ?= release
CC      ?= gcc
V       ?= 0
PREFIX  ?= /usr/local
B       := build/$(VARIANT)
Q       := $(if $(filter 1,$(V)),,@)
VERSION := 0.1.0

.DEFAULT_GOAL := all
.SECONDARY:
.DELETE_ON_ERROR:

# ---- What is built out of what: a folder is a module, its sources are all of its .c files --------------------------

PROTO      := $(wildcard proto/*.proto)
GENERATED  := $(PROTO:proto/%.proto=build/proto/%.pb-c.c)
SHARED     := $(wildcard shared/*.c)
DESCRIPTOR := $(wildcard descriptor/*.c)
SERVER     := $(filter-out server/bridged.c,$(wildcard server/*.c))
WORKER     := $(wildcard worker/*.c worker/steps/*.c)
CLI        := $(filter-out cli/bridgectl.c,$(wildcard cli/*.c))
CHECKS     := $(wildcard tests/check_*.c)
BENCHES    := $(wildcard bench/bench_*.c)

obj = $(patsubst %.c,$(B)/%.o,$(patsubst build/%,%,$(1)))

BRIDGED   := $(B)/bridged
BRIDGECTL := $(B)/bridgectl
TESTS     := $(CHECKS:tests/%.c=$(B)/tests/%)
BENCH     := $(BENCHES:bench/%.c=$(B)/bench/%)

# ---- Flags ---------------------------------------------------------------------------------------------------------

PKGS     := grpc libprotobuf-c yaml-0.1 libxxhash
CPPFLAGS += -D_GNU_SOURCE -DBRIDGE_VERSION='"$(VERSION)"' -I. -Ibuild -isystem build/proto $(shell pkg-config --cflags $(PKGS))
WARN     := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla -Wformat=2
HARDEN   := -fstack-protector-strong -fPIE -fno-strict-aliasing
LDHARDEN := -pie -Wl,-z,relro,-z,now,-z,noexecstack

CFLAGS_release := -O2 -g -D_FORTIFY_SOURCE=2
CFLAGS_debug   := -O1 -g3 -fno-omit-frame-pointer -DBRIDGE_DEBUG
CFLAGS_asan    := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined
CFLAGS_tsan    := -O1 -g -fno-omit-frame-pointer -fsanitize=thread
LDFLAGS_asan   := -fsanitize=address,undefined
LDFLAGS_tsan   := -fsanitize=thread
MALLOC         := $(if $(filter release debug,$(VARIANT)),-ljemalloc)

ALL_CFLAGS  := -std=c11 $(WARN) $(HARDEN) $(CFLAGS_$(VARIANT)) $(CFLAGS)
ALL_LDFLAGS := $(LDHARDEN) $(LDFLAGS_$(VARIANT)) $(LDFLAGS)
LIBS        := $(MALLOC) $(shell pkg-config --libs $(PKGS)) -ljq -lonig -lgpr -lpthread -lm

define compile
	@mkdir -p $(@D)
	$(if $(filter 1,$(V)),,@echo "  CC    $<")
	$(Q)$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<
endef
define link
	@mkdir -p $(@D)
	$(if $(filter 1,$(V)),,@echo "  LINK  $@")
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $(filter %.o %.a,$^) $(LIBS)
endef

# ---- Build ---------------------------------------------------------------------------------------------------------

.PHONY: all tests
all: $(BRIDGED) $(BRIDGECTL)
tests: $(TESTS)

build/proto/%.pb-c.c build/proto/%.pb-c.h: proto/%.proto
	@mkdir -p build/proto
	$(if $(filter 1,$(V)),,@echo "  PROTO $<")
	$(Q)protoc -Iproto --c_out=build/proto $<

$(B)/proto/%.o: build/proto/%.c
	$(compile)

$(B)/%.o: %.c $(GENERATED)
	$(compile)

# One archive: each binary takes what it needs of it.
$(B)/libbridge.a: $(call obj,$(SHARED) $(DESCRIPTOR) $(SERVER) $(WORKER) $(CLI) $(GENERATED))
	$(if $(filter 1,$(V)),,@echo "  AR    $@")
	$(Q)rm -f $@ && ar rcs $@ $^

$(BRIDGED): $(B)/server/bridged.o $(B)/libbridge.a
	$(link)
$(BRIDGECTL): $(B)/cli/bridgectl.o $(B)/libbridge.a
	$(link)
$(B)/tests/%: $(B)/tests/%.o $(B)/libbridge.a
	$(link)
$(TESTS): LIBS := -lcheck -lsubunit -lrt $(LIBS)
$(B)/bench/%: $(B)/bench/%.o $(B)/libbridge.a
	$(link)

-include $(shell find $(B) -name '*.d' 2>/dev/null)
