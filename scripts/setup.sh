#!/usr/bin/env bash
# Installs the Debian packages that a purpose needs, and nothing if they are all there.
#
#   scripts/setup.sh [--check] [build] [vendored] [nginx] [run] [tls] [test] [valgrind] [bench]
#
# --check only says what is missing (exit status 1 if something is).
# If this is what installs nginx, its service is neither started nor enabled: we need the program, not a server
# on port 80. An nginx that is installed already stays as it is, or nothing is installed.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

packages_for() {
    case $1 in
        # The module for Debian's nginx: headers, `configure`, bindgen's libclang, a linker.
        build) echo nginx nginx-dev libclang-dev gcc libc6-dev make binutils ;;
        # nginx itself from source.
        vendored) echo libclang-dev gcc libc6-dev make binutils libssl-dev libpcre2-dev zlib1g-dev ;;
        nginx) echo nginx ;;
        # The nginx to run is that of `build` or `vendored`; curl is for the commands that scripts/run.sh shows.
        run) echo curl ;;
        # The certificate of scripts/self-signed.sh.
        tls) echo openssl ;;
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
        *) die "unknown purpose '$1' (build, vendored, nginx, run, tls, test, valgrind, bench)" ;;
    esac
}

own_source="nginx's own packages, and others that have no nginx-dev: unpack the source of that version, run
'./configure --with-compat' there, and 'make NGINX_SOURCE_DIR=/path/of/source NGINX_BIN=/usr/sbin/nginx' here."

is_installed() { [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]; }

# Another process may have apt's lock for a moment: unattended upgrades do.
apt_get() { apt-get -o DPkg::Lock::Timeout=300 "$@"; }

# Installs packages. Stops before an nginx that is installed would be changed: that restarts it, which is not for us to
# decide on a machine that serves.
apt_install() {
    local changed
    # "Inst NAME [the version that is there] (the new one ...)"; a package that is new has no brackets.
    changed=$(apt_get -s install --no-install-recommends "$@" 2>/dev/null |
        sed -nE '/^[A-Za-z]+ nginx-(dev|doc) /d; s/^(Inst|Remv) ((lib)?nginx[^ ]*) \[([^]]*)\].*/\2 \4/p' || true)
    [[ -z $changed ]] ||
        die "installing $* would change the nginx that is installed here (${changed//$'\n'/, }), and restart it.
Debian's: upgrade it when that suits ('apt-get install nginx nginx-dev'), and try again.
$own_source"
    apt_get install -y -q --no-install-recommends "$@"
}

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

    # Another process may just do that: then the second attempt finds the list.
    if ! compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null; then apt_get update -q || true; fi
    # A failure is most often an old package list.
    apt_install "$@" || { apt_get update -q && apt_install "$@"; } ||
        die "apt-get could not install: $*. Without Debian's nginx-dev, 'make NGINX=vendored' builds nginx too.
$own_source"

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
    # By itself, so that an unknown purpose ends the script.
    packages=$(packages_for "$purpose")
    for package in $packages; do
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
