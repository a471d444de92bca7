#!/usr/bin/env bash
# Runs the tests in t/ against an nginx that a memory checker watches:
#
#   scripts/test-memory.sh asan|valgrind [ARGUMENT OF CARGO TEST...]
#
# asan      nginx and the module are both instrumented. rustc's sanitizers are not stable features, hence
#           RUSTC_BOOTSTRAP; only the module is built so, not the tests that load nothing of it.
# valgrind  a debug build of the module in an nginx under valgrind. Slow.
set -euo pipefail
source "$(dirname "$0")/lib.sh"
need_cargo

kind=$1
shift
"$ROOT/scripts/build-nginx.sh" "$kind"
directory=$BUILD/$kind
name=libngx_http_push_module.so
target=${CARGO_TARGET_DIR:-$ROOT/target}
# Workers write reports too, and may be another user who cannot enter our directories.
reports=$(mktemp -d "${TMPDIR:-/tmp}/nginx-push-$kind.XXXXXX")
chmod 1777 "$reports"
trap 'rm -rf "$reports"' EXIT

step "building the module for $kind"
export NGINX_SOURCE_DIR=$directory/source NGINX_BUILD_DIR=$directory/source/objs
case $kind in
    asan)
        host=$(rustc -vV | sed -n 's/^host: //p')
        # With --target the flags go to the module and not to build scripts, which could not run.
        RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address -Zexternal-clangrt" CARGO_TARGET_DIR=$target/asan \
            "$ROOT/scripts/cargo.sh" own build --lib --package ngx_http_push_module --target "$host"
        module=$target/asan/own/$host/debug/$name
        grep -aq __asan_init "$module" || die "the module is not instrumented"
        # `nginx -t` and `nginx -s` end without giving back what they took at the start: no leaks are counted there.
        nginx=$directory/nginx-asan
        cat >"$nginx" <<SCRIPT
#!/bin/sh
for argument; do
    case \$argument in -t | -T | -s | -v | -V) export ASAN_OPTIONS="\$ASAN_OPTIONS:detect_leaks=0" ;; esac
done
exec '$directory/nginx' "\$@"
SCRIPT
        chmod +x "$nginx"
        # One report per process, besides what is in the error log of each test's nginx. The module and nginx
        # both define some symbols of the bindings; that is no fault.
        export ASAN_OPTIONS="detect_odr_violation=0:detect_stack_use_after_return=1:log_path=$reports/asan${ASAN_OPTIONS:+:$ASAN_OPTIONS}"
        export LSAN_OPTIONS="suppressions=$ROOT/scripts/lsan.supp:print_suppressions=0"
        ;;
    valgrind)
        command -v valgrind >/dev/null || die "valgrind is not installed ('scripts/setup.sh valgrind' installs it)"
        # Optimised a little, with all checks of a debug build: the tests take two thirds of the time.
        CARGO_PROFILE_DEV_OPT_LEVEL=1 CARGO_TARGET_DIR=$target/valgrind \
            "$ROOT/scripts/cargo.sh" own build --lib --package ngx_http_push_module
        module=$target/valgrind/own/debug/$name
        nginx=$directory/nginx-valgrind
        cat >"$nginx" <<SCRIPT
#!/bin/sh
exec valgrind --quiet --log-file=$reports/valgrind.%p --suppressions=$ROOT/scripts/valgrind.supp '$directory/nginx' "\$@"
SCRIPT
        chmod +x "$nginx"
        ;;
    *) die "unknown kind '$kind' (asan, valgrind)" ;;
esac
unset NGINX_SOURCE_DIR NGINX_BUILD_DIR

step "the tests in t/, with $kind"
status=0
# The tests are those of the vendored flavour: nginx has the same version. A watched nginx is slow, so they wait
# longer (seconds) before they give up.
PUSH_TEST_PATIENCE=${PUSH_TEST_PATIENCE:-60} PUSH_TEST_NGINX=$nginx PUSH_TEST_MODULE=$module \
    "$ROOT/scripts/cargo.sh" vendored test --package ngx_http_push_module "$@" || status=$?

for report in "$reports"/*; do
    if [[ -s $report ]]; then
        say "--- $report"
        cat "$report" >&2
        status=1
    fi
done
exit "$status"
