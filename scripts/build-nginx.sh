#!/usr/bin/env bash
# Builds the nginx of the crate nginx-src for looking at memory errors: every pool allocation becomes a malloc
# of its own (NGX_DEBUG_PALLOC), so that a tool sees its limits.
#
#   scripts/build-nginx.sh asan        with gcc's AddressSanitizer       build/asan/nginx
#   scripts/build-nginx.sh valgrind    to be run under valgrind          build/valgrind/nginx
set -euo pipefail
source "$(dirname "$0")/lib.sh"
need_cargo

kind=$1
case $kind in
    asan) cc_opt='-O1 -g -fno-omit-frame-pointer -fsanitize=address -DNGX_DEBUG_PALLOC=1' ld_opt='-fsanitize=address' ;;
    valgrind) cc_opt='-O1 -g -DNGX_DEBUG_PALLOC=1' ld_opt='' ;;
    *) die "unknown kind '$kind' (asan, valgrind)" ;;
esac

crate=$(cd "$ROOT" && cargo metadata --format-version 1 --features vendored |
    grep -oE '"manifest_path":"[^"]*/nginx-src-[^"]*/Cargo.toml"' | head -n 1 | cut -d '"' -f 4)
crate=$(dirname "$crate")
[[ -d $crate/nginx ]] || die "the crate nginx-src holds no nginx"

directory=$BUILD/$kind
arguments=(--with-compat --with-debug --with-threads --with-http_ssl_module --with-http_v2_module
    --with-http_realip_module --with-http_auth_request_module --with-http_stub_status_module
    --with-poll_module --with-select_module)
stamp="$crate $cc_opt ${arguments[*]}"
if [[ -x $directory/nginx && $(cat "$directory/stamp" 2>/dev/null) == "$stamp" ]]; then exit 0; fi

step "building nginx for $kind"
rm -rf "$directory"
mkdir -p "$directory"
# configure writes a Makefile into the source tree, so it gets one of its own.
cp -R "$crate/nginx" "$directory/source"
chmod -R u+w "$directory/source"
(
    cd "$directory/source"
    auto/configure "${arguments[@]}" --with-cc-opt="$cc_opt" --with-ld-opt="$ld_opt"
    # configure and the build run small programs; the leaks of those are nobody's business.
    ASAN_OPTIONS=detect_leaks=0 make -j "$(nproc)"
) >"$directory/build.log" 2>&1 || die "it failed, see $directory/build.log: $(tail -n 5 "$directory/build.log")"
cp "$directory/source/objs/nginx" "$directory/nginx"
printf '%s' "$stamp" >"$directory/stamp"
