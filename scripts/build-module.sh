#!/usr/bin/env bash
# Builds the module, and puts it where it is used from:
#
#   scripts/build-module.sh debian     build/ngx_http_push_module.so
#   scripts/build-module.sh vendored   build/nginx-VERSION/ngx_http_push_module.so, and nginx beside it
#   scripts/build-module.sh own        build/nginx-own/ngx_http_push_module.so (nginx too, if it was built)
#
# Prints the directory on stdout. Beside the stripped module lies its debug information, in a file that gdb,
# perf and valgrind find by themselves (ngx_http_push_module.so.debug).
# Checks that the nginx in question can load the result.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

flavour=${1:-debian}
name=ngx_http_push_module.so

# Paths of the machine that builds do not belong into the module. objcopy splits the debug information off
# (below), so rustc need not.
export RUSTFLAGS="${RUSTFLAGS-} --remap-path-prefix=$ROOT=. --remap-path-prefix=${CARGO_HOME:-${HOME-}/.cargo}=/cargo"
export CARGO_PROFILE_RELEASE_SPLIT_DEBUGINFO=off

step "building the module ($flavour, release)"
messages=$("$ROOT/scripts/cargo.sh" "$flavour" build --release --lib --package ngx_http_push_module \
    --message-format=json-render-diagnostics)

# One JSON object per line, with absolute paths that hold no quotes.
so=$(sed -n 's/.*"reason":"compiler-artifact".*"filenames":\[[^]]*"\([^"]*\/libngx_http_push_module\.so\)".*/\1/p' <<<"$messages" | tail -n 1)
[[ -f $so ]] || die "cargo did not say where the module is"

case $flavour in
    debian)
        to=$BUILD source_dir=/usr/share/nginx/src objs=$BUILD/nginx-debian/objs
        nginx=$(installed_nginx)
        ;;
    vendored)
        # Our build script says where nginx-sys built it.
        objs=$(sed -n 's/.*"PUSH_NGINX_BUILD_DIR","\([^"]*\)".*/\1/p' <<<"$messages" | tail -n 1)
        [[ -x $objs/nginx ]] || die "cargo did not say where the vendored nginx is"
        version=$("$objs/nginx" -v 2>&1 | sed -n 's|^nginx version: nginx/\([0-9.]*\).*|\1|p')
        to=$BUILD/nginx-$version
        mkdir -p "$to"
        put_file "$objs/nginx" "$to/nginx" 755
        nginx=$to/nginx source_dir=
        ;;
    own)
        to=$BUILD/nginx-own
        source_dir=$(realpath -m "${NGINX_SOURCE_DIR:-$NGINX_BUILD_DIR/..}")
        objs=$(realpath -m "${NGINX_BUILD_DIR:-$source_dir/objs}")
        mkdir -p "$to"
        if [[ -n ${NGINX_BIN-} ]]; then
            nginx=$NGINX_BIN
        elif [[ -x $objs/nginx ]]; then
            put_file "$objs/nginx" "$to/nginx" 755
            nginx=$to/nginx
        else
            nginx=
        fi
        ;;
    *) die "unknown flavour '$flavour' (debian, vendored, own)" ;;
esac

mkdir -p "$to"
work=$(mktemp -d "$to/.new.XXXXXX")
trap 'rm -rf "$work"' EXIT
cp "$so" "$work/$name"
objcopy --only-keep-debug "$work/$name" "$work/$name.debug"
objcopy --strip-unneeded --add-gnu-debuglink="$work/$name.debug" "$work/$name"
put_file "$work/$name" "$to/$name"
put_file "$work/$name.debug" "$to/$name.debug"

if [[ -n $nginx ]]; then
    "$ROOT/scripts/check-nginx.sh" --nginx "$nginx" --objs "$objs" ${source_dir:+--source "$source_dir"} --module "$to/$name"
else
    say "No nginx to check the module with (NGINX_BIN=/path/of/nginx names one)."
fi
say "built: $to/$name"
printf '%s\n' "$to"
