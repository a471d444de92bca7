#!/usr/bin/env bash
# cargo, set up for one flavour of nginx:
#
#   scripts/cargo.sh debian|vendored|own SUBCOMMAND [ARGUMENT...]
#
# debian    the installed nginx, with the headers of nginx-dev
# vendored  the nginx whose source comes with the crate nginx-src
# own       NGINX_SOURCE_DIR and NGINX_BUILD_DIR, as the caller has set them
#
# Each flavour has its own target directory, so that they do not rebuild each other.
set -euo pipefail
source "$(dirname "$0")/lib.sh"
need_cargo

flavour=$1 subcommand=$2
shift 2
cd "$ROOT"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$ROOT/target}/$flavour

case $flavour in
    debian)
        "$ROOT/scripts/configure-debian.sh"
        export NGINX_SOURCE_DIR=/usr/share/nginx/src NGINX_BUILD_DIR=$BUILD/nginx-debian/objs
        ;;
    vendored)
        unset NGINX_SOURCE_DIR NGINX_BUILD_DIR
        # Each of these would make nginx-src download sources.
        unset NGX_VERSION OPENSSL_VERSION PCRE2_VERSION ZLIB_VERSION
        # As Debian configures its own, so far as the tests use it, and event methods that Debian leaves out; not part of
        # the binary interface.
        NGX_CONFIGURE_ARGS="--with-debug --with-http_auth_request_module --with-http_stub_status_module"
        export NGX_CONFIGURE_ARGS="$NGX_CONFIGURE_ARGS --with-poll_module --with-select_module"
        set -- --features vendored "$@"
        ;;
    own)
        [[ -n ${NGINX_SOURCE_DIR-}${NGINX_BUILD_DIR-} ]] || die "set NGINX_SOURCE_DIR and NGINX_BUILD_DIR"
        # nginx-sys takes one from the other; do the same, with absolute paths, for cargo may run elsewhere.
        NGINX_SOURCE_DIR=$(realpath -m "${NGINX_SOURCE_DIR:-$NGINX_BUILD_DIR/..}")
        NGINX_BUILD_DIR=$(realpath -m "${NGINX_BUILD_DIR:-$NGINX_SOURCE_DIR/objs}")
        [[ -f $NGINX_SOURCE_DIR/src/core/nginx.h ]] || die "$NGINX_SOURCE_DIR (NGINX_SOURCE_DIR) is not an nginx source tree: no src/core/nginx.h"
        [[ -f $NGINX_BUILD_DIR/ngx_auto_config.h ]] || die "$NGINX_BUILD_DIR (NGINX_BUILD_DIR) is not configured: no ngx_auto_config.h. Run nginx's ./configure --with-compat first."
        export NGINX_SOURCE_DIR NGINX_BUILD_DIR
        ;;
    *) die "unknown flavour '$flavour' (debian, vendored, own)" ;;
esac

exec cargo "$subcommand" "$@"
