#!/usr/bin/env bash
# Tests of setup.sh and of what lib.sh asks of a machine, with an apt-get, a dpkg-query and a cargo that only say what they
# are told to.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0 count=0

program() {
    printf '#!/bin/sh\n%s\n' "$2" >"$work/bin/$1"
    chmod 755 "$work/bin/$1"
}

# A machine that has nginx and nothing else. Its apt-get would do what `plan` says, and notes what it is to do.
machine() {
    rm -rf "${work:?}/bin" "$work/done"
    mkdir -p "$work/bin"
    printf '%s\n' "$1" >"$work/plan"
    program dpkg-query '[ "$4" != nginx ] || echo installed'
    program apt-get "case \" \$* \" in *' -s '*) cat '$work/plan' ;; *) echo \"\$*\" >>'$work/done' ;; esac"
    program cargo 'echo "cargo 1.89.0 (c24e10642 2025-06-23)"'
}

expect() {
    local name=$1 expected=$2 words=$3 status=0 output
    shift 3
    count=$((count + 1))
    output=$(PATH=$work/bin:$PATH "$@" 2>&1) || status=$?
    if [[ $status -ne $expected || $output != *"$words"* ]]; then
        printf 'FAILED: %s\n  expected status %s and "%s", got %s: %s\n' "$name" "$expected" "$words" "$status" "$output"
        failed=1
    fi
}

expect_installed() {
    count=$((count + 1))
    if [[ $(grep -c ' install ' "$work/done" 2>/dev/null) -ne $1 ]]; then
        printf 'FAILED: %s\n  apt-get was to install %s times: %s\n' "$2" "$1" "$(cat "$work/done" 2>/dev/null)"
        failed=1
    fi
}

new='Inst nginx-dev (1.22.1-9 Debian:12 [all])'
setup=$ROOT/scripts/setup.sh

machine "$new"
expect 'an unknown purpose' 1 "unknown purpose 'bulid'" "$setup" bulid
expect 'an unknown purpose after another' 1 "unknown purpose 'bulid'" "$setup" nginx bulid
expect 'nothing is missing' 0 '' "$setup" nginx
expect 'something is missing' 1 'not installed: nginx-dev' "$setup" --check build
expect_installed 0 'what is only asked'
expect 'only new packages' 0 '' "$setup" --as-root nginx-dev
expect_installed 1 'only new packages'

machine "Inst nginx [1.22.1-9] (1.22.1-9+deb12u1 Debian:12 [amd64])
$new"
expect 'an nginx that would be upgraded' 1 'would change the nginx that is installed here (nginx 1.22.1-9)' "$setup" --as-root nginx-dev
expect_installed 0 'an nginx that would be upgraded'
machine "Remv nginx [1.28.0-1~bookworm]
$new"
expect 'an nginx that would be removed' 1 'nginx 1.28.0-1~bookworm' "$setup" --as-root nginx-dev
expect_installed 0 'an nginx that would be removed'
machine "Inst openssl [3.0.1-1] (3.0.2-1 Debian:12 [amd64])
Inst nginx-dev [1.22.1-8] (1.22.1-9 Debian:12 [all])"
expect 'other packages that would be upgraded' 0 '' "$setup" --as-root nginx-dev
expect_installed 1 'other packages that would be upgraded'

need_cargo=(bash -euo pipefail -c "source '$ROOT/scripts/lib.sh'; need_cargo; true")
expect 'a cargo that is just new enough' 0 '' "${need_cargo[@]}"
program cargo 'echo "cargo 1.100.0"'
expect 'a newer cargo' 0 '' "${need_cargo[@]}"
program cargo 'echo "cargo 1.63.0"'
expect "Debian's cargo" 1 'is 1.63.0' "${need_cargo[@]}"
program cargo 'exit 1'
expect 'a cargo that does not work' 1 'no known version' "${need_cargo[@]}"

mkdir -p "$work/white space/scripts"
cp "$ROOT/scripts/lib.sh" "$setup" "$work/white space/scripts"
expect 'a directory with white space' 1 'white space' "$work/white space/scripts/setup.sh" nginx

if [[ $failed -eq 0 ]]; then echo "setup.sh: $count tests passed"; fi
exit "$failed"
