#!/usr/bin/env bash
# get-haproxy.sh DIR -> DIR/haproxy: the one on PATH, else this Debian's package with what it needs and the machine lacks.
# Needs no root, and touches nothing outside DIR.
set -euo pipefail
mkdir -p "$1"
dir=$(cd "$1" && pwd)
"$dir/haproxy" -v 2>/dev/null | head -1 && exit 0

if found=$(command -v haproxy); then
  ln -sf "$found" "$dir/haproxy"
else
  rm -rf "$dir"/{archives,root,haproxy}
  mkdir -p "$dir/archives/partial" "$dir/root"
  apt-get -qq -y -o Debug::NoLocking=1 -o APT::Sandbox::User=root -o Dir::Cache::archives="$dir/archives" \
    --no-install-recommends --download-only install haproxy
  for package in "$dir"/archives/*.deb; do dpkg-deb -x "$package" "$dir/root"; done
  rm -rf "$dir/archives"
  cat > "$dir/haproxy" <<'RUN'
#!/bin/sh
root=$(dirname "$(readlink -f "$0")")/root
export LD_LIBRARY_PATH=$(echo "$root"/usr/lib/*-linux-gnu)
exec "$root/usr/sbin/haproxy" "$@"
RUN
  chmod +x "$dir/haproxy"
fi
"$dir/haproxy" -v | head -1
