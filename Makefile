# Flink Bridge: one non-recursive Makefile. It calls itself only to build another variant.
#
#   make            build everything            VARIANT=release|debug|asan|tsan   CC=gcc|clang   V=1 shows the commands
#   make help       the other targets

VARIANT ?= release
V       ?= 0
PREFIX  ?= /usr/local
SETUP   ?= yes
ENGINE  ?= flink
ifeq ($(origin CC),default)
CC      := gcc
endif
VERSION := 0.1.0
CLANG   := $(findstring clang,$(CC))
B       := build/$(VARIANT)$(if $(CLANG),-clang)
Q       := $(if $(filter 1,$(V)),,@)
say      = $(if $(filter 1,$(V)),,@echo "  $(1)")

ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j$(shell nproc 2>/dev/null || echo 2)
endif
MAKEFLAGS += --no-print-directory --no-builtin-rules
.DEFAULT_GOAL := all
.SECONDARY:
.DELETE_ON_ERROR:

ifeq ($(filter $(VARIANT),release debug asan tsan fuzz),)
$(error VARIANT=$(VARIANT) is none of release, debug, asan, tsan)
endif

# ---- What is built out of what: a folder is a module, its sources are all of its .c files --------------------------

PROTO      := $(wildcard proto/*.proto)
PROTOSET   := build/proto/bridge.protoset
GENERATED  := $(PROTO:proto/%.proto=build/proto/%.pb-c.c) build/proto/google/protobuf/empty.pb-c.c
SHARED     := $(wildcard shared/*.c)
DESCRIPTOR := $(wildcard descriptor/*.c)
SERVER     := $(filter-out server/bridged.c,$(wildcard server/*.c))
WORKER     := $(wildcard worker/*.c worker/steps/*.c worker/hosts/*.c)
CLI        := $(filter-out cli/bridgectl.c,$(wildcard cli/*.c))
CHECKS     := $(wildcard tests/check_*.c)
FUZZERS    := $(wildcard tests/fuzz_*.c)
BENCHES    := $(wildcard bench/bench_*.c)
E2E        := $(wildcard tests/e2e/test_*.py)
LIBRARIES  := $(wildcard tests/libraries/*.c)

obj = $(patsubst %.c,$(B)/%.o,$(patsubst build/%,%,$(1)))

BRIDGED   := $(B)/bridged
BRIDGECTL := $(B)/bridgectl
HOSTED    := $(wildcard worker/hosts/python/*.c)
PACKAGE   := worker/hosts/python/package
TESTS     := $(CHECKS:tests/%.c=$(B)/tests/%)
BENCH_STEPS := $(B)/bench/steps/identity_step.so $(B)/bench/steps/json_step.so
EXAMPLE_STEPS := examples/native_c/watch.so examples/native_cpp/access_log.so examples/native_rust/visits.so
STEPS     := $(LIBRARIES:%.c=$(B)/%.so)
REPLAYS   := $(FUZZERS:tests/fuzz_%.c=$(B)/tests/replay_%)
FUZZ      := $(FUZZERS:tests/%.c=$(B)/tests/%)
BENCH     := $(BENCHES:bench/%.c=$(B)/bench/%)
THREADED  := $(if $(CHECKS),$(shell grep -l pthread_create $(CHECKS)))

# ---- Flags ---------------------------------------------------------------------------------------------------------

CPPFLAGS += -D_GNU_SOURCE -DBRIDGE_VERSION='"$(VERSION)"' -DBRIDGE_PROTOSET='"$(PROTOSET)"' -I. -Ibuild -isystem build/proto
WARN     := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla -Wformat=2 \
            -Wno-missing-braces
HARDEN   := -fstack-protector-strong -fPIE -fno-strict-aliasing
ifeq ($(shell uname -m),x86_64)
HARDEN   += -fstack-clash-protection -fcf-protection
endif
LDHARDEN := -pie -Wl,-z,relro,-z,now,-z,noexecstack,--as-needed

CFLAGS_release := -O2 -g -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3
CFLAGS_debug   := -O1 -g3 -fno-omit-frame-pointer -DFAULT_POINTS
LDFLAGS_asan   := -fsanitize=address,undefined
LDFLAGS_tsan   := -fsanitize=thread
LDFLAGS_fuzz   := -fsanitize=fuzzer-no-link,address,undefined
SANITIZE       := -O1 -g -fno-omit-frame-pointer -U_FORTIFY_SOURCE -fno-sanitize-recover=undefined
# Instrumented code confuses this warning of gcc; the other builds keep it.
SANITIZE       += $(if $(CLANG),,-Wno-maybe-uninitialized)
CFLAGS_asan    := $(SANITIZE) $(LDFLAGS_asan)
# gcc says that it does not see through fences; those that there are pair up between processes, where it does not look either.
CFLAGS_tsan    := $(SANITIZE) $(LDFLAGS_tsan) $(if $(CLANG),,-Wno-tsan)
CFLAGS_fuzz    := $(SANITIZE) $(LDFLAGS_fuzz)
MALLOC         := $(if $(filter release debug,$(VARIANT)),-ljemalloc)

ALL_CFLAGS  := -std=c11 $(WARN) $(HARDEN) $(CFLAGS_$(VARIANT)) $(CFLAGS)
ALL_LDFLAGS := $(LDHARDEN) $(LDFLAGS_$(VARIANT)) $(LDFLAGS)
LIBS        := $(MALLOC) -lgrpc -lgpr -lprotobuf-c -lyaml -lxxhash -ljq -lpthread -lm
CTL_LIBS    := -lsqlite3
TEST_LIBS   := -lcheck -lsubunit -lrt $(CTL_LIBS)

# The host of Python steps: a library that workers load, so that nothing else depends on Python. Of which one: HOST_PYTHON.
HOST_PYTHON ?= /usr/bin/python3
PYTHON_FLAGS = $(shell $(HOST_PYTHON)-config --includes | sed 's/-I/-isystem /g') -DHOST_PYTHON='"$(HOST_PYTHON)"'
PYTHON_LIBS  = $(shell $(HOST_PYTHON)-config --embed --ldflags)

define compile
	@mkdir -p $(@D)
	$(call say,CC    $<)
	$(Q)$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<
endef
define link
	@mkdir -p $(@D)
	$(call say,LINK  $@)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(1) $(LIBS)
endef

# ---- What the machine must have: setup/packages.txt; some targets install it, the others only look -------------------

INSTALLING  := $(filter run test test-full chaos bench bench-% fuzz lint setup bridge flink-up flink-run,$(MAKECMDGOALS))
SETUP_GROUP := $(or $(if $(filter setup lint fuzz test-full,$(MAKECMDGOALS))$(CLANG),lint),$(if \
                    $(filter test test-java chaos bench bench-% tests venv,$(MAKECMDGOALS)),test),$(if \
                    $(filter bridge install-bridge lint-java flink-up flink-run,$(MAKECMDGOALS))$(if $(filter flink,$(ENGINE)),$(filter run,$(MAKECMDGOALS))),flink),build)
ifeq ($(SETUP),yes)
HAVE        := build/setup/$(SETUP_GROUP).ok
endif
PYTHON      := build/venv/bin/python
VENV        := build/venv/ok
PEERS       := build/peers/ok

.PHONY: setup venv
setup: $(HAVE) $(VENV)
venv: $(VENV)

build/setup/%.ok: setup/packages.txt setup/install.sh
	@setup/install.sh $(if $(INSTALLING),,--check) $*
	@mkdir -p build/setup && touch $(addprefix build/setup/,$(addsuffix .ok,build $(if $(filter build,$*),,flink) $(if $(filter build flink,$*),,test) $*))

$(VENV): setup/requirements.txt | $(HAVE)
	@echo "  VENV  build/venv (setup/requirements.txt)"
	@rm -rf build/venv && python3 -m venv build/venv
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-input -r $<
	@touch $@

# ---- Build ---------------------------------------------------------------------------------------------------------

.PHONY: all tests replays tsan-tests fuzzers benches
all: $(if $(wildcard server/bridged.c),$(BRIDGED)) $(if $(wildcard cli/bridgectl.c),$(BRIDGECTL)) $(B)/bridge_python.so
	@:
tests: $(TESTS) $(STEPS) $(EXAMPLE_STEPS)
	@:
replays: $(REPLAYS)
	@:
tsan-tests: $(THREADED:tests/%.c=$(B)/tests/%)
	@:
fuzzers: $(FUZZ)
	@:
benches: $(BENCH) $(B)/bench/bench_state_without_log $(BENCH_STEPS)
	@:

define protoc
	@mkdir -p build/proto
	$(call say,PROTO $(@:build/proto/%.pb-c.c=%.proto))
	$(Q)protoc -Iproto --c_out=build/proto $(@:build/proto/%.pb-c.c=%.proto)
endef
build/proto/google/protobuf/%.pb-c.c build/proto/google/protobuf/%.pb-c.h: | $(HAVE)
	$(protoc)
build/proto/%.pb-c.c build/proto/%.pb-c.h: proto/%.proto | $(HAVE)
	$(protoc)

# The contracts' descriptors, for reflection: linked into the front as they are.
$(PROTOSET): $(PROTO) | $(HAVE)
	@mkdir -p $(@D)
	$(call say,PROTO $@)
	$(Q)protoc -Iproto --include_imports --descriptor_set_out=$@ $(notdir $(PROTO))
$(B)/server/front_reflection.o: $(PROTOSET)

# Other flags or another compiler: everything anew.
$(B)/flags: FORCE | $(HAVE)
	@mkdir -p $(@D)
	@{ $(CC) --version | head -1; echo '$(CPPFLAGS) $(ALL_CFLAGS) $(ALL_LDFLAGS) $(LIBS)'; } >$@.new
	@cmp -s $@.new $@ && rm $@.new || mv $@.new $@
.PHONY: FORCE
FORCE:

# Another contract: likewise, for -MMD leaves out headers that come by -isystem.
$(B)/proto/%.o: build/proto/%.c $(B)/flags $(GENERATED)
	$(compile)
$(B)/%.o: %.c $(B)/flags $(GENERATED)
	$(compile)

# A library has no executable's position, and shows nothing but what is marked as its own.
$(B)/worker/hosts/python/%.o: worker/hosts/python/%.c $(B)/flags $(B)/python.flags
	@mkdir -p $(@D)
	$(call say,CC    $<)
	$(Q)$(CC) $(CPPFLAGS) $(filter-out -fPIE,$(ALL_CFLAGS)) -fPIC -fvisibility=hidden $(PYTHON_FLAGS) -MMD -MP -c -o $@ $<
$(B)/bridge_python.so: $(call obj,$(HOSTED)) $(B)/python/flink_bridge/__init__.py
	$(call say,LINK  $@)
	$(Q)$(CC) $(ALL_CFLAGS) $(filter-out -pie,$(ALL_LDFLAGS)) -shared -o $@ $(filter %.o,$^) $(PYTHON_LIBS)
$(B)/python/flink_bridge/__init__.py: $(wildcard $(PACKAGE)/flink_bridge/*) | $(HAVE)
	@rm -rf $(@D) && mkdir -p $(@D) && cp -p $(filter %.py %.typed,$^) $(@D)
	@$(HOST_PYTHON) -m compileall -q --invalidation-mode unchecked-hash $(@D) && touch $@
$(B)/python.flags: FORCE | $(HAVE)
	@mkdir -p $(@D)
	@$(HOST_PYTHON) -c 'import sys; print(sys.executable, sys.version, sys.prefix)' >$@.new
	@cmp -s $@.new $@ && rm $@.new || mv $@.new $@

# One archive: each binary takes what it needs of it.
$(B)/libbridge.a: $(call obj,$(SHARED) $(DESCRIPTOR) $(SERVER) $(WORKER) $(CLI) $(GENERATED))
	$(call say,AR    $@)
	$(Q)rm -f $@ && ar qcs $@ $^

$(BRIDGED): $(B)/server/bridged.o $(B)/libbridge.a
	$(link)
$(BRIDGECTL): $(B)/cli/bridgectl.o $(B)/libbridge.a
	$(call link,$(CTL_LIBS))
$(TESTS): %: %.o $(B)/libbridge.a
	$(call link,$(TEST_LIBS))
$(REPLAYS): $(B)/tests/replay_%: $(B)/tests/fuzz_%.o $(B)/tests/replay.o $(B)/libbridge.a
	$(link)
$(FUZZ): %: %.o $(B)/libbridge.a
	$(call link,-fsanitize=fuzzer)
$(BENCH) $(B)/bench/load_unary: %: %.o $(B)/libbridge.a
	$(link)

# Libraries of steps, as their authors build them: that one header, and nothing of ours.
STEP_FLAGS := -std=c11 $(WARN) -fPIC -shared -Iworker/hosts
$(STEPS): $(B)/%.so: %.c worker/hosts/bridge_step.h $(B)/flags
	@mkdir -p $(@D)
	$(call say,STEP  $@)
	$(Q)$(CC) $(STEP_FLAGS) $(CFLAGS_$(VARIANT)) $(CFLAGS) $(LDFLAGS_$(VARIANT)) $(LDFLAGS) -o $@ $<
$(B)/bench/steps/%.so: bench/steps/%.c worker/hosts/bridge_step.h $(B)/flags
	@mkdir -p $(@D)
	$(call say,STEP  $@)
	$(Q)$(CC) $(STEP_FLAGS) $(CFLAGS_$(VARIANT)) $(CFLAGS) $(LDFLAGS_$(VARIANT)) $(LDFLAGS) -o $@ $<
$(B)/bench/steps/%.so: bench/steps/%.cpp worker/hosts/bridge_step.h $(B)/flags
	@mkdir -p $(@D)
	$(call say,STEP  $@)
	$(Q)$(CXX) -std=c++17 -Wall -Wextra -Werror -fPIC -shared -Iworker/hosts $(CFLAGS_$(VARIANT)) $(CFLAGS) \
		$(LDFLAGS_$(VARIANT)) $(LDFLAGS) -o $@ $< -lsimdjson
# The examples build as they would anywhere, each by its own Makefile.
$(EXAMPLE_STEPS): worker/hosts/bridge_step.h $(wildcard examples/native_*/*.c examples/native_*/*.cpp examples/native_*/*.rs) | $(HAVE)
	$(call say,STEP  $@)
	$(Q)env -u MAKEFLAGS -u CFLAGS $(MAKE) -s -B -C $(@D) BRIDGE=-I../../worker/hosts CC=cc CXX=c++
