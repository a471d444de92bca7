#!/usr/bin/env bash
# Prepares Debian's nginx headers for the build: one run of the `configure` that nginx-dev ships, into
# build/nginx-debian/objs. Nothing is written to /usr. Does nothing if it was done for the installed version.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

source_dir=/usr/share/nginx/src
objs=$BUILD/nginx-debian/objs
stamp=$BUILD/nginx-debian/version

[[ -f $source_dir/conf_flags ]] || die "Debian's nginx-dev is not installed. 'make setup' installs it; 'make NGINX=vendored' does without."

version=$(dpkg-query -W -f '${Package} ${Version}' nginx-dev)
if [[ -f $objs/Makefile && -f $objs/ngx_auto_config.h && $(cat "$stamp" 2>/dev/null) == "$version" ]]; then exit 0; fi

step "configuring the headers of $version"
rm -rf "$BUILD/nginx-debian"
mkdir -p "$objs"
log=$BUILD/nginx-debian/configure.log
(
    cd "$source_dir"
    # shellcheck source=/dev/null
    source ./conf_flags
    ./configure "${NGX_CONF_FLAGS[@]}" --builddir="$objs"
) >"$log" 2>&1 || die "nginx's configure failed, see $log: $(tail -n 3 "$log")"
printf '%s' "$version" >"$stamp"
