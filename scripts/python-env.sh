#!/usr/bin/env bash
# Makes target/pyhanko-venv: Python with what tests/pyhanko/verify_cms.py needs. Does nothing if it is there and up to date.
set -euo pipefail
cd "$(dirname "$0")/.."

venv="${CARGO_TARGET_DIR:-target}/pyhanko-venv"
wanted=tests/pyhanko/requirements.txt
installed="$venv/installed-requirements.txt"

if [[ -x "$venv/bin/python" ]] && cmp -s "$wanted" "$installed"; then
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