# Suites that load some of them.
$(addprefix $(B)/tests/,check_host check_steps check_errors): | $(STEPS)

# The same bench over an arena that keeps no undo log: what the log costs is the difference.
$(B)/without-log/%.o: CPPFLAGS += -DARENA_WITHOUT_LOG
$(B)/without-log/%.o: %.c $(B)/flags | $(GENERATED)
	$(compile)
$(B)/bench/bench_state_without_log: $(patsubst %.c,$(B)/without-log/%.o,bench/bench_state.c worker/arena.c worker/heap.c \
		$(wildcard worker/state*.c)) $(B)/libbridge.a
	$(link)

# What several of them share.
$(addprefix $(B)/tests/,check_wire check_snapshot check_checkpoint fuzz_wire replay_wire make_corpus): $(B)/tests/wire_agree.o $(B)/tests/wire_messages.o
$(B)/tests/make_corpus: $(B)/tests/make_corpus.o $(B)/libbridge.a
	$(link)

-include $(shell find $(B) -name '*.d' 2>/dev/null)

# ---- The Flink application: Maven does it all; nothing runs while nothing has changed ----------------------------------

.PHONY: bridge test-java lint-java
BRIDGE_JAR   := build/bridge/flink-bridge-$(VERSION).jar
JAVA_SOURCES := bridge/pom.xml proto/flink_bridge.proto $(wildcard descriptor/*.def) $(shell find bridge/src -type f 2>/dev/null)
bridge: $(BRIDGE_JAR)
	@:
$(BRIDGE_JAR): $(JAVA_SOURCES) | $(HAVE)
	$(call say,MAVEN $@)
	$(Q)setup/maven.sh package package -DskipTests
	@touch $@

# The Java tests alone; CLASSES=CodecTest picks classes, SIZE=full is the large run.
SIZE    ?= small
CLASSES ?= java
test-java: all $(HAVE)
	@python3 tests/run.py --java $(SIZE) $(CLASSES)
lint-java: | $(HAVE)
	$(call say,LINT  google-java-format)
	$(Q)setup/maven.sh format spotless:check

# ---- Test: the last line is "N passed, N failed, N skipped" -----------------------------------------------------------

.PHONY: test test-full chaos fuzz corpus
SUITES ?=
test: $(HAVE) $(VENV)
	@$(MAKE) VARIANT=release all tests
	@$(MAKE) VARIANT=asan tests replays
	@$(MAKE) VARIANT=tsan tsan-tests
	@$(PYTHON) tests/run.py --unit release,asan --threaded tsan --replay asan --e2e release --cases release --java small $(SUITES)

# TSan sees threads alone, and has one of its own and memory of its own in each process, which suites without threads would trip over.
VARIANTS := release debug asan
EVERY    := release,debug,asan,release-clang,debug-clang,asan-clang
test-full: $(HAVE) $(VENV)
	@for cc in gcc clang; do for v in $(VARIANTS); do \
		echo "== $$cc $$v"; $(MAKE) CC=$$cc VARIANT=$$v all tests || exit 1; done; \
		echo "== $$cc tsan"; $(MAKE) CC=$$cc VARIANT=tsan tsan-tests || exit 1; done
	@$(MAKE) VARIANT=asan replays
	@$(MAKE) fuzz FUZZ_SECONDS=$(or $(FUZZ_SECONDS),60)
	@$(MAKE) bridge
	@$(PYTHON) tests/run.py --unit $(EVERY) --threaded tsan,tsan-clang --replay asan --e2e release,asan,asan-clang --cases release,asan --cluster release --java full $(SUITES)

CHAOS_SECONDS ?= 60
chaos: $(HAVE) $(VENV)
	@$(MAKE) VARIANT=release all
	@CHAOS_SECONDS=$(CHAOS_SECONDS) $(PYTHON) tests/run.py --e2e release --java chaos --timeout $$((2 * $(CHAOS_SECONDS) + 300)) chaos

FUZZ_SECONDS ?= 60
ifeq ($(VARIANT),fuzz)
ifeq ($(CLANG),)
$(error the variant fuzz needs CC=clang: `make fuzz` does that)
endif
endif
# Two at a time. What is found stays in build/corpus; what is worth keeping is copied to tests/corpus by hand.
fuzz: $(HAVE)
	@$(MAKE) CC=clang VARIANT=fuzz fuzzers
	@printf '%s\n' $(FUZZERS:tests/fuzz_%.c=%) | xargs -P 2 -I {} sh -c ' \
		echo "  FUZZ  {}, $(FUZZ_SECONDS) s"; mkdir -p build/corpus/{} tests/corpus/{}; \
		build/fuzz-clang/tests/fuzz_{} -max_total_time=$(FUZZ_SECONDS) -timeout=5 -rss_limit_mb=1024 -max_len=65536 \
			-artifact_prefix=build/corpus/{}- -print_final_stats=0 -verbosity=0 build/corpus/{} tests/corpus/{} \
			>build/corpus/{}.log 2>&1 || { cat build/corpus/{}.log; echo "fuzz_{} FAILED"; exit 255; }'
# The part of the corpora that is made, not found.
corpus: $(B)/tests/make_corpus
	@mkdir -p $(addprefix tests/corpus/,arena wire protobuf recording ring worker restore)
	@$<

# ---- Run, measure ------------------------------------------------------------------------------------------------------

.PHONY: run bench bench-transport bench-state bench-steps bench-flink bench-peers
ifeq ($(ENGINE),local)
run: all
	@rm -rf build/run && mkdir -p build/run
	@OUT=build/run $(BRIDGECTL) run examples/quickstart/pipeline.yaml --slots 2
	@for f in build/run/*; do echo; echo "$$f: $$(wc -l <$$f) lines, the first of them:"; head -n 2 $$f | cut -c -200; done
else
run: all bridge
	@BIN=$(B) JAR=$(BRIDGE_JAR) bridge/flink.sh embedded
endif

.PHONY: flink-up flink-run flink-down
flink-up flink-run: all bridge
	@BIN=$(B) JAR=$(BRIDGE_JAR) bridge/flink.sh $(@:flink-%=%)
flink-down:
	@bridge/flink.sh down

# Each writes lines of name, value, unit; bench_transport compares against the front answering by itself.
bench: all benches
	@mkdir -p build/bench
	@for b in $(BENCH); do echo "== $$b"; $$b || exit 1; done
bench-state: all $(addprefix $(B)/bench/bench_,state state_without_log checkpoint takeover)
	@mkdir -p build/bench
	@$(B)/bench/bench_state
	@$(B)/bench/bench_checkpoint
	@$(B)/bench/bench_takeover
bench-steps: all $(B)/bench/bench_steps $(B)/bench/bench_worker $(B)/bench/bench_python $(B)/bench/load_unary $(BENCH_STEPS) \
		$(VENV) build/bench-venv/ok
	@mkdir -p build/bench
	@$(B)/bench/bench_steps
	@$(B)/bench/bench_worker
	@$(B)/bench/bench_python
	@FLINK_BRIDGE_PYTHON_VENV=build/bench-venv $(B)/bench/bench_python --numpy
	@$(PYTHON) bench/python/bench_python.py $(B)
# What a Python step may use that is measured, beside what it is measured with (setup/requirements.txt): for that interpreter.
build/bench-venv/ok: $(B)/python.flags
	@echo "  VENV  build/bench-venv (numpy)"
	@rm -rf build/bench-venv && $(HOST_PYTHON) -m venv build/bench-venv
	@build/bench-venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input numpy==2.2.6
	@touch $@

bench-transport: all $(B)/bench/bench_transport
	@mkdir -p build/bench
	@echo "client and sidecar on a core each:" >&2
	@$(B)/bench/bench_transport
	@echo "wherever the scheduler puts them:" >&2
	@$(B)/bench/bench_transport --cores any
# The bridge in a real Flink beside Java operators, and beside PyFlink where `make bench-peers` has installed that. BENCH_FLINK=--quick for less.
bench-flink: all bridge $(BENCH_STEPS) $(VENV)
	@mkdir -p build/bench
	@$(PYTHON) bench/flink/bench_flink.py $(BENCH_FLINK)
bench-peers: $(PEERS)
$(PEERS): setup/peers.txt | $(HAVE)
	@echo "  VENV  build/peers (setup/peers.txt): PyFlink, about 500 MB"
	@rm -rf build/peers && python3 -m venv build/peers
	@build/peers/bin/python -m pip install --quiet --disable-pip-version-check --no-input -r $<
	@touch $@

# ---- The Python package --------------------------------------------------------------------------------------------------

.PHONY: wheel
WHEELS  ?= build/wheel
# Built in a copy: setuptools leaves things beside what it builds.
wheel: $(VENV)
	@rm -rf build/wheel.tmp && mkdir -p build/wheel.tmp $(WHEELS)
	$(call say,WHEEL $(WHEELS))
	$(Q)cp -r $(PACKAGE) build/wheel.tmp/package && rm -rf build/wheel.tmp/package/flink_bridge/__pycache__
	$(Q)$(PYTHON) -m pip wheel --quiet --disable-pip-version-check --no-index --no-deps --no-build-isolation \
		--wheel-dir $(WHEELS) ./build/wheel.tmp/package
	@rm -rf build/wheel.tmp

# ---- Lint, install, clean -----------------------------------------------------------------------------------------------

.PHONY: lint lint-format lint-tidy lint-cppcheck lint-shell lint-python install install-bridge clean help
C_SOURCES := $(SHARED) $(DESCRIPTOR) $(wildcard server/*.c) $(WORKER) $(HOSTED) $(wildcard cli/*.c tests/*.c bench/*.c)
C_HEADERS := $(wildcard shared/*.h descriptor/*.h server/*.h worker/*.h worker/steps/*.h worker/hosts/*.h worker/hosts/python/*.h cli/*.h tests/*.h bench/*.h)
SCRIPTS   := setup/install.sh setup/maven.sh setup/jvm_flags.sh .ci/run $(wildcard bridge/*.sh) $(wildcard examples/*/*.sh tests/*.sh)
TIDY      := $(C_SOURCES:%.c=build/lint/%.ok)
# Wrong about readdir, NULL as a last argument, designated initialisers, mmap(-1), ends of linked-in data; the compilers and clang-tidy look at these as well.
CPPCHECK_WRONG := missingIncludeSystem readdirCalled legacyUninitvar invalidFunctionArg ctuuninitvar comparePointers varFuncNullUB

lint: lint-format lint-tidy lint-cppcheck lint-shell lint-python lint-java
	@echo "lint: clean"
lint-format: | $(HAVE)
	$(call say,LINT  clang-format)
	$(Q)clang-format --dry-run -Werror $(C_SOURCES) $(C_HEADERS) $(LIBRARIES) $(wildcard bench/steps/*.c* examples/*/*.c examples/*/*.cpp)
lint-tidy: $(TIDY)
# A file is looked at again when it, a header or the set of checks has changed.
$(TIDY): build/lint/%.ok: %.c $(C_HEADERS) .clang-tidy tests/.clang-tidy | $(GENERATED) $(PROTOSET) $(HAVE)
	@mkdir -p $(@D)
	$(call say,TIDY  $<)
	$(Q)clang-tidy --quiet --warnings-as-errors='*' $< -- -std=c11 $(CPPFLAGS) $(PYTHON_FLAGS) 2>$@.log || { cat $@.log; exit 1; }
	@touch $@
lint-cppcheck: | $(HAVE)
	$(call say,LINT  cppcheck)
	@mkdir -p build/lint/cppcheck
	$(Q)cppcheck --quiet --std=c11 --enable=warning,performance,portability --inline-suppr --error-exitcode=1 -j2 \
		--cppcheck-build-dir=build/lint/cppcheck --library=setup/cppcheck.cfg $(CPPCHECK_WRONG:%=--suppress=%) \
		--suppress=ctunullpointer:tests/* --suppress=ctunullpointer:descriptor/write.c --suppress=selfAssignment:tests/* -I. $(C_SOURCES)
PYTHON_SOURCES := $(PACKAGE)/flink_bridge $(wildcard examples/*/*.py) bench/flink
lint-python: $(VENV)
	$(call say,LINT  ruff)
	$(Q)$(PYTHON) -m ruff check --quiet --no-cache --config $(PACKAGE)/pyproject.toml $(PYTHON_SOURCES)
	$(call say,LINT  mypy)
	$(Q)$(PYTHON) -m mypy --no-error-summary --cache-dir build/lint/mypy --config-file $(PACKAGE)/pyproject.toml $(PACKAGE)/flink_bridge
