#!/usr/bin/env bash
# Called by run.sh bench: the table of what a hook costs, for both quantisations.
set -euo pipefail
here=$(dirname "$0") work=$2
hook=blocks.8.hook_resid_post
for kind in Q4_0 Q8_0; do
    model=$work/large-$kind.gguf
    [ -f "$model" ] || { python3 "$here/models.py" large "$model.part" $kind && mv "$model.part" "$model"; }
    if [ ! -f "$work/large-sae-$kind/cfg.json" ]; then
        "$work/bench" dump "$model" $hook "$work/large-rows-$kind.npy"
        python3 "$here/saes.py" random "$work/large-rows-$kind.npy" "$work/large-sae-$kind" 16384
    fi
    [ -n "${ONLY_PREPARE:-}" ] || "$work/bench" cost "$model" $hook "$work/large-sae-$kind"
done
