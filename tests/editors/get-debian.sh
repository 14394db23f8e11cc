#!/usr/bin/env bash
# get-debian.sh DIR PROGRAM...: what the trials need of Debian's own programs: "emacs" with eglot, "chromium" with a font.
# What is on PATH stays as it is. The rest is installed where root runs this; else it is unpacked into DIR, and DIR/bin, which belongs
# in front of PATH, has a script that runs each from there. Ends with a sentence where neither can be done. One at a time.
set -euo pipefail
mkdir -p "$1/bin"
dir=$(cd "$1" && pwd)
shift
export PATH="$dir/bin:$PATH"
fail() { echo "get-debian.sh: $*" >&2; exit 2; }

declare -A packages=([emacs]="emacs-nox elpa-eglot" [chromium]="chromium fonts-dejavu-core")
eglot="(progn (package-initialize) (require 'eglot))"
has() {
  case $1 in
    emacs) "$1" -q --batch --eval "$eglot" ;;
    *) "$1" --version ;;
  esac > /dev/null 2>&1
}

exec 9> "$dir/../get-debian.lock"
flock 9
missing=()
for program in "$@"; do has "$program" || missing+=("$program"); done
[ ${#missing[@]} -gt 0 ] || exit 0
command -v apt-get > /dev/null || fail "${missing[*]}: not on PATH, and there is no apt-get to fetch it with. Install it."
wanted=$(for program in "${missing[@]}"; do echo "${packages[$program]}"; done)

if [ "$(id -u)" = 0 ]; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq update || fail "apt-get can't update its lists: ${missing[*]} can't be fetched."
  # shellcheck disable=SC2086
  apt-get -qq install --yes --no-install-recommends $wanted > "$dir/apt.log" 2>&1 ||
    { cat "$dir/apt.log" >&2; fail "apt-get can't install" $wanted; }
else
  rm -rf "$dir/apt"
  mkdir -p "$dir"/apt/{lists,archives}/partial "$dir/root"
  cat > "$dir/apt/apt.conf" <<CONF
Dir::State::lists "$dir/apt/lists";
Dir::Cache "$dir/apt";
Debug::NoLocking "1";
CONF
  export APT_CONFIG="$dir/apt/apt.conf"
  apt-get -qq update || fail "apt-get can't fetch its lists: ${missing[*]} can't be had."
  # What the machine has of the packages that they need stays where it is.
  # shellcheck disable=SC2086
  apt-get -qq --yes --download-only --no-install-recommends install $wanted || fail "apt-get can't fetch" $wanted
  for package in "$dir"/apt/archives/*.deb; do dpkg-deb -x "$package" "$dir/root"; done
  rm -rf "$dir/apt" "$dir"/root/usr/share/{doc,man,locale,icons}
  libraries=$(find "$dir"/root/{usr/,}lib/*-linux-gnu -name 'lib*.so*' -printf '%h\n' | sort -u | paste -sd:)
  script() { printf '#!/bin/sh\nexport LD_LIBRARY_PATH=%s\n%s\n' "'$libraries'" "$2" > "$dir/bin/$1" && chmod +x "$dir/bin/$1"; }
  for program in "${missing[@]}"; do
    case $program in
      emacs)
        share=$(echo "$dir"/root/usr/share/emacs/[0-9]*)
        site=$(find "$dir"/root/usr/share/emacs/site-lisp/elpa-src -mindepth 1 -maxdepth 1 | paste -sd:)
        dump=$(find "$dir/root/usr" -name '*.pdmp')
        script emacs "export EMACSLOADPATH='$site:$share/lisp' EMACSDATA='$share/etc'
exec '$dir/root/usr/bin/emacs-nox' --dump-file='$dump' \"\$@\"" ;;
      chromium)
        cat > "$dir/fonts.conf" <<CONF
<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>/usr/share/fonts</dir><dir>$dir/root/usr/share/fonts</dir><cachedir>$dir/fonts</cachedir></fontconfig>
CONF
        script chromium "export FONTCONFIG_FILE='$dir/fonts.conf'
exec '$dir/root/usr/lib/chromium/chromium' \"\$@\"" ;;
    esac
  done
fi
for program in "${missing[@]}"; do has "$program" || fail "$program does not run: ${packages[$program]} did not bring it."; done