lint-shell: | $(HAVE)
	$(call say,LINT  shellcheck)
	$(Q)shellcheck $(SCRIPTS)

DEST  = $(DESTDIR)$(PREFIX)
SHARE = $(DEST)/share/flink-bridge
install: all
	install -d $(DEST)/bin $(DEST)/include/flink-bridge $(DEST)/share/pkgconfig $(SHARE)/proto $(DEST)/share/bash-completion/completions \
		$(DEST)/share/zsh/site-functions $(DEST)/share/fish/vendor_completions.d
	install -m 755 $(BRIDGED) $(BRIDGECTL) $(DEST)/bin
	install -m 644 proto/*.proto $(SHARE)/proto
	install -d $(DEST)/lib/flink-bridge/python/flink_bridge
	install -m 755 $(B)/bridge_python.so $(DEST)/lib/flink-bridge
	install -m 644 $(B)/python/flink_bridge/*.py $(B)/python/flink_bridge/*.typed $(DEST)/lib/flink-bridge/python/flink_bridge
	$(HOST_PYTHON) -m compileall -q -d $(PREFIX)/lib/flink-bridge/python/flink_bridge $(DEST)/lib/flink-bridge/python/flink_bridge
	install -m 644 worker/hosts/bridge_step.h $(DEST)/include/flink-bridge
	$(BRIDGECTL) schema >$(SHARE)/pipeline.schema.json
	$(BRIDGECTL) schema --cases >$(SHARE)/cases.schema.json
	$(BRIDGECTL) completion bash >$(DEST)/share/bash-completion/completions/bridgectl
	$(BRIDGECTL) completion zsh >$(DEST)/share/zsh/site-functions/_bridgectl
	$(BRIDGECTL) completion fish >$(DEST)/share/fish/vendor_completions.d/bridgectl.fish
	sed 's|@PREFIX@|$(PREFIX)|; s|@VERSION@|$(VERSION)|' setup/flink-bridge.pc.in >$(DEST)/share/pkgconfig/flink-bridge.pc
# The Flink application: apart, for whoever submits jobs; a machine with a sidecar needs no JVM.
install-bridge: bridge
	install -D -m 644 $(BRIDGE_JAR) $(SHARE)/flink-bridge.jar

clean:
	rm -rf $(filter-out build/venv build/bench-venv build/peers build/setup,$(wildcard build/*)) $(EXAMPLE_STEPS)

help:
	@echo 'make                  build bridged and bridgectl into $(B)'
	@echo 'make bridge           build the Flink application: build/bridge/flink-bridge-$(VERSION).jar'
	@echo 'make run              run examples/quickstart on a Flink in one JVM; ENGINE=local: without any JVM'
	@echo 'make flink-up         start Kafka, a Flink cluster with its web UI, and a sidecar on this machine; FLINK_HOME=... takes yours'
	@echo 'make flink-run        run the quickstart there, from topic to topic; make flink-down ends everything'
	@echo 'make test             all tests (about 5 minutes on two cores); SUITES="check_ring test_unary" picks some'
	@echo 'make test-java        the tests of the Flink application alone; CLASSES="KafkaBrokerTest" SIZE=full'
	@echo 'make test-full        every suite with every variant and both compilers, end-to-end tests under ASan, fuzzing'
	@echo 'make chaos            processes killed at random under load; CHAOS_SECONDS=60'
	@echo 'make fuzz             libFuzzer on the parsers; FUZZ_SECONDS=60 for each'
	@echo 'make corpus           the made part of tests/corpus anew'
	@echo 'make bench            speed and memory; results in build/bench'
	@echo 'make bench-steps      what steps cost, also those out of libraries'
	@echo 'make bench-state      the state API alone; barriers and restores'
	@echo 'make bench-flink      the bridge in a real Flink, against Java operators; and PyFlink after make bench-peers'
	@echo 'make wheel            the Python package, into build/wheel'
	@echo 'make lint             clang-format, clang-tidy, cppcheck, shellcheck, ruff, mypy, google-java-format'
	@echo 'make install          the sidecar; make install-bridge: the Flink application; into DESTDIR=$(DESTDIR) PREFIX=$(PREFIX)'
	@echo 'make setup            install all packages that any target uses (setup/packages.txt)'
	@echo 'make clean            remove build/, but for the Python packages in build/venv'
	@echo
	@echo 'VARIANT=release|debug|asan|tsan  CC=gcc|clang  V=1 shows commands  SETUP=no neither looks for packages nor installs any'
