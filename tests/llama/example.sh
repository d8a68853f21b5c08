#!/usr/bin/env bash
# Called by run.sh: the example, as its users call it.
set -euo pipefail
work=$1 demo=$2
example=$work/llama_features
prints() { grep -qF -- "$1" "$work/example.txt" || { cat "$work/example.txt"; echo "not printed: $1" >&2; exit 1; }; }

# A real model with labels.
"$example" "$work/minilm.gguf" "$demo/sae" --labels "$demo/labels.json" --top 1 \
    --prompt "To compile the program, run make in the source directory and check the log for errors. \
The king and his army marched toward the city before the winter came, and the doctor wrote a prescription." \
    >"$work/example.txt"
prints "<- hooked"
prints '2866 6.2'
prints '"program"'
sed -n '/ fire:/p' "$work/example.txt" | head -n 12

# Alerts, with the labels of the export where the rules have none.
printf '{"rules": [{"name": "programs", "kind": "threshold", "feature": 2866, "over": 4}]}' \
    >"$work/rules.json"
"$example" "$work/minilm.gguf" "$demo/sae" --labels "$demo/labels.json" --top 1 \
    --rules "$work/rules.json" --prompt "To compile the program, run make." >"$work/example.txt"
grep -E '^ +ALERT  programs, score [0-9.]+:  2866 [0-9.]+ .*"program"' "$work/example.txt" ||
    { cat "$work/example.txt"; echo "no alert" >&2; exit 1; }

# Generation, steering, and the same weights in another file.
ids=$(seq -s, 3 7 370)
"$example" "$work/tiny.gguf" "$work/fitted-sae" --ids "$ids" --tokens 5 --top 2 >"$work/example.txt"
prints " fire:"
[ "$(grep -c ' fire:' "$work/example.txt")" -eq $((53 + 5)) ]
cp "$work/example.txt" "$work/unsteered.txt"
# What begins to fire while it generates is told as it does.
all=("$work/tiny.gguf" "$work/fitted-sae" --ids "$ids" --tokens 5 --top 100000)
"$example" "${all[@]}" >"$work/plain.txt"
python3 tests/llama/alerts.py rules "$work/plain.txt" >"$work/rules.json"
"$example" "${all[@]}" --rules "$work/rules.json" >"$work/example.txt"
python3 tests/llama/alerts.py check "$work/plain.txt" "$work/example.txt" "$work/rules.json"
printf '{"edits": [{"feature": 3, "rule": "add", "strength": 40}]}' >"$work/plan.json"
"$example" "$work/tiny.gguf" "$work/fitted-sae" --ids "$ids" --tokens 5 --top 2 \
    --steer "$work/plan.json" >"$work/example.txt"
prints "steered 58 rows"
if diff -q <(grep ' fire:' "$work/unsteered.txt") <(grep ' fire:' "$work/example.txt") >/dev/null; then
    echo "steering changed nothing" >&2
    exit 1
fi
# The same strength, relative to the maximum that a labels file says.
printf '{"index": 3, "description": "a label", "maxActApprox": 16}' >"$work/labels.json"
printf '{"edits": [{"feature": 3, "rule": "add", "strength": {"value": 2.5, "of": "corpus_max"}}]}' \
    >"$work/relative.json"
cp "$work/example.txt" "$work/steered.txt"
"$example" "$work/tiny.gguf" "$work/fitted-sae" --ids "$ids" --tokens 5 --top 2 \
    --steer "$work/relative.json" --labels "$work/labels.json" >"$work/example.txt"
diff <(sed 's/ *"a label"//' "$work/example.txt") "$work/steered.txt" >&2
# A transcoder is checked, and steers, where its checkpoint says that it writes.
"$example" "$work/tiny.gguf" "$work/transcoder" --no-check --ids "$ids" --tokens 5 --top 2 \
    --steer "$work/plan.json" >"$work/example.txt"
prints "steered 58 rows"
if "$example" "$work/tiny.gguf" "$work/transcoder" --ids "$ids" --hook-out blocks.2.hook_mlp_out \
    >"$work/example.txt" 2>&1; then
    echo "the wrong output was not noticed" >&2
    exit 1
fi
prints "ffn_norm-1 -> ffn_out-2"
"$example" "$work/tiny.gguf" "$work/fitted-sae" --ids "$ids" --top 1 --against "$work/tiny-q8.gguf" \
    >"$work/example.txt"
prints "flipped"
grep -A2 'FVU there' "$work/example.txt"

# What a user does wrong is told.
text=$(tr '\n' ' ' <"$work/sentences.txt")
if "$example" "$work/minilm.gguf" "$demo/sae" --hook encoder.layer.2 --prompt "$text" \
    >"$work/example.txt" 2>&1; then
    echo "the wrong block was not noticed" >&2
    exit 1
fi
prints "this SAE fits the ADD of \`norm_w-3\`"
printf '{"rules": [{"name": "x", "kind": "threshold", "feature": 3072, "over": 4}]}' >"$work/wrong.json"
for wrong in "$work/no-such.gguf $demo/sae" "$work/tiny.gguf $work/fitted-sae --labels $work/no-such" \
    "$work/minilm.gguf $demo/sae --rules $work/wrong.json" "$work/tiny.gguf" "$work/tiny.gguf $demo/sae --what 3" \
    "$work/tiny.gguf $demo/sae --prompt x"; do
    # shellcheck disable=SC2086
    if "$example" $wrong >"$work/example.txt" 2>&1; then
        echo "accepted: $wrong" >&2
        exit 1
    fi
done
