#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The Debian packages: their content, and that the packaged program runs.
set -euo pipefail
build=$2
source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
command -v dpkg-deb >/dev/null && command -v dpkg-shlibdeps >/dev/null || { echo "skipped: no dpkg-dev"; exit 77; }
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
fail() { echo "test_deb: $1" >&2; exit 1; }

DEBFULLNAME=Somebody DEBEMAIL=somebody@example.org "$source_dir/scripts/make-deb" "$build" "$tmp/packages" >"$tmp/log" 2>&1 || { cat "$tmp/log"; fail "make-deb"; }
[ "$(find "$tmp/packages" -name '*.deb' | wc -l)" = 3 ] || fail "three packages"
for package in "$tmp"/packages/*.deb; do dpkg-deb -x "$package" "$tmp/root"; done
version=$("$tmp/root/usr/bin/bitbyte" --version)
for package in "$tmp"/packages/*.deb; do
    [ "bitbyte $(dpkg-deb -f "$package" Version)" = "$version" ] || fail "$package: its version is not the program's"
    [ "$(dpkg-deb -f "$package" Maintainer)" = "Somebody <somebody@example.org>" ] || fail "$package: its maintainer"
    name=$(dpkg-deb -f "$package" Package)
    for file in copyright changelog.gz; do [ -s "$tmp/root/usr/share/doc/$name/$file" ] || fail "$name has no $file"; done
done
dpkg-deb -f "$tmp"/packages/bitbyte_*.deb Depends | grep -q libc6 || fail "bitbyte depends on nothing"
dpkg-deb -f "$tmp"/packages/libbitbyte-dev_*.deb Depends | grep -qF "libbitbyte0 (= ${version#bitbyte })" || fail "libbitbyte-dev does not depend on its library"
[ -s "$tmp/root/usr/share/man/man1/bitbyte-train.1.gz" ] && [ -s "$tmp/root/usr/include/bitbyte/base.h" ] || fail "a manual page, or the headers"
find "$tmp/root" -name 'libbitbyte.so.*' -type f | grep -q . || fail "the library"
echo "three packages"
