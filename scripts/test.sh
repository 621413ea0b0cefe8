#!/usr/bin/env bash
# Checks everything: form, lints, documentation, licences, tests. Prints how long each stage took.
#
#   scripts/test.sh [--long] [STAGE…]     stages: setup fmt clippy doc deny test
#
# --long lets soak tests run their long rounds.
set -euo pipefail
cd "$(dirname "$0")/.."

ALL_STAGES=(setup fmt clippy doc deny test)

stage_setup() {
    scripts/setup.sh --tests
    scripts/real-modules.sh
}
stage_fmt() { cargo fmt --all --check; }
stage_clippy() { cargo clippy --locked --workspace --all-targets -- -D warnings; }
stage_doc() { RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --document-private-items; }
stage_deny() { cargo deny --locked check bans licenses sources; }
stage_test() { cargo test --locked --workspace --no-fail-fast; }

stages=()
for word in "$@"; do
    case "$word" in
        --long) export SEALGATE_TEST_LONG=1 ;;
        setup | fmt | clippy | doc | deny | test) stages+=("$word") ;;
        *) echo "usage: scripts/test.sh [--long] [${ALL_STAGES[*]}]" >&2; exit 2 ;;
    esac
done
((${#stages[@]})) || stages=("${ALL_STAGES[@]}")

report=()
finish() {
    local code=$?
    echo
    printf '%s\n' "${report[@]}"
    if ((code == 0)); then echo "test.sh: all is well"; else echo "test.sh: stage ${stage:-} failed; run it alone with: scripts/test.sh ${stage:-}"; fi
    exit "$code"
}
trap finish EXIT

for stage in "${stages[@]}"; do
    echo "== $stage"
    began=$SECONDS
    "stage_$stage"
    report+=("$(printf '%-8s %4d s' "$stage" $((SECONDS - began)))")
done
