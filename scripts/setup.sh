#!/usr/bin/env bash
# Installs what demo.sh needs; with --tests also what test.sh needs. Does nothing where everything is there.
set -euo pipefail
cd "$(dirname "$0")/.."

CARGO_DENY_VERSION=0.20.2

say() { echo "setup.sh: $*"; }
fail() { echo "setup.sh: $*" >&2; exit 1; }

with_tests=false
case "${1:-}" in
    "") ;;
    --tests) with_tests=true ;;
    *) echo "usage: scripts/setup.sh [--tests]" >&2; exit 2 ;;
esac

command -v cargo >/dev/null || fail "Rust is missing; install it from https://rustup.rs and open a new shell"

# Each command or file that is wanted, and the Debian package that brings it.
wanted=(
    "cc gcc"
    "/usr/include/stdlib.h libc6-dev"
    "openssl openssl"
    "curl curl"
    "jq jq"
    "softhsm2-util softhsm2"
)
if $with_tests; then
    wanted+=(
        "pkcs11-tool opensc"
        "pkcs11-spy.so opensc-pkcs11"
        "p11-kit p11-kit"
        "p11-kit-client.so p11-kit-modules"
        "/usr/sbin/nginx nginx-light"
        "strace strace"
        "pdftotext poppler-utils"
        "postgres-server postgresql"
        "python3 python3"
        "unshare util-linux"
        "python-ensurepip python3-venv"
        "chromium chromium"
        "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf fonts-dejavu-core"
        "node nodejs"
        "npm npm"
        "pngquant pngquant"
        "gpgsm gpgsm"
        "gpg-agent gpg-agent"
    )
fi

# Whether a command, a file, a PKCS#11 module or a Python module is there.
is_there() {
    case "$1" in
        /*) [[ -e "$1" ]] ;;
        *.so) compgen -G "/usr/lib/*/$1" >/dev/null || compgen -G "/usr/lib/*/pkcs11/$1" >/dev/null || compgen -G "/usr/lib*/pkcs11/$1" >/dev/null ;;
        # Debian keeps the server's programs out of the path.
        postgres-server) command -v initdb >/dev/null || compgen -G "/usr/lib/postgresql/*/bin/initdb" >/dev/null ;;
        python-*) python3 -c "import ${1#python-}" 2>/dev/null ;;
        *) command -v "$1" >/dev/null ;;
    esac
}

missing=()
for pair in "${wanted[@]}"; do
    read -r thing package <<<"$pair"
    is_there "$thing" || missing+=("$package")
done

if ((${#missing[@]})); then
    command -v apt-get >/dev/null || fail "missing: ${missing[*]} (Debian's package names); install them with your system's package manager and try again"
    as_root=()
    if [[ $(id -u) -ne 0 ]]; then
        # A password can be asked for at a terminal only.
        if ! command -v sudo >/dev/null || { [[ ! -t 0 ]] && ! sudo -n true 2>/dev/null; }; then
            fail "missing: ${missing[*]}; as root, run: apt-get install -y ${missing[*]}"
        fi
        as_root=(sudo)
    fi
    say "installing ${missing[*]}"
    apt=(env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 -qq)
    "${as_root[@]}" "${apt[@]}" update
    "${as_root[@]}" "${apt[@]}" install -y --no-install-recommends "${missing[@]}" >/dev/null
fi

if $with_tests; then
    if [[ "$(cargo deny --version 2>/dev/null)" != "cargo-deny $CARGO_DENY_VERSION" ]]; then
        say "installing cargo-deny $CARGO_DENY_VERSION (some minutes, once)"
        cargo install cargo-deny --version "$CARGO_DENY_VERSION" --locked --quiet
    fi
    [[ ! -x scripts/python-env.sh ]] || scripts/python-env.sh
    scripts/browser-env.sh
fi
