#!/usr/bin/env bash
# What the last stage of the Dockerfile does, as root in a tree of its own (an image, a chroot): installs nginx, the
# module that was built before, and the default configuration, and lets nginx check all of it.
#
#   scripts/install-image.sh --overwrite      says that /etc/nginx/nginx.conf may go
set -euo pipefail
source "$(dirname "$0")/lib.sh"

prefix=/usr/share/nginx
[[ $# -eq 1 && $1 == --overwrite ]] ||
    die "this is for the inside of an image: it overwrites /etc/nginx/nginx.conf. There, say --overwrite."
[[ $EUID -eq 0 ]] || die "only root can do this"

"$ROOT/scripts/setup.sh" nginx
install -D -m 644 "$BUILD/ngx_http_push_module.so" /usr/lib/nginx/modules/ngx_http_push_module.so
install -m 644 "$ROOT/nginx-conf/docker.conf" /etc/nginx/nginx.conf
mkdir -p "$prefix/html" "$prefix/logs"
cp -RL "$ROOT/nginx-conf/html/." "$prefix/html/"
chmod -R a+rX "$prefix/html"
# Containers log to their output.
ln -sf /dev/stderr "$prefix/logs/error.log"
ln -sf /dev/stdout "$prefix/logs/access.log"
nginx -t || die "nginx refuses it; was the module built on the same Debian release?"
