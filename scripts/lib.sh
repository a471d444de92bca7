# Shared by the scripts beside it: `source "$(dirname "$0")/lib.sh"`. Paths, messages, and how to find nginx.
# shellcheck shell=bash

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
BUILD=${PUSH_BUILD_DIR:-$ROOT/build}

# nginx takes a variable of this name for a list of sockets inherited from another nginx, and make exports it
# to us after `make NGINX=vendored`.
unset NGINX
# What was said to our make must not change variables of the makefiles that cargo and nginx run below us.
unset MAKEFLAGS MFLAGS MAKEOVERRIDES

say() { printf '%s\n' "$*" >&2; }
step() { printf '\n== %s\n' "$*" >&2; }
die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# nginx's configure cannot work there, and does not say why.
[[ $BUILD != *[[:space:]]* && $ROOT != *[[:space:]]* ]] ||
    die "nothing can be built where a path has white space: '$ROOT'. Move the clone to a directory without."

# Path of the installed nginx, or nothing. Debian puts it where an ordinary user's PATH does not look.
installed_nginx() {
    local path
    path=$(PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin command -v "${NGINX_BIN:-nginx}" || true)
    if [[ -n $path ]]; then printf '%s\n' "$path"; fi
}

# The value of one configure argument of an nginx: configure_argument NGINX --prefix
configure_argument() {
    "$1" -V 2>&1 | sed -n 's/^configure arguments: *//p' | tr ' ' '\n' | sed -n "s|^$2=||p" | tail -n 1
}

# Puts a shared object in place under a new inode: writing into the file of a module that a running nginx has
# mapped would crash that nginx.
put_file() { install -m "${3:-644}" "$1" "$2.new" && mv -f "$2.new" "$2"; }

# Fails unless there is a cargo, as new as Cargo.toml asks for.
need_cargo() {
    local wanted found
    wanted=$(sed -n 's/^rust-version = "\([0-9.]*\)".*/\1/p' "$ROOT/Cargo.toml" | head -n 1)
    command -v cargo >/dev/null ||
        die "cargo was not found. Install Rust $wanted or later (https://rustup.rs) and try again."
    found=$(cargo --version 2>/dev/null | sed -n 's/^cargo \([0-9.]*\).*/\1/p') || true
    [[ $(printf '%s\n' "$wanted" "$found" | sort -V | head -n 1) == "$wanted" ]] ||
        die "Rust $wanted or later is needed, and $(command -v cargo) is ${found:-of no known version}. With rustup: 'rustup update stable'.
Without (Debian's own Rust is too old): install it (https://rustup.rs), and put its directory (~/.cargo/bin) first in PATH."
}
