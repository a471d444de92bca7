#!/usr/bin/env bash
# The fence around nginx: `unsafe` code, leave to write it, and nginx's own names (nginx_sys, ngx_*) occur only
# in src/nginx/, and the engine does not depend on nginx's crates. The lint `unsafe_code` holds the first part
# too; this also finds a file that would switch the lint off.
#
#   scripts/fence.sh [DIRECTORY]
set -euo pipefail
source "$(dirname "$0")/lib.sh"
cd "${1:-$ROOT}"

status=0

# report WHAT PATTERN EXCEPT FILE...: lines of code (not of comments) that match the pattern
report() {
    local what=$1 pattern=$2 except=$3 found
    shift 3
    [[ $# -gt 0 ]] || return 0
    found=$(grep -nHE -e "$pattern" "$@" | grep -vE '^[^:]+:[0-9]+:[[:space:]]*//' | grep -vE "$except" || true)
    if [[ -n $found ]]; then
        printf '%s outside src/nginx/:\n%s\n' "$what" "$found" >&2
        status=1
    fi
}

# bench/pushload is a program of its own (its own workspace) that makes clients and measures from outside; nothing
# of it gets into the module. Its Cargo.toml asks for a reason at every `unsafe`.
mapfile -t files < <(find . -name '*.rs' -not -path './target/*' -not -path './build/*' -not -path './bench/pushload/*' \
    -not -path './src/nginx/*' | sort)
mapfile -t product < <(printf '%s\n' "${files[@]}" | grep -E '^\./(src|comet/src)/' || true)

report 'unsafe code' '\bunsafe\b' '^$' "${files[@]}"
report 'leave to write unsafe code' '(allow|expect|warn)\(.*\bunsafe_code\b' '^$' "${files[@]}"
report 'nginx' '\bnginx_sys\b|\bngx_[a-z]+_[a-z_]+\b' '\bngx_http_push_module\b' "${product[@]}"

if grep -nE '^(nginx-sys|ngx|libc)\b' comet/Cargo.toml >&2; then
    echo 'comet/Cargo.toml: the engine knows neither nginx nor system calls' >&2
    status=1
fi

# A lint table that says less would open the fence without a word.
grep -qE '^unsafe_code = "(deny|forbid)"' Cargo.toml || {
    echo 'Cargo.toml: the lint unsafe_code = "deny" is gone' >&2
    status=1
}
exit "$status"
