#!/usr/bin/env bash
# Shows what Sealgate does: makes a token, starts the gateway, signs a file over HTTP and has OpenSSL check the signature.
#
#   scripts/demo.sh [--once]     --once: stop when the signature is checked; otherwise the gateway keeps running
#
# SEALGATE_DEMO_DIR is where token and keys are kept (default ./.sealgate-dev), SEALGATE_DEMO_LISTEN the address (default 127.0.0.1:9091).
set -euo pipefail
cd "$(dirname "$0")/.."

dir=${SEALGATE_DEMO_DIR:-./.sealgate-dev}
listen=${SEALGATE_DEMO_LISTEN:-127.0.0.1:9091}
once=false
case "${1:-}" in
    "") ;;
    --once) once=true ;;
    *) echo "usage: scripts/demo.sh [--once]" >&2; exit 2 ;;
esac

say() { printf '\n== %s\n' "$*"; }
fail() { echo "demo.sh: $*" >&2; exit 1; }

gateway=
work=$(mktemp -d)
cleanup() {
    local code=$?
    trap - EXIT
    if [[ -n "$gateway" ]] && kill "$gateway" 2>/dev/null; then wait "$gateway" || true; fi
    rm -rf "$work"
    exit "$code"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say "Installing what is missing"
scripts/setup.sh

say "Building (some minutes the first time)"
cargo build --locked --profile demo
sealgate="${CARGO_TARGET_DIR:-target}/demo/sealgate"

say "Starting the gateway in development mode"
touch "$work/started"
SEALGATE_LOG=${SEALGATE_LOG:-warn} "$sealgate" dev --dir "$dir" --listen "$listen" 2>"$work/log" &
gateway=$!
# A dev.json that is older was left by a gateway that was killed, or belongs to one that still runs.
serves() { [[ "$dir/dev.json" -nt "$work/started" ]]; }
for _ in $(seq 300); do
    ! serves || break
    if ! kill -0 "$gateway" 2>/dev/null; then
        cat "$work/log" >&2
        fail "the gateway did not start; the message above says what to do"
    fi
    sleep 0.2
done
serves || { cat "$work/log" >&2; fail "the gateway does not serve after a minute"; }

field() { jq -er "$1" "$dir/dev.json"; }
url=$(field .url)
api_key=$(field .api_key)
ca=$(field .ca_certificate)
echo "serving on $url; all that a program needs stands in $dir/dev.json"

# Calls the ticket API: METHOD PATH [curl arguments…]. The API key goes through a file, so that no list of processes shows it.
printf 'header = "Authorization: Bearer %s"\n' "$api_key" >"$work/curl.conf"
chmod 600 "$work/curl.conf"
call() {
    local method=$1 path=$2
    shift 2
    local status
    status=$(curl --silent --show-error --config "$work/curl.conf" --request "$method" --output "$work/answer" --write-out '%{http_code}' \
        "$@" "$url/api/v1$path") || fail "$method $path: no answer; the gateway's log: $(tail -n 5 "$work/log")"
    if [[ "$status" != 200 ]]; then
        fail "$method $path was answered with $status: $(cat "$work/answer")"
    fi
    printf '%-7s %-60s %s\n' "$method" "$path" "$status"
}

say "The keys, as the token describes them"
"$sealgate" keys --dir "$dir"

say "Signing a file over HTTP"
echo "Signed by a key that never leaves its token, on $(date)." >"$work/letter.txt"
call POST /ticket
ticket=$(jq -er .ticketUuid "$work/answer")
call POST "/ticket/$ticket/data" --header 'Content-Type: application/octet-stream' --data-binary "@$work/letter.txt"
call PUT "/ticket/$ticket/option" --header 'Content-Type: application/json' --data '{"signatureType":"detached","cadesType":"CAdESBES"}'
call POST "/ticket/$ticket/ds/creator"
call GET "/ticket/$ticket/ds/base64Data"
jq -er .base64Data "$work/answer" | openssl base64 -d -A >"$work/letter.txt.p7s"
call DELETE "/ticket/$ticket"

say "Checking the signature with OpenSSL"
openssl cms -cmsout -inform DER -in "$work/letter.txt.p7s" -print | sed -n 's/^ *subject: */signed by: /p' | head -n 1
verify() {
    openssl cms -verify -binary -inform DER -in "$work/letter.txt.p7s" -content "$work/letter.txt" -CAfile "$ca" -out "$work/verified.txt" "$@" 2>&1
    cmp "$work/letter.txt" "$work/verified.txt"
}
verify -cades
verify

if ! $once; then
    say "Done"
    cat <<END
A file went in over HTTP, a CMS signature made inside a PKCS#11 token came out, and OpenSSL accepts it.

Try next, in another terminal:
  export SEALGATE_API_KEY=\$(jq -r .api_key $dir/dev.json)
  $sealgate sign --url $url --key rsa-2048 README.md
  $sealgate slots --dir $dir
  $sealgate bench --dir $dir

The gateway keeps running on $url; stop it with Ctrl-C.
END
    wait "$gateway"
fi
