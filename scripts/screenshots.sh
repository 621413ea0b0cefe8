#!/usr/bin/env bash
# Takes the pictures of docs/console.md: each page of the console, light, dark and as wide as a phone.
#
#   scripts/screenshots.sh [FOLDER]     default: docs/console
#
# Needs Chromium, Node.js and pngquant (scripts/setup.sh --tests installs them), and a built gateway or the patience to build one.
set -euo pipefail
cd "$(dirname "$0")/.."

out=$(realpath -m "${1:-docs/console}")
work=$(mktemp -d)
gateway=
finish() {
    local code=$?
    if [[ -n $gateway ]]; then
        kill "$gateway" 2>/dev/null || true
        wait "$gateway" 2>/dev/null || true
    fi
    rm -rf "$work"
    exit "$code"
}
trap finish EXIT

scripts/browser-env.sh
cargo build --locked --quiet
"${CARGO_TARGET_DIR:-target}/debug/sealgate" dev --dir "$work/dev" --listen 127.0.0.1:0 2>"$work/log" &
gateway=$!
for _ in $(seq 300); do
    [[ -e "$work/dev/dev.json" ]] && break
    kill -0 "$gateway" 2>/dev/null || break
    sleep 0.2
done
[[ -e "$work/dev/dev.json" ]] || { cat "$work/log" >&2; echo "screenshots.sh: the gateway did not start" >&2; exit 1; }

timeout 300 node tests/browser/screenshots.mjs "$work/dev/dev.json" "$work/pictures"
mkdir -p "$out"
for picture in "$work"/pictures/*.png; do
    # Flat colours: a small palette is enough, and a quarter of the size.
    pngquant --force --strip --speed 1 64 --output "$out/$(basename "$picture")" "$picture"
done
echo "screenshots.sh: $(find "$out" -name '*.png' | wc -l) pictures in $out, $(du -sh "$out" | cut -f1)"
