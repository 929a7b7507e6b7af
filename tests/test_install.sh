#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Installs into a folder, moves it, and builds the example against it: with pkg-config, and with find_package, shared and static.
set -euo pipefail
build=$2
source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
fail() { echo "test_install: $1" >&2; exit 1; }

cmake --install "$build" --prefix "$tmp/first" >"$tmp/log" 2>&1 || { cat "$tmp/log"; fail "cmake --install failed"; }
prefix="$tmp/a place of its own" # moved, and with spaces in the name
mv "$tmp/first" "$prefix"
libdir=$(dirname "$(find "$prefix" -name libbitbyte.so)")

for file in man/man1/bitbyte.1 man/man1/bitbyte-train.1 bash-completion/completions/bitbyte zsh/site-functions/_bitbyte fish/vendor_completions.d/bitbyte.fish; do
    [ -s "$prefix/share/$file" ] || fail "share/$file is not there"
done
[ "$(find "$prefix/share/man" -name 'bitbyte-*.1' | wc -l)" = "$("$prefix/bin/bitbyte" --help=complete | wc -l)" ] || fail "a page for each command"
grep -q '^.SH OPTIONS' "$prefix/share/man/man1/bitbyte-train.1" || fail "bitbyte-train(1) has no options"

version=$("$prefix/bin/bitbyte" --version | grep -oE '[0-9]+\.[0-9]+\.[0-9]+' | head -n 1)
header_version=$(grep -E '^#define BB_VERSION_(MAJOR|MINOR|PATCH)' "$prefix/include/bitbyte.h" | awk '{print $3}' | paste -sd.)
[ "$version" = "$header_version" ] || fail "the program says version $version, the header $header_version"

export PKG_CONFIG_PATH=$libdir/pkgconfig
[ "$(pkg-config --modversion bitbyte)" = "$version" ] || fail "pkg-config gives version $(pkg-config --modversion bitbyte)"
# pkg-config quotes for a shell that reads its words again.
eval "${CC:-cc} '$source_dir/examples/quick_start.c' -std=c11 $(pkg-config --cflags --libs bitbyte) \
  -o '$tmp/with_pkg_config'"
"$tmp/with_pkg_config" "$tmp/run1" >"$tmp/log" 2>&1 || { cat "$tmp/log"; fail "the example built with pkg-config failed"; }

mkdir "$tmp/user"
cat >"$tmp/user/CMakeLists.txt" <<TEXT
cmake_minimum_required(VERSION 3.18)
project(user C)
find_package(bitbyte $version REQUIRED COMPONENTS static)
foreach(kind bitbyte static)
  add_executable(with_\${kind} "$source_dir/examples/quick_start.c")
  target_link_libraries(with_\${kind} PRIVATE bitbyte::\${kind} m)
endforeach()
TEXT
{ cmake -S "$tmp/user" -B "$tmp/user/build" -DCMAKE_PREFIX_PATH="$prefix" && cmake --build "$tmp/user/build"; } >"$tmp/log" 2>&1 ||
    { cat "$tmp/log"; fail "find_package(bitbyte) did not build the example"; }
for kind in bitbyte static; do
    "$tmp/user/build/with_$kind" "$tmp/run_$kind" >"$tmp/log" 2>&1 || { cat "$tmp/log"; fail "the example built with bitbyte::$kind failed"; }
done
ldd "$tmp/user/build/with_static" | grep -q libbitbyte && fail "bitbyte::static links the shared library"

# make install and uninstall: what was there stays, and nothing else does. Targets are not built again here.
mkdir -p "$tmp/with spaces/share/man"
make() { command make -s -C "$source_dir" -o all SKIP_DEPS=1 BUILD="$build" PREFIX="$tmp/with spaces" "$@" >"$tmp/log" 2>&1 || { cat "$tmp/log"; fail "make $*"; }; }
make install
[ -x "$tmp/with spaces/bin/bitbyte" ] && [ -s "$tmp/with spaces/share/man/man1/bitbyte.1" ] || fail "make install"
make install # again, which makes no folder
echo mine >"$tmp/with spaces/include/mine.h"
make uninstall
[ "$(cd "$tmp/with spaces" && find . | sort | tr '\n' ' ')" = ". ./include ./include/mine.h ./share ./share/man " ] ||
    fail "make uninstall left: $(cd "$tmp/with spaces" && find .)"
command make -s -C "$source_dir" BUILD="$build" uninstall >/dev/null 2>&1 && fail "uninstall twice"
echo "installed, moved, and used through pkg-config and find_package; uninstalled"
