# Builds, runs and tests the module. `make help` says what there is. GNU make.
#
# NGINX=debian (default)   for the nginx that is installed, with the headers of Debian's package nginx-dev
# NGINX=vendored           for the nginx whose source comes with the crate nginx-src; builds that nginx too
# NGINX_SOURCE_DIR=... NGINX_BUILD_DIR=...   for your own nginx; NGINX_BIN=... names its program

SHELL := /bin/bash
.DEFAULT_GOAL := build
.DELETE_ON_ERROR:

NGINX := debian
PORT :=
CONF := quickstart
ARGS :=
# For make bench: rounds, and anything not empty for a short run that writes nothing. For make bench-1m: long-polls.
ROUNDS := 3
QUICK :=
CLIENTS := 1000000
# For make fuzz: one of fuzz/targets/ or all, and seconds for each. For make soak: seconds.
TARGET :=
TIME := 60

ifneq ($(NGINX_SOURCE_DIR)$(NGINX_BUILD_DIR),)
NGINX := own
export NGINX_SOURCE_DIR NGINX_BUILD_DIR
endif
ifdef NGINX_BIN
export NGINX_BIN
endif

# nginx takes an environment variable of this name for a list of inherited sockets.
unexport NGINX

# Where the module of each flavour is, what its nginx is, and which packages (scripts/setup.sh) it needs.
ifeq ($(NGINX),debian)
setup := build
module_dir = build
nginx_program = $$(source scripts/lib.sh && installed_nginx)
else ifeq ($(NGINX),vendored)
setup := vendored
module_dir = $$(ls -td build/nginx-[0-9]* | head -n 1)
nginx_program = $(module_dir)/nginx
else ifeq ($(NGINX),own)
setup := vendored
module_dir = build/nginx-own
nginx_program = $${NGINX_BIN:-$(module_dir)/nginx}
else
$(error NGINX is '$(NGINX)', and can be debian or vendored (or give NGINX_SOURCE_DIR and NGINX_BUILD_DIR))
endif
module = $(module_dir)/ngx_http_push_module.so

.PHONY: help
help: ## this text
	@echo 'make [TARGET] [NGINX=debian|vendored | NGINX_SOURCE_DIR=... NGINX_BUILD_DIR=...]'
	@echo
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-15s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: setup setup-test
setup: ## install the Debian packages that building and running need (apt-get; sudo unless root)
	@scripts/setup.sh $(setup) run
setup-test: ## the same and what the tests need: a browser, Node, Python
	@scripts/setup.sh build vendored run test

.PHONY: build
build: ## build the module: build/ngx_http_push_module.so, or build/nginx-VERSION/ for NGINX=vendored
	@scripts/setup.sh --check $(setup) || { echo "Run 'make setup' first; it installs them." >&2; exit 1; }
	@scripts/build-module.sh $(NGINX) >/dev/null

.PHONY: run
run: ## set up, build, and start nginx in the foreground (PORT=8080, CONF=quickstart)
	@scripts/setup.sh $(setup) run $$(if grep -qsE '^ *listen .*\bssl\b' 'nginx-conf/$(CONF).conf'; then echo tls; fi)
	@scripts/build-module.sh $(NGINX) >/dev/null
	@exec scripts/run.sh "$(nginx_program)" "$(module)" "$(CONF)" $(PORT)

.PHONY: test
test: ## set up, lint, and run all tests against Debian's nginx and the vendored one (ARGS=... for cargo test)
	@scripts/setup.sh build vendored test
	@$(MAKE) --no-print-directory lint-quick lint-fuzz test-scripts test-comet test-bench
	@scripts/test-flavour.sh debian $(ARGS)
	@$(if $(ARGS),,PUSH_FAULTS_POINTS=$${PUSH_FAULTS_POINTS:-60} scripts/test-faults.sh)
	@scripts/test-flavour.sh vendored $(ARGS)

.PHONY: test-comet
test-comet: ## only the unit and property tests of the engine; they need no nginx
	@source scripts/lib.sh && need_cargo && step 'the engine (comet)'
	@CARGO_TARGET_DIR=$${CARGO_TARGET_DIR:-target}/debian cargo test --package comet

.PHONY: test-miri
test-miri: ## run the tests of the engine in Miri, which finds undefined behaviour (slow; takes a nightly toolchain with Miri)
	@source scripts/lib.sh && need_cargo && { cargo +nightly miri --version >/dev/null 2>&1 \
	    || die "Miri was not found. Install it: rustup toolchain install nightly --component miri --component rust-src"; }
	@MIRIFLAGS="-Zmiri-disable-isolation $$MIRIFLAGS" PROPTEST_CASES=2 CARGO_TARGET_DIR=$${CARGO_TARGET_DIR:-target}/miri \
	    cargo +nightly miri test --package comet --lib $(ARGS)

