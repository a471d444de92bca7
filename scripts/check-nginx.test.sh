#!/usr/bin/env bash
# Tests of check-nginx.sh, with programs that print what some nginx would print for `nginx -V`.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0 count=0

# headers VERSION ARGUMENTS: the source tree and build directory that the module is built with
headers() {
    mkdir -p "$work/source/src/core" "$work/objs"
    printf '#define NGINX_VERSION      "%s"\n' "$1" >"$work/source/src/core/nginx.h"
    printf '#define NGX_CONFIGURE " %s"\n' "$2" >"$work/objs/ngx_auto_config.h"
}

# program BANNER ARGUMENTS: the nginx
program() {
    printf '#!/bin/sh\necho "nginx version: %s" >&2\necho "built with OpenSSL 3.0.20" >&2\necho "configure arguments: %s" >&2\n' \
        "$1" "$2" >"$work/nginx"
    chmod +x "$work/nginx"
}

# expect NAME STATUS TEXT: what check-nginx.sh makes of it
expect() {
    local output status=0
    count=$((count + 1))
    output=$("$ROOT/scripts/check-nginx.sh" --nginx "$work/nginx" --objs "$work/objs" --source "$work/source" 2>&1) || status=$?
    if [[ $status -ne $2 || $output != *"$3"* ]]; then
        printf 'FAILED: %s\n  expected status %s and "%s"\n  got status %s: %s\n' "$1" "$2" "$3" "$status" "$output"
        failed=1
    fi
}

compat='--with-compat --with-threads --with-http_ssl_module'
headers 1.22.1 "$compat --builddir=/somewhere/objs"

program nginx/1.22.1 "$compat"
expect 'the same' 0 ''

program 'nginx/1.22.1 (Ubuntu)' "--with-cc-opt='-g -O2 -Wl,-z,relro' $compat --with-debug --with-mail=dynamic"
expect 'other modules, with compat on both sides' 0 ''

program nginx/1.24.0 "$compat"
expect 'another version' 1 'it is version 1.24.0, and the headers in'
expect 'another version: what to do' 1 'make NGINX_SOURCE_DIR='

program nginx/1.22.1 '--with-threads --with-http_ssl_module'
expect 'an nginx without compat' 1 'without --with-compat'
expect 'an nginx without compat: what to do' 1 'Use an nginx with --with-compat'

program nginx/1.22.1 ''
expect 'an nginx configured without arguments' 1 'without --with-compat'

program openresty/1.25.3.1 "$compat"
expect 'a variant of nginx' 1 'openresty/1.25.3.1, a variant of nginx'

program nginx/1.22.1 "$compat --without-pcre"
expect 'no PCRE' 1 '--without-pcre'

program nginx/1.22.1 "$compat --without-http"
expect 'no HTTP' 1 'The module serves HTTP'

program nginx/1.22.1 "--with-compatibility $compat --without-http-cache"
expect 'no cache' 1 '--without-http-cache'

headers 1.22.1 '--with-threads --with-http_ssl_module --prefix=/elsewhere'
program nginx/1.22.1 "$compat"
expect 'headers without compat' 1 'the headers in'

program nginx/1.22.1 '--prefix=/opt/nginx --with-http_ssl_module --with-threads'
expect 'no compat on either side, the same modules' 0 ''

program nginx/1.22.1 '--with-threads --with-http_v2_module'
expect 'no compat on either side, other modules' 1 'other modules than the headers'

printf '#!/bin/sh\necho broken >&2\nexit 127\n' >"$work/nginx"
expect 'a program that fails' 1 'failed: broken'

if [[ $failed -eq 0 ]]; then echo "check-nginx.sh: $count tests passed"; fi
exit "$failed"
