#!/bin/bash
# Create in STATE what count.py needs: a qemu-aarch64 with plugins, the plugin, and a small arm64 Debian with Python.
# usage: prepare.sh STATE    (existing parts are kept; requirements: README.md)
set -euo pipefail

HERE=$(cd "$(dirname "$0")" && pwd)
STATE=$1
SUITE=trixie
JOBS=${JOBS:-1}
mkdir -p "$STATE"
STATE=$(cd "$STATE" && pwd)
# Debian archive of this machine's apt; MIRROR overrides it.
MIRROR=${MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m1 -E '^https?:.*/debian/?$' || true)}
[ -n "$MIRROR" ] || { echo "prepare.sh: apt has no Debian archive configured: set MIRROR" >&2; exit 2; }

fetch_qemu_source() {
    local apt="$STATE/apt" keyring
    keyring=$(ls /usr/share/keyrings/debian-archive-keyring.{pgp,gpg} 2>/dev/null | head -1)
    mkdir -p "$apt/lists/partial" "$apt/parts"
    echo "deb-src [signed-by=$keyring] $MIRROR $SUITE main" > "$apt/sources.list"
    local options=(-o "Dir::Etc::sourcelist=$apt/sources.list" -o "Dir::Etc::sourceparts=$apt/parts"
                   -o "Dir::State::lists=$apt/lists" -o APT::Sandbox::User=)
    (cd "$apt" && apt-get "${options[@]}" -qq update && apt-get "${options[@]}" -qq source --download-only qemu)
    mkdir -p "$STATE/qemu-source.new"
    tar -xf "$apt"/qemu_*.orig.tar.xz -C "$STATE/qemu-source.new" --strip-components=1
    mv "$STATE/qemu-source.new" "$STATE/qemu-source"
}

# Debian's qemu-user is built without plugins.
build_qemu() {
    [ -d "$STATE/qemu-source" ] || fetch_qemu_source
    mkdir -p "$STATE/qemu-source/build"
    cd "$STATE/qemu-source/build"
    [ -f build.ninja ] || ../configure --python=/usr/bin/python3 --target-list=aarch64-linux-user --enable-plugins \
        --without-default-features --enable-linux-user --disable-system --disable-tools --disable-docs \
        --disable-install-blobs \
        > "$STATE/configure.log" 2>&1
    ninja -j "$JOBS" qemu-aarch64 > "$STATE/build.log" 2>&1
    cp qemu-aarch64 "$STATE/qemu-aarch64.new"
    mv "$STATE/qemu-aarch64.new" "$STATE/qemu-aarch64"
}

build_plugin() {
    gcc -O2 -Wall -Wextra -shared -fPIC $(pkg-config --cflags glib-2.0) -I "$STATE/qemu-source/include/qemu" \
        "$HERE/counter.c" -o "$STATE/counter.so.new"
    mv "$STATE/counter.so.new" "$STATE/counter.so"
}

# Only unpacked, not configured: qemu-user runs its programs in place.
unpack_system() {
    rm -rf --one-file-system "$STATE/root.new"
    mmdebstrap --quiet --arch=arm64 --variant=extract --aptopt='APT::Install-Recommends "false"' \
        --include=base-files,libc-bin,libstdc++6,python3 "$SUITE" "$STATE/root.new" \
        "deb $MIRROR $SUITE main"
    mv "$STATE/root.new" "$STATE/root"
}

[ -x "$STATE/qemu-aarch64" ] || build_qemu
[ "$STATE/counter.so" -nt "$HERE/counter.c" ] || build_plugin
[ -d "$STATE/root" ] || unpack_system
