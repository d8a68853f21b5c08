#!/usr/bin/env bash
# The C programs with address and undefined-behaviour checks on both sides of the boundary: the Rust
# library is instrumented too, since a plain one hides its own overreads.
set -euo pipefail
cd "$(dirname "$0")/.."
export CI_CACHE=${CI_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/libsae-ci}
mkdir -p "$CI_CACHE"
target=x86_64-unknown-linux-gnu
export CARGO_TARGET_DIR=$CI_CACHE/target-asan
# The sanitizer's runtime is the C compiler's; rustc's own switch for it is not stable yet.
RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address \
    cargo build --quiet --release -p sae-ffi --target $target --config 'profile.release.lto=false'
library=$CARGO_TARGET_DIR/$target/release/libsae.a
work=$CARGO_TARGET_DIR/programs
mkdir -p "$work"
ran=0
for name in smoke null sizes rows steer errors two_threads fork; do
    cc -std=c11 -g -fsanitize=address,undefined -fno-sanitize-recover=all -Iinclude \
        tests/c/$name.c "$library" -lpthread -ldl -lm -o "$work/$name"
    for case in saelens_jumprelu/sae_weights.safetensors saelens_topk/sae_weights.safetensors \
        saelens_standard_layer_norm/sae_weights.safetensors \
        gemma_scope_1_res/layer_3/width_16k/average_l0_20/params.npz; do
        fixture=tests/data/fixtures/${case%%/*}
        file=tests/data/fixtures/$case
        rows=$work/${case%%/*}.f32
        # What stands behind the header of a .npy file of f32 values.
        [ -f "$rows" ] || python3 -c 'import sys
raw = open(sys.argv[1], "rb").read()
open(sys.argv[2], "wb").write(raw[10 + int.from_bytes(raw[8:10], "little"):])' \
            "$fixture/inputs.npy" "$rows"
        extra=()
        if [ $name = errors ]; then
            head -c "$(($(stat -c %s "$file") / 2))" "$file" >"$work/half"
            extra=("$work/half")
        fi
        ASAN_OPTIONS=detect_leaks=1 "$work/$name" "$file" "$rows" "${extra[@]}" >"$work/out.txt" 2>&1 ||
            { cat "$work/out.txt"; echo "asan: $name on $case failed" >&2; exit 1; }
        ran=$((ran + 1))
    done
done
echo "asan: $ran runs of C programs with instrumented Rust, nothing found"
