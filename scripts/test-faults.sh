#!/usr/bin/env bash
# Builds the module with its fault points, and lets workers die and stop at them (t/faults.rs):
#
#   scripts/test-faults.sh [ARGUMENT OF CARGO TEST...]
#
# PUSH_FAULTS_POINTS, PUSH_FAULTS_PAUSE and PUSH_FAULTS_SEED: see t/faults.rs.
set -euo pipefail
source "$(dirname "$0")/lib.sh"
need_cargo

nginx=$(installed_nginx)
[[ -n $nginx ]] || die "nginx is not installed ('make setup' installs it)"
# A build of its own: the module for users has no such points.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$ROOT/target}/faults
step 'workers that die and stop at every point'
PUSH_TEST_NGINX=$nginx PUSH_TEST_MODULE=$CARGO_TARGET_DIR/debian/debug/deps/libngx_http_push_module.so \
    "$ROOT/scripts/cargo.sh" debian test --package ngx_http_push_module --features faults --test faults "$@"
