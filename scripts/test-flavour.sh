#!/usr/bin/env bash
# Lints the whole workspace and runs the tests in t/ for one flavour of nginx:
#
#   scripts/test-flavour.sh debian|vendored [ARGUMENT OF CARGO TEST...]
#
# The tests find nginx and the module in PUSH_TEST_NGINX and PUSH_TEST_MODULE. cargo test builds the module anew
# before it runs them, and the file in deps/ is the one that it builds.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

flavour=$1
shift
"$ROOT/scripts/clients.sh"
step "clippy ($flavour)"
# With the vendored nginx, also what only the test build of scripts/test-faults.sh has.
features=()
[[ $flavour == vendored ]] && features=(--features faults)
"$ROOT/scripts/cargo.sh" "$flavour" clippy --workspace --all-targets "${features[@]}" -- -D warnings

case $flavour in
    debian)
        nginx=$(installed_nginx)
        [[ -n $nginx ]] || die "nginx is not installed ('make setup' installs it)"
        ;;
    vendored)
        # Builds what the tests need, and says where.
        messages=$("$ROOT/scripts/cargo.sh" vendored test --package ngx_http_push_module --no-run \
            --message-format=json-render-diagnostics)
        objs=$(sed -n 's/.*"PUSH_NGINX_BUILD_DIR","\([^"]*\)".*/\1/p' <<<"$messages" | tail -n 1)
        nginx=$objs/nginx
        [[ -x $nginx ]] || die "cargo did not say where the vendored nginx is"
        ;;
    *) die "unknown flavour '$flavour' (debian, vendored)" ;;
esac

step "the tests in t/, with $("$nginx" -v 2>&1 | sed 's/^nginx version: //') ($flavour)"
# Most tests wait most of the time, so that more of them run at once than there are processors.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$(($(nproc) + 8))}
# Everything at once (t/stress.rs): longer with the nginx that most users have.
[[ $flavour != debian ]] || export PUSH_STRESS_SECONDS=${PUSH_STRESS_SECONDS:-60}
export PUSH_TEST_NGINX=$nginx
export PUSH_TEST_MODULE=${CARGO_TARGET_DIR:-$ROOT/target}/$flavour/debug/deps/libngx_http_push_module.so
"$ROOT/scripts/cargo.sh" "$flavour" test --package ngx_http_push_module "$@"

# The second way to park: what has to do with waiting once more. All of it has been built by now.
if [[ $flavour == debian && $# -eq 0 ]]; then
    step 'the tests of waiting subscribers, with push_park plain'
    topics=(concurrency control crash jsonp many reload slow subscribe tls_http2 workers)
    PUSH_TEST_PARK=plain "$ROOT/scripts/cargo.sh" "$flavour" test --package ngx_http_push_module \
        "${topics[@]/#/--test=}"
fi
