#!/usr/bin/env bash
# Installs and builds what tests/real_modules needs: readers, a software TPM, remoting, the virtual cards, Kryoptic. Does nothing where
# everything is there.
#
# What is built is kept outside the tree, in ${SEALGATE_CACHE:-~/.cache/sealgate}, for it takes minutes.
set -euo pipefail
cd "$(dirname "$0")/.."

KRYOPTIC=kryoptic-1.5.4
cache="${SEALGATE_CACHE:-$HOME/.cache/sealgate}"

say() { echo "real-modules.sh: $*"; }
fail() { echo "real-modules.sh: $*" >&2; exit 1; }

# Each command or file that is wanted, and the Debian package that brings it. Files may have a * in them.
wanted=(
    # Namespaces for the tests, so that daemons with fixed ports run once for each of them.
    "/usr/bin/unshare util-linux"
    "/usr/sbin/ip iproute2"
    # Cards.
    "/usr/sbin/pcscd pcscd"
    "/usr/lib/pcsc/drivers/serial/libifdvpcd.so vsmartcard-vpcd"
    "/usr/bin/opensc-tool opensc"
    "/usr/lib/*/opensc-pkcs11.so opensc-pkcs11"
    # A TPM, and the resource manager that the kernel is for a real one.
    "/usr/bin/swtpm swtpm"
    "/usr/lib/*/libtss2-tcti-swtpm.so.0 libtss2-tcti-swtpm0"
    "/usr/lib/*/libtss2-tcti-tabrmd.so.0 libtss2-tcti-tabrmd0"
    "/usr/lib/*/pkcs11/libtpm2_pkcs11.so libtpm2-pkcs11-1"
    "/usr/sbin/tpm2-abrmd tpm2-abrmd"
    "/usr/bin/dbus-daemon dbus-daemon"
    "/usr/bin/dbus-send dbus-bin"
    # Remoting, and what is behind it.
    "/usr/bin/p11-kit p11-kit"
    "/usr/lib/*/pkcs11/p11-kit-client.so p11-kit-modules"
    "/usr/bin/softhsm2-util softhsm2"
    # For building Kryoptic and the cards.
    "/usr/bin/clang clang"
    "/usr/lib/llvm-*/lib/libclang.so libclang-dev"
    "/usr/include/openssl/evp.h libssl-dev"
    "/usr/include/sqlite3.h libsqlite3-dev"
    "/usr/bin/pkg-config pkg-config"
    "/usr/bin/jq jq"
)

missing=()
for pair in "${wanted[@]}"; do
    read -r thing package <<<"$pair"
    compgen -G "$thing" >/dev/null || missing+=("$package")
done
if ((${#missing[@]})); then
    command -v apt-get >/dev/null || fail "missing: ${missing[*]} (Debian's package names); install them with your system's package manager and try again"
    as_root=()
    if [[ $(id -u) -ne 0 ]]; then
        # A password can be asked for at a terminal only.
        if ! command -v sudo >/dev/null || { [[ ! -t 0 ]] && ! sudo -n true 2>/dev/null; }; then
            fail "missing: ${missing[*]}; as root, run: apt-get install -y --no-install-recommends ${missing[*]}"
        fi
        as_root=(sudo)
    fi
    say "installing ${missing[*]}"
    apt=(env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 -qq)
    "${as_root[@]}" "${apt[@]}" update
    "${as_root[@]}" "${apt[@]}" install -y --no-install-recommends "${missing[@]}" >/dev/null
fi

mkdir -p "$cache"

# Cargo knows by itself whether there is anything to do.
say "the virtual cards (2 to 5 minutes where nothing is there yet)"
CARGO_TARGET_DIR="$cache/vcard" cargo build --locked --quiet --manifest-path tests/vcard/Cargo.toml

module="$cache/$KRYOPTIC/libkryoptic_pkcs11.so"
if [[ ! -e "$module" ]]; then
    say "$KRYOPTIC (1 to 4 minutes, once)"
    work="$(mktemp -d)"
    trap 'rm -rf "$work"' EXIT
    # A library for other programs cannot be had with cargo install. A package that depends on it makes cargo fetch its source.
    mkdir -p "$work/fetch/src"
    printf '[package]\nname = "fetch"\nedition = "2024"\n[dependencies]\nkryoptic = "=%s"\n' "${KRYOPTIC#kryoptic-}" >"$work/fetch/Cargo.toml"
    touch "$work/fetch/src/lib.rs"
    source="$(cargo metadata --quiet --format-version 1 --manifest-path "$work/fetch/Cargo.toml" |
        jq -r '.packages[] | select(.name == "kryoptic") | .manifest_path')"
    cp -r "$(dirname "$source")" "$work/source"
    # Debian's OpenSSL 3.0 has what the minimal Kryoptic wants.
    CARGO_TARGET_DIR="$work/target" cargo build --release --locked --quiet --manifest-path "$work/source/Cargo.toml" \
        --no-default-features --features kryoptic-lib/dynamic,minimal
    mkdir -p "$(dirname "$module")"
    # Moved into place last, so that an interrupted build is not taken for a finished one.
    cp "$work/target/release/libkryoptic_pkcs11.so" "$module.new"
    mv "$module.new" "$module"
fi
say "all is there, in $cache"
