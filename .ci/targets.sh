#!/usr/bin/env bash
# Other targets than this machine's, each with a second Rust (Debian's rustc-web, whose source
# package builds std for any target without the network):
#   .ci/targets.sh aarch64   NEON: kernels at all lengths, digests, screens, under qemu
#   .ci/targets.sh wasm      simd128: the C library without std in Node, with the same digests
#   .ci/targets.sh hosts     type-checks the library for other operating systems
# Toolchain and builds are kept in CI_CACHE.
set -euo pipefail
cd "$(dirname "$0")/.."
export CI_CACHE=${CI_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/libsae-ci}
mkdir -p "$CI_CACHE"
root=$PWD
cache=$CI_CACHE
tools=$cache/rust-targets

toolchain() {
    local needed=()
    for pair in qemu-aarch64-static:qemu-user-static aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu \
        x86_64-w64-mingw32-dlltool:binutils-mingw-w64-x86-64 node:nodejs; do
        command -v "${pair%%:*}" >/dev/null || needed+=("${pair##*:}")
    done
    [ -e /usr/aarch64-linux-gnu/lib/libc.so.6 ] || needed+=(libc6-dev-arm64-cross)
    [ -e "$tools/.done" ] || needed+=(libgit2-1.5)
    if [ ${#needed[@]} -gt 0 ]; then
        echo "installing ${needed[*]}"
        apt-get update -q >/dev/null
        apt-get install -q -y --no-install-recommends "${needed[@]}" >/dev/null
    fi
    if [ ! -e "$tools/.done" ]; then
        rm -rf "$tools" "$tools.deb"
        mkdir -p "$tools" "$tools.deb"
        (cd "$tools.deb" && apt-get download -q rustc-web libstd-rust-web-1.96 libstd-rust-web-dev \
            libllvm22 cargo-web rust-web-src rust-web-llvm 2>/dev/null)
        for package in "$tools.deb"/*.deb; do dpkg -x "$package" "$tools"; done
        rm -rf "$tools.deb"
        touch "$tools/.done"
    fi
    export LD_LIBRARY_PATH=$tools/usr/lib/x86_64-linux-gnu
    export RUSTC=$tools/usr/bin/rustc RUSTDOC=$tools/usr/bin/rustdoc
    # Building std is not a stable option of cargo.
    export RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$cache/target-other
    cargo=$tools/usr/bin/cargo
}

# The tests that are run on another CPU: those that compare bits. What they need besides the
# repository is nothing.
aarch64() {
    toolchain
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64-static -L /usr/aarch64-linux-gnu"
    export SAE_REQUIRE_LEVEL=neon
    "$cargo" test --quiet -Zbuild-std --target aarch64-unknown-linux-gnu --release \
        --test levels --test digest --test screen
}

wasm() {
    toolchain
    local wasm=$CARGO_TARGET_DIR/wasm32-unknown-unknown/release/sae.wasm
    CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=$(rustup_lld) \
        CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS="-Ctarget-feature=+simd128 -Clink-arg=--export=__heap_base" \
        CARGO_PROFILE_RELEASE_PANIC=abort CARGO_PROFILE_RELEASE_STRIP=true CARGO_PROFILE_RELEASE_OPT_LEVEL=z CARGO_PROFILE_RELEASE_LTO=fat \
        "$cargo" rustc --quiet --release -p sae-ffi --no-default-features --crate-type cdylib \
        -Zbuild-std=core,alloc,panic_abort --target wasm32-unknown-unknown
    # A seventh smaller. No option of it changes what floating point gives.
    command -v wasm-opt >/dev/null || apt-get install -q -y --no-install-recommends binaryen >/dev/null
    wasm-opt -Oz --enable-simd --enable-bulk-memory --enable-sign-ext --enable-mutable-globals \
        --enable-nontrapping-float-to-int "$wasm" -o "$wasm.small"
    wasm=$wasm.small
    node "$root/tests/wasm/run.mjs" "$wasm"
    cp "$wasm" "$root/ffi/examples/web/libsae.wasm"
    command -v chromium >/dev/null || apt-get install -q -y --no-install-recommends chromium >/dev/null
    node "$root/tests/wasm/page.mjs"
}

# The linker of the other Rust's own installation, if it has one, or else of this machine's.
rustup_lld() {
    local host
    host=$(env -u RUSTC -u LD_LIBRARY_PATH rustc --print sysroot)
    find "$host" -name rust-lld -type f | head -1
}

hosts() {
    toolchain
    local target
    for target in x86_64-pc-windows-gnu aarch64-apple-darwin x86_64-apple-darwin aarch64-linux-android aarch64-apple-ios; do
        "$cargo" check --quiet -Zbuild-std --target "$target" -p sae -p sae-ffi
        echo "hosts: sae and libsae type-check for $target"
    done
}

"${1:?aarch64, wasm or hosts}"
