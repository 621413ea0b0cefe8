#!/usr/bin/env bash
# Installs what drives Chromium for tests and screenshots, as tests/browser/package-lock.json has it. Does nothing where it is there.
set -euo pipefail
cd "$(dirname "$0")/../tests/browser"

wanted=$(sha256sum package-lock.json | cut -d' ' -f1)
[[ "$(cat node_modules/.installed 2>/dev/null)" == "$wanted" ]] && exit 0
echo "browser-env.sh: installing playwright-core (once)"
# The browser is the system's own.
PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 npm ci --no-audit --no-fund --silent
echo "$wanted" >node_modules/.installed
