#!/usr/bin/env bash
# Says whether an nginx can load a module built with given headers, and what to do if it cannot.
#
#   scripts/check-nginx.sh --nginx PROGRAM --objs DIR [--source DIR] [--module FILE]
#
# --nginx   the nginx that is to load the module; looked at with `nginx -V`
# --objs    the build directory whose ngx_auto_config.h the module was built with
# --source  the source tree that belongs to it, for its version (left out if PROGRAM was built there)
# --module  the built module: also compare the signature in both files, and let nginx load it
#
# nginx accepts a module only if its version is equal and its "signature", a row of flags for everything that
# changes nginx's structures, is too. Two configurations with --with-compat have equal signatures but for
# PCRE, the HTTP cache and the platform.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

nginx='' objs='' source_dir='' module=''
while [[ $# -gt 0 ]]; do
    case $1 in
        --nginx) nginx=$2 ;;
        --objs) objs=$2 ;;
        --source) source_dir=$2 ;;
        --module) module=$2 ;;
        *) die "unknown argument '$1'" ;;
    esac
    shift 2
done
[[ -n $nginx && -n $objs ]] || die "--nginx and --objs are needed"

own_source="Build for it from its own source: configure that source with the arguments that '$nginx -V' prints, then
'make NGINX_SOURCE_DIR=/path/of/source NGINX_BUILD_DIR=/path/of/source/objs'."

incompatible() {
    say "The module does not fit $nginx: $1"
    say "$2"
    exit 1
}

output=$("$nginx" -V 2>&1) || die "'$nginx -V' failed: $output"
banner=$(sed -n 's/^nginx version: *//p' <<<"$output")
arguments=$(sed -n 's/^configure arguments: *//p' <<<"$output")
built_with=$(sed -n 's/^#define NGX_CONFIGURE *"\(.*\)"$/\1/p' "$objs/ngx_auto_config.h")

[[ -n $banner ]] || die "'$nginx -V' did not print a version: $output"
if [[ ! $banner =~ ^nginx/([0-9]+\.[0-9]+\.[0-9]+) ]]; then
    incompatible "it is ${banner%% *}, a variant of nginx with structures of its own." "$own_source"
fi
version=${BASH_REMATCH[1]}

if [[ -n $source_dir ]]; then
    headers=$(sed -n 's/^#define NGINX_VERSION *"\(.*\)"$/\1/p' "$source_dir/src/core/nginx.h")
    if [[ $version != "$headers" ]]; then
        incompatible "it is version $version, and the headers in $source_dir are those of $headers; nginx wants them equal." \
            "Install nginx and nginx-dev of one version (Debian's packages are), or: $own_source"
    fi
fi

# Splits configure arguments, one per line, quotes kept: enough to look for a flag.
words() { tr ' ' '\n' <<<"$1" | sed '/^$/d'; }
has() { words "$1" | grep -qxF -e "$2"; }
# The arguments that can change structures: all but paths, names and compiler flags.
structural() {
    words "$1" | grep -E -e '^--(with|without|add)' | grep -vE -e '^--with-(cc|ld)' -e '=' | sort -u
}

if has "$arguments" --without-http; then
    incompatible "it was configured with --without-http." "The module serves HTTP: use an nginx that does."
fi
if has "$arguments" --with-compat; then
    if ! has "$built_with" --with-compat; then
        incompatible "it was configured with --with-compat, and the headers in $objs were not." \
            "Configure them again with the arguments that '$nginx -V' prints, and build again."
    fi
elif has "$built_with" --with-compat; then
    incompatible "it was configured without --with-compat, so its structures differ from those the module was built for." \
        "Use an nginx with --with-compat (Debian's package is one), or: $own_source"
elif [[ $(structural "$arguments") != "$(structural "$built_with")" ]]; then
    incompatible "it was configured without --with-compat and with other modules than the headers in $objs." \
        "Configure them with the same arguments, or both with --with-compat."
fi
for flag in --without-pcre --without-http-cache; do
    if has "$arguments" "$flag" && ! has "$built_with" "$flag"; then
        incompatible "it was configured with $flag, and the headers in $objs were not." "$own_source"
    elif ! has "$arguments" "$flag" && has "$built_with" "$flag"; then
        incompatible "the headers in $objs were configured with $flag, and it was not." "$own_source"
    fi
done

[[ -n $module ]] || exit 0

signature() { grep -aoE -m 1 '[0-9],[0-9],[0-9],[01]{34,}' "$1" | head -n 1 || true; }
theirs=$(signature "$nginx") ours=$(signature "$module")
if [[ -n $theirs && -n $ours && $theirs != "$ours" ]]; then
    incompatible "its signature is $theirs, that of the module is $ours." "$own_source"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/nginx.conf" <<CONF
load_module $(realpath "$module");
error_log stderr;
pid nginx.pid;
events {}
CONF
output=$("$nginx" -t -p "$work/" -c "$work/nginx.conf" -e stderr 2>&1) || incompatible "it does not load it: $output" "$own_source"
say "checked: nginx/$version ($nginx) loads it"
