#!/usr/bin/env bash
# Proves that the core needs no std: it is compiled against a sysroot that holds only core, alloc and
# compiler_builtins. As a control, the build with std must fail there (E0463).
set -euo pipefail
cd "$(dirname "$0")/.."
export CI_CACHE=${CI_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/libsae-ci}
mkdir -p "$CI_CACHE"
target=x86_64-unknown-linux-gnu
real=$(rustc --print sysroot)
bare=$CI_CACHE/bare-sysroot-$(rustc -V | tr -c 'a-zA-Z0-9.\n' '-')
if [ ! -e "$bare/.done" ]; then
    rm -rf "$bare"
    mkdir -p "$bare/lib/rustlib/$target/lib"
    for name in core alloc compiler_builtins rustc_std_workspace_core; do
        ln -s "$real/lib/rustlib/$target/lib/lib$name"-*.r* "$bare/lib/rustlib/$target/lib/"
    done
    touch "$bare/.done"
fi
export CARGO_TARGET_DIR=$CI_CACHE/target-no-std
# Build scripts and proc macros keep the real std: these flags reach only what is built for --target.
build() {
    CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS="--sysroot $bare" \
        cargo build --quiet -p sae --no-default-features --target "$target" "$@"
}
build
if control=$(build --features std 2>&1) || ! grep -q E0463 <<<"$control"; then
    echo "no_std: the control build with std did not fail as it should" >&2
    exit 1
fi
echo "no_std: the core builds with core and alloc alone; with std it does not"