.PHONY: test-debian test-vendored
test-debian: ## only clippy and t/ with the installed nginx
	@scripts/test-flavour.sh debian $(ARGS)
test-vendored: ## only clippy and t/ with the vendored nginx
	@scripts/test-flavour.sh vendored $(ARGS)

.PHONY: test-scripts
test-scripts: ## only the tests of the scripts
	@scripts/check-nginx.test.sh
	@scripts/fence.test.sh
	@scripts/setup.test.sh

.PHONY: test-asan
test-asan: ## run t/ with AddressSanitizer in nginx and in the module
	@scripts/setup.sh vendored test
	@scripts/test-memory.sh asan $(ARGS)

.PHONY: test-faults
test-faults: ## let workers die, and stop for a while, at every point of what they do (a test build)
	@scripts/setup.sh build test
	@scripts/test-faults.sh $(ARGS) -- --nocapture

.PHONY: soak
soak: ## everything at once, for so long: all transports, slow and wild clients, a full zone, reloads, kills (TIME=60 seconds)
	@scripts/setup.sh build test
	@PUSH_STRESS_SECONDS=$(TIME) PUSH_TEST_PATIENCE=60 scripts/test-flavour.sh debian --test stress -- --nocapture

.PHONY: test-valgrind
test-valgrind: ## run t/ with nginx under valgrind (slow)
	@scripts/setup.sh vendored test valgrind
	@scripts/test-memory.sh valgrind $(ARGS)

.PHONY: fuzz fuzz-smoke
fuzz: ## feed parsers, zone or hub with mutated inputs (TARGET=zone, or all; TIME=60 seconds each; takes a C++ compiler)
	@scripts/fuzz.sh "$(TARGET)" $(TIME)
fuzz-smoke: lint-fuzz ## the same with all targets, for three seconds each
	@scripts/fuzz.sh all 3

.PHONY: bench
bench: ## compare with the floor, nginx alone and Nchan (ROUNDS=3, QUICK=1); writes bench/RESULTS.md and charts
	@scripts/setup.sh build bench
	@scripts/build-module.sh debian >/dev/null
	@python3 bench/bench.py compare $(if $(QUICK),--quick,--rounds $(ROUNDS)) $(ARGS)

.PHONY: bench-1m
bench-1m: ## park a million long-polls and publish to all of them (CLIENTS=1000000; 12 GB, two minutes)
	@scripts/setup.sh build bench
	@scripts/build-module.sh debian >/dev/null
	@python3 bench/bench.py million --clients $(CLIENTS) $(ARGS)

.PHONY: test-bench
test-bench: ## only the tests of the benchmark and its load generator
	@source scripts/lib.sh && need_cargo && step 'the benchmark and its load generator'
	@python3 -B bench/test_bench.py
	@cd bench/pushload && cargo fmt --check
	@cd bench/pushload && CARGO_TARGET_DIR=$${CARGO_TARGET_DIR:-$(CURDIR)/target}/bench cargo clippy --quiet --all-targets -- -D warnings
	@cd bench/pushload && CARGO_TARGET_DIR=$${CARGO_TARGET_DIR:-$(CURDIR)/target}/bench cargo test --quiet

.PHONY: lint-quick
lint-quick: # what needs no build
	@source scripts/lib.sh && need_cargo && step 'format, fence, dependencies'
	cargo fmt --all --check
	scripts/fence.sh
	@if cargo deny --version >/dev/null 2>&1; then cargo deny --offline check bans licenses sources; \
	else echo 'cargo-deny is not installed: deny.toml is not checked'; fi

.PHONY: lint-fuzz
lint-fuzz: # that the fuzz targets build; without libFuzzer, which takes a C++ compiler
	@source scripts/lib.sh && need_cargo && step 'the fuzz targets'
	@cd fuzz && cargo fmt --check
	@cd fuzz && CARGO_TARGET_DIR=$${CARGO_TARGET_DIR:-$(CURDIR)/target}/fuzz cargo clippy --quiet --no-default-features --all-targets -- -D warnings

.PHONY: lint
lint: lint-quick lint-fuzz ## format, fence around unsafe code, clippy for the installed nginx, licences of dependencies
	@scripts/setup.sh build
	@scripts/cargo.sh debian clippy --workspace --all-targets -- -D warnings

.PHONY: fmt
fmt: ## format the sources
	cargo fmt --all

.PHONY: install
install: ## copy the module to nginx's modules path (DESTDIR=...); prints the load_module line
	@test -f $(module) || { echo "$(module) is not there: run 'make' first." >&2; exit 1; }
	@scripts/install.sh "$(nginx_program)" "$(module)"

.PHONY: clean
clean: ## remove build/ and target/
	rm -rf build target
