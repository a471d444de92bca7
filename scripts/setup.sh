#!/usr/bin/env bash
# Installs the Debian packages that a purpose needs, and nothing if they are all there.
#
#   scripts/setup.sh [--check] [build] [vendored] [nginx] [run] [test] [valgrind] [bench]
#
# --check only says what is missing (exit status 1 if something is).
# If this is what installs nginx, its service is neither started nor enabled: we need the program, not a server
# on port 80.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

packages_for() {
    case $1 in
        # The module for Debian's nginx: headers, `configure`, bindgen's libclang, a linker.
        build) echo nginx nginx-dev libclang-dev gcc libc6-dev make binutils ;;
        # nginx itself from source.
        vendored) echo libclang-dev gcc libc6-dev make binutils libssl-dev libpcre2-dev zlib1g-dev ;;
        nginx) echo nginx ;;
        run) echo nginx curl ;;
        # The browser test, clients in Python and JavaScript, certificates for the TLS tests.
        test)
            echo nginx curl openssl python3 python3-venv chromium chromium-driver
            # Node may come from elsewhere, with an npm of its own.
            command -v node >/dev/null || echo nodejs
            command -v npm >/dev/null || echo npm
            ;;
        valgrind) echo valgrind ;;
        # Nchan, the peer, is unpacked and not installed: bench/servers.py.
        bench) echo nginx python3 procps ;;
        *) die "unknown purpose '$1' (build, vendored, nginx, run, test, valgrind, bench)" ;;
    esac
}

is_installed() { [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]; }

# Runs as root: keeps services from starting, installs, and puts things back.
install_as_root() {
    local policy=/usr/sbin/policy-rc.d new_nginx=
    export DEBIAN_FRONTEND=noninteractive
    is_installed nginx || new_nginx=yes

    if [[ -n $new_nginx ]]; then
        [[ ! -e $policy ]] || cp -p "$policy" "$policy.before-push"
        # shellcheck disable=SC2064 # the path is known now
        trap "if [ -e $policy.before-push ]; then mv -f $policy.before-push $policy; else rm -f $policy; fi" EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi

    if ! compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null; then apt-get update -q; fi
    local install=(apt-get install -y -q --no-install-recommends "$@")
    # A failure is most often an old package list.
    "${install[@]}" || { apt-get update -q && "${install[@]}"; } ||
        die "apt-get could not install: $*. Without Debian's nginx-dev, 'make NGINX=vendored' builds nginx too."

    if [[ -n $new_nginx ]] && is_installed nginx; then
        if command -v systemctl >/dev/null; then systemctl disable nginx.service >/dev/null 2>&1 || true; fi
        if command -v update-rc.d >/dev/null; then update-rc.d nginx disable >/dev/null 2>&1 || true; fi
        say "nginx was installed; its service is not started and not enabled ('systemctl enable --now nginx' does both)."
    fi
}

if [[ ${1-} == --as-root ]]; then
    shift
    install_as_root "$@"
    exit
fi

check=
if [[ ${1-} == --check ]]; then
    check=yes
    shift
fi
[[ $# -gt 0 ]] || set -- build

command -v dpkg-query >/dev/null ||
    die "this is not a Debian-like system. Install by hand what these packages are called there: $(for p in "$@"; do packages_for "$p"; done | tr '\n' ' ')"

missing=()
for purpose in "$@"; do
    for package in $(packages_for "$purpose"); do
        if ! is_installed "$package" && [[ " ${missing[*]-} " != *" $package "* ]]; then missing+=("$package"); fi
    done
done
[[ ${#missing[@]} -gt 0 ]] || exit 0

if [[ -n $check ]]; then
    say "not installed: ${missing[*]}"
    exit 1
fi

step "installing ${missing[*]}"
# apt's own words go to stderr: what the targets print on stdout stays theirs.
if [[ $EUID -eq 0 ]]; then
    "$0" --as-root "${missing[@]}" >&2
elif command -v sudo >/dev/null; then
    sudo "$0" --as-root "${missing[@]}" >&2
else
    die "these packages are missing, and only root can install them: ${missing[*]}
Run as root: apt-get install --no-install-recommends ${missing[*]}"
fi
