#!/usr/bin/env bash
# Fetches the client libraries that the tests run: packages of npm into t/javascript/node_modules, and of pip into an
# environment of their own in build/python. Does nothing if what is there is what is asked for.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

# is_current STAMP FILE: whether the stamp was made from this file
is_current() { [[ -f $1 ]] && cmp -s "$1" "$2"; }

lock=$ROOT/t/javascript/package-lock.json
stamp=$ROOT/t/javascript/node_modules/.fetched
if ! is_current "$stamp" "$lock"; then
    command -v npm >/dev/null || die "npm is not installed ('make setup-test' installs it)"
    step 'client libraries in JavaScript'
    npm ci --prefix "$ROOT/t/javascript" --no-audit --no-fund --silent || die "npm could not fetch the client libraries of t/javascript"
    cp "$lock" "$stamp"
fi

wanted=$ROOT/t/python/requirements.txt
stamp=$BUILD/python/.fetched
if ! is_current "$stamp" "$wanted"; then
    step 'client libraries in Python'
    python3 -m venv --clear "$BUILD/python" || die "python3 cannot make an environment ('make setup-test' installs python3-venv)"
    "$BUILD/python/bin/pip" install --quiet --disable-pip-version-check -r "$wanted" || die "pip could not fetch the client libraries of t/python"
    cp "$wanted" "$stamp"
fi
