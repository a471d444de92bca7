#!/usr/bin/env bash
# Tests of fence.sh: it passes a clean tree, and finds each way through the fence.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0 count=0

tree() {
    rm -rf "${work:?}/tree"
    mkdir -p "$work/tree/src/nginx" "$work/tree/comet/src" "$work/tree/t"
    cd "$work/tree"
    printf '[lints.rust]\nunsafe_code = "deny"\n' >Cargo.toml
    printf '[dependencies]\nslab = "0.4"\n' >comet/Cargo.toml
    printf '//! No unsafe code here; ngx_http_request_t is elsewhere.\nmod nginx;\n' >src/lib.rs
    printf '#![allow(unsafe_code)]\npub fn f() { unsafe { nginx_sys::ngx_time_update() } }\n' >src/nginx/mod.rs
    printf '// as unsafe as it gets\npub fn g() {}\n' >comet/src/lib.rs
    printf 'const MODULE: &str = "ngx_http_push_module.so";\n' >t/load.rs
}

expect() {
    local status=0 output
    count=$((count + 1))
    output=$("$ROOT/scripts/fence.sh" "$work/tree" 2>&1) || status=$?
    if [[ $status -ne $2 || $output != *"$3"* ]]; then
        printf 'FAILED: %s\n  expected status %s and "%s", got %s: %s\n' "$1" "$2" "$3" "$status" "$output"
        failed=1
    fi
}

tree; expect 'a clean tree' 0 ''
tree; echo 'fn h() { unsafe { f() } }' >>comet/src/lib.rs; expect 'unsafe in the engine' 1 'comet/src/lib.rs:3'
tree; echo '#[allow(dead_code, unsafe_code)]' >>t/load.rs; expect 'the lint switched off' 1 't/load.rs:2'
tree; echo 'use nginx_sys::ngx_str_t;' >>src/lib.rs; expect 'an nginx type' 1 'nginx outside src/nginx/'
tree; echo 'nginx-sys = "0.5"' >>comet/Cargo.toml; expect 'a dependency of the engine' 1 'the engine knows neither'
tree; mkdir -p bench/pushload/src; echo 'fn h() { unsafe { f() } }' >bench/pushload/src/sys.rs; expect 'the load generator' 0 ''
tree; mkdir -p bench/src; echo 'fn h() { unsafe { f() } }' >bench/src/x.rs; expect 'unsafe beside the load generator' 1 'bench/src/x.rs:1'
tree; : >Cargo.toml; expect 'no lint' 1 'is gone'

if [[ $failed -eq 0 ]]; then echo "fence.sh: $count tests passed"; fi
exit "$failed"
