#!/usr/bin/env bash
# Copies the module to where an nginx looks for modules, and says how to load it:
#
#   scripts/install.sh NGINX MODULE       DESTDIR is put before the path
set -euo pipefail
source "$(dirname "$0")/lib.sh"

nginx=$1 module=$2
[[ -x $nginx ]] || die "no nginx at '$nginx'"
prefix=$(configure_argument "$nginx" --prefix)
directory=$(configure_argument "$nginx" --modules-path)
: "${prefix:=/usr/local/nginx}"
: "${directory:=$prefix/modules}"
name=$(basename "$module")

if ! { mkdir -p "${DESTDIR-}$directory" && put_file "$module" "${DESTDIR-}$directory/$name"; }; then
    die "could not write to ${DESTDIR-}$directory (as root: sudo make install, with the same NGINX... variables)"
fi
cat <<TEXT
Installed ${DESTDIR-}$directory/$name
Load it with this line at the top of nginx.conf, before 'events':

    load_module $directory/$name;

An nginx that runs with an older version of the module needs a restart: a reload keeps the old code.
TEXT
