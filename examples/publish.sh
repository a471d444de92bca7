#!/usr/bin/env bash
# Publishes each line of its input as a message:
#
#   some-program | examples/publish.sh 'http://localhost:8080/pub?id=demo'
set -euo pipefail

[[ $# -eq 1 ]] || { echo "usage: ${0##*/} URL" >&2; exit 2; }
while IFS= read -r line || [[ -n $line ]]; do
    curl --silent --show-error --fail --output /dev/null \
        --header 'Content-Type: text/plain; charset=utf-8' --data-raw "$line" "$1"
done
