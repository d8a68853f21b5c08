"""Makes the SAEs that the llama.cpp tests use, for rows that llama.cpp gave.

usage: saes.py random ROWS.npy FOLDER D_SAE    random features, of which about 32 fire in each row
       saes.py fitted ROWS.npy FOLDER          reconstructs these rows: their principal directions
       saes.py transcoder ROWS.npy FOLDER OUTPUTS.npy   gives the first 200 of OUTPUTS for those of ROWS
In the form that SAELens stores (cfg.json, sae_weights.safetensors).
"""
import json
import sys
from pathlib import Path

import numpy as np


def save(folder, config, tensors):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    header, data, at = {}, [], 0
    for name, values in tensors.items():
        raw = np.ascontiguousarray(values, np.float32)
        header[name] = {"dtype": "F32", "shape": list(raw.shape),
                        "data_offsets": [at, at + raw.nbytes]}
        data.append(raw)
        at += raw.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "sae_weights.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for raw in data:
            file.write(raw.tobytes())
    (folder / "cfg.json").write_text(json.dumps(config))


def config(architecture, d_in, d_sae):
    return {
        "architecture": architecture, "d_in": d_in, "d_sae": d_sae, "dtype": "float32",
        "apply_b_dec_to_input": True, "normalize_activations": "none",
        "metadata": {"hook_name": "blocks.1.hook_resid_post", "model_name": "tiny-random"},
    }


def random(rows, folder, d_sae):
    numbers = np.random.default_rng(1)
    d_in = rows.shape[1]
    decoder = numbers.standard_normal((d_sae, d_in), np.float32)
    decoder /= np.linalg.norm(decoder, axis=1, keepdims=True)
    mean = rows.mean(axis=0)
    values = (rows - mean)[:256] @ decoder.T
    threshold = max(float(np.quantile(values, 1 - 32 / d_sae)), 1e-3)
    save(folder, config("jumprelu", d_in, d_sae), {
        "W_enc": decoder.T, "b_enc": np.zeros(d_sae), "W_dec": decoder, "b_dec": mean,
        "threshold": np.full(d_sae, threshold),
    })


def fitted(rows, folder):
    mean = rows.mean(axis=0)
    _, _, directions = np.linalg.svd(rows - mean, full_matrices=False)
    directions = directions[:192]
    both = np.concatenate([directions, -directions])
    d_sae, d_in = both.shape
    save(folder, config("standard", d_in, d_sae), {
        "W_enc": both.T, "b_enc": np.zeros(d_sae), "W_dec": both, "b_dec": mean,
    })


def transcoder(rows, folder, outputs):
    rows, outputs = rows[:200], outputs[:200]
    mean = outputs.mean(axis=0)
    # Fewer rows than values in one: a linear map meets them all.
    matrix = np.linalg.pinv(rows, rcond=1e-3) @ (outputs - mean)
    identity = np.eye(rows.shape[1])
    both = np.concatenate([identity, -identity])
    d_sae, d_in = both.shape
    settings = config("transcoder", d_in, d_sae)
    settings["apply_b_dec_to_input"] = False
    settings["d_out"] = outputs.shape[1]
    settings["metadata"]["hook_name"] = "model.layers.1.pre_feedforward_layernorm.output"
    settings["metadata"]["hook_name_out"] = "blocks.1.hook_mlp_out"
    save(folder, settings, {
        "W_enc": both.T, "b_enc": np.zeros(d_sae),
        "W_dec": np.concatenate([matrix, -matrix]), "b_dec": mean,
    })


if __name__ == "__main__":
    rows = np.load(sys.argv[2])
    if sys.argv[1] == "random":
        random(rows, sys.argv[3], int(sys.argv[4]))
    elif sys.argv[1] == "transcoder":
        transcoder(rows, sys.argv[3], np.load(sys.argv[4]))
    else:
        fitted(rows, sys.argv[3])
