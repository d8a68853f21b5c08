"""Compares what llama.cpp's hook found with the tool's results.

usage: compare.py bits ROWS.npy FEATURES.txt SAE TOOL      bit for bit, on the same rows
       compare.py minilm OUT DEMO TOOL                     with `sae demo`, whose rows differ a little
`TOOL` is the program `sae`.
"""
import json
import subprocess
import sys
from pathlib import Path

import numpy as np


def read_features(path):
    table = np.loadtxt(path, np.int64, ndmin=2)
    return table[:, 0], table[:, 1], table[:, 2].astype(np.uint32)


def bits(rows, features, sae, tool):
    out = features.replace(".txt", ".npz")
    Path(out).unlink(missing_ok=True)
    subprocess.run([tool, "encode", sae, rows, "-o", out], check=True, capture_output=True)
    found = np.load(out)
    row, index, value = read_features(features)
    indptr = found["indptr"]
    expected = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr.astype(np.int64)))
    assert np.array_equal(row, expected), "rows differ"
    assert np.array_equal(index, found["indices"].astype(np.int64)), "features differ"
    assert np.array_equal(value, found["values"].view(np.uint32)), "bits differ"
    print(f"{len(value)} features in {len(indptr) - 1} rows: the bits of the tool")


def read_bf16(path):
    raw = Path(path).read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:8 + length])
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, end = entry["data_offsets"]
        data = raw[8 + length:][start:end]
        if entry["dtype"] == "BF16":
            wide = np.frombuffer(data, np.uint16).astype(np.uint32) << 16
            values = wide.view(np.float32)
        else:
            values = np.frombuffer(data, np.float32)
        tensors[name] = values.reshape(entry["shape"]).astype(np.float64)
    return tensors


def minilm(out, demo, tool):
    out, demo = Path(out), Path(demo)
    tokens = json.loads((demo / "tokens.json").read_text())["tokens"]
    labels = {entry["index"]: entry["description"]
              for entry in json.loads((demo / "labels.json").read_text())}
    ids = [int(line) for line in (out / "minilm-tokens.txt").read_text().split()]
    assert ids == [token["id"] for token in tokens], "the tokens are others than those of the demo"
    ours, theirs = np.load(out / "minilm.npy").astype(np.float64), np.load(demo / "activations.npy")
    theirs = theirs.astype(np.float64)
    assert ours.shape == theirs.shape
    apart = np.abs(ours - theirs).max()
    cosine = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    print(f"rows of f16 weights against those of the demo: at most {apart:.4f} apart, "
          f"cosine at least {cosine.min():.6f}")
    # Two layers further the rows have nothing in common: this is generous and still a test.
    assert apart < 0.01 and cosine.min() > 0.9999, "not the rows of the demo"

    run = subprocess.run([tool, "demo", "--json", "--top", "1000"], check=True,
                         capture_output=True, text=True)
    shown = [token for sentence in json.loads(run.stdout)["sentences"]
             for token in sentence["tokens"]]
    expected = [{f["index"]: (f["value"], f["label"]) for f in token["features"]}
                for token in shown]
    row, index, value = read_features(out / "minilm.txt")
    found = [dict() for _ in tokens]
    for r, i, v in zip(row, index, value.view(np.float32)):
        found[r][int(i)] = float(v)

    # A feature's pre-activation moves by exactly w . (difference of the rows); rounding aside, it
    # may switch only within that of its threshold.
    sae = read_bf16(demo / "sae" / "sae_weights.safetensors")
    moved = np.abs((ours - theirs) @ sae["W_enc"])
    before = (theirs - sae["b_dec"]) @ sae["W_enc"] + sae["b_enc"]
    threshold = sae["threshold"]
    switched = same = strongest = 0
    for r, token in enumerate(tokens):
        for i in found[r].keys() | expected[r].keys():
            allowed = moved[r, i] + 1e-4
            if i in found[r] and i in expected[r]:
                same += 1
                assert abs(found[r][i] - expected[r][i][0]) <= allowed, (r, i)
            else:
                switched += 1
                assert abs(before[r, i] - threshold[i]) <= allowed, (r, i)
        if token["special"]:
            continue
        ours_best = max(found[r], key=found[r].get)
        theirs_best = max(expected[r], key=lambda i: expected[r][i][0])
        strongest += ours_best == theirs_best
        label = labels.get(ours_best)
        if ours_best == theirs_best:
            assert label == expected[r][theirs_best][1], (r, label)
        if token["sentence"] == 1:
            print(f"{token['token']:>14}  {ours_best:>5} {found[r][ours_best]:6.2f}  {label}")
    counted = sum(not token["special"] for token in tokens)
    print(f"{same} features as in `sae demo`, {switched} at their thresholds switched; the strongest "
          f"one and its label are the same for {strongest} of {counted} tokens")
    assert strongest >= 0.97 * counted and switched <= 0.02 * same


if __name__ == "__main__":
    {"bits": bits, "minilm": minilm}[sys.argv[1]](*sys.argv[2:])
