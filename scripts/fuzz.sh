#!/usr/bin/env bash
# Feeds fuzz targets (fuzz/targets/) with mutations of their seeds, by libFuzzer, until something fails or the time is over:
#
#   scripts/fuzz.sh TARGET|all [SECONDS] [ARGUMENT OF LIBFUZZER...]
#
# What it has found of new code stays in target/fuzz/corpus/TARGET, an input that fails in target/fuzz/failed/. Such an
# input as an argument is run alone: scripts/fuzz.sh TARGET 0 target/fuzz/failed/TARGET-...
#
# The flags are those of cargo-fuzz, which is not needed. rustc's sanitizers are not stable features, hence RUSTC_BOOTSTRAP.
set -euo pipefail
source "$(dirname "$0")/lib.sh"
need_cargo
command -v c++ >/dev/null || die "a C++ compiler was not found, and libFuzzer is written in C++"

targets=$(sed -n 's|^path = "targets/\(.*\)\.rs"$|\1|p' "$ROOT/fuzz/Cargo.toml")
usage="scripts/fuzz.sh TARGET|all [SECONDS]; the targets are: ${targets//$'\n'/ }"
chosen=${1:-}
seconds=${2:-60}
shift $(($# < 2 ? $# : 2))
[[ $chosen == all ]] || grep -qx -- "$chosen" <<<"$targets" || die "$usage"
[[ $chosen == all ]] || targets=$chosen

directory=${CARGO_TARGET_DIR:-$ROOT/target}/fuzz
mkdir -p "$directory"
directory=$(cd "$directory" && pwd)
host=$(rustc -vV | sed -n 's/^host: //p')
flags=(
    -Zsanitizer=address -Cpasses=sancov-module --cfg=fuzzing
    -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares
    -Cllvm-args=-simplifycfg-branch-fold-threshold=0
)

step 'building the fuzz targets'
bins=()
for target in $targets; do bins+=(--bin "$target"); done
# With --target the flags go to the targets and not to build scripts.
(cd "$ROOT/fuzz" && RUSTC_BOOTSTRAP=1 RUSTFLAGS="${flags[*]}" CARGO_TARGET_DIR=$directory \
    cargo build --quiet --locked --release --target "$host" "${bins[@]}")

for target in $targets; do
    step "fuzzing $target"
    corpus=$directory/corpus/$target
    mkdir -p "$corpus" "$directory/failed"
    inputs=("$corpus" "$ROOT/fuzz/seeds/$target")
    [[ $# -eq 0 || -d ${!#} || ! -e ${!#} ]] || inputs=()
    # One allocation above malloc_limit_mb counts as a failure: no input here is worth as much.
    "$directory/$host/release/$target" "${inputs[@]}" -max_total_time="$seconds" -max_len=8192 -timeout=10 \
        -rss_limit_mb=2048 -malloc_limit_mb=64 -artifact_prefix="$directory/failed/$target-" -print_final_stats=1 "$@"
done
