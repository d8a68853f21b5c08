"""Checkpoints to measure with, in SAELens' form, and rows for them.

Synthetic JumpReLU models with the statistics of trained ones: decoder rows of unit norm from a
power-law covariance, firing rates over four decades, three massive dimensions, and an encoder of
matched filters (inverse covariance times decoder row), so that it ignores the massive dimensions
and cancels strong directions, as trained encoders do. Thresholds are set for the wanted number of
firing features. Large ones are written as bfloat16.
"""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

# name: d_in, d_sae, dtype of the file
SYNTHETIC = {
    "768x24576": (768, 24576, torch.float32),
    "2304x16384": (2304, 16384, torch.float32),
    "2304x131072-bf16": (2304, 131072, torch.bfloat16),
    "4096x32768": (4096, 32768, torch.float32),
}
FIRING = 64
ROWS = 512


def coloured(rows, basis, spread, random):
    noise = torch.from_numpy(random.standard_normal((rows, len(spread)), dtype=np.float32))
    return (noise * spread) @ basis


def make(folder, d_in, d_sae, dtype, seed=0):
    """Writes cfg.json, sae_weights.safetensors and rows.npy. Peak memory: about five matrices."""
    random = np.random.default_rng(seed)
    torch.set_num_threads(2)
    square = torch.from_numpy(random.standard_normal((d_in, d_in), dtype=np.float32))
    basis = torch.linalg.qr(square)[0]
    spread = torch.arange(1, d_in + 1, dtype=torch.float32) ** -0.45
    w_dec = coloured(d_sae, basis, spread, random)
    w_dec /= w_dec.norm(dim=1, keepdim=True)

    # Rates log-uniform from one in 10^5 up, with FIRING features on average at the top end.
    low, high = 1e-5, 0.9
    while d_sae * (high - low) / np.log(high / low) > 0.8 * FIRING:
        high *= 0.99
    rate = np.exp(random.uniform(np.log(low), np.log(high), d_sae)).astype(np.float32)
    size = np.exp(random.normal(np.log(12.0), 0.5, d_sae)).astype(np.float32)
    mean = torch.from_numpy((2 * random.standard_normal(d_in)).astype(np.float32))
    massive = torch.from_numpy(random.choice(d_in, 3, replace=False))
    heights = torch.tensor([380.0, -210.0, 120.0]) * (d_in / 2304) ** 0.5
    noise = 36.0 * FIRING / 8 / float((spread**2).sum())

    def rows(count):
        out = noise**0.5 * coloured(count, basis, spread, random) + mean
        for row in range(count):
            on = np.nonzero(random.random(d_sae, dtype=np.float32) < rate)[0]
            value = size[on] * (0.6 + random.gamma(2.0, 0.35, len(on))).astype(np.float32)
            out[row] += torch.from_numpy(value.astype(np.float32)) @ w_dec[on].float()
        wobble = 1 + 0.15 * random.standard_normal((count, 1)).astype(np.float32)
        out[:, massive] += heights * torch.from_numpy(wobble.astype(np.float32))
        return out

    variance = torch.from_numpy((rate * (1.69 + 0.245) - (1.3 * rate) ** 2) * size**2)
    covariance = (basis.T * (noise * spread**2)) @ basis
    for first in range(0, d_sae, 16384):
        part = w_dec[first : first + 16384]
        covariance += (part.T * variance[first : first + 16384]) @ part
    covariance[massive, massive] += 1e6
    factor = torch.linalg.cholesky(covariance)
    encoder = torch.empty(d_sae, d_in)
    for first in range(0, d_sae, 16384):
        part = w_dec[first : first + 16384]
        solved = torch.cholesky_solve(part.T.contiguous(), factor).T
        solved /= (part * solved).sum(dim=1, keepdim=True)
        encoder[first : first + 16384] = solved
    encoder *= 1 + 0.02 * torch.from_numpy(random.standard_normal((d_sae, 1)).astype(np.float32))
    encoder, w_dec = encoder.to(dtype), w_dec.to(dtype)

    sample = rows(1024)
    centre = sample.mean(dim=0).to(dtype).float()
    deviation, threshold = torch.empty(d_sae), torch.from_numpy(0.4 * size)
    pre = torch.empty(1024, d_sae)
    bias = torch.empty(d_sae)
    for first in range(0, d_sae, 16384):
        part = encoder[first : first + 16384].float()
        pre[:, first : first + 16384] = (sample - centre) @ part.T
        deviation[first : first + 16384] = pre[:, first : first + 16384].std(dim=0)
        bias[first : first + 16384] = 0
    factors = [0.5, 8.0]
    for _ in range(30):
        factor = sum(factors) / 2
        firing = (pre > torch.maximum(threshold, factor * deviation)).float().sum(dim=1).mean()
        factors[0 if firing > FIRING else 1] = factor
    threshold = torch.maximum(threshold, factor * deviation)
    del pre
    # b_dec is subtracted from the input, as SAELens does.
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        "W_enc": encoder.T.contiguous(),
        "W_dec": w_dec.contiguous(),
        "b_enc": bias.to(dtype),
        "b_dec": centre.to(dtype),
        "threshold": threshold.to(dtype),
    }
    config = {
        "architecture": "jumprelu",
        "d_in": d_in,
        "d_sae": d_sae,
        "dtype": str(dtype).removeprefix("torch."),
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "metadata": {"hook_name": "blocks.12.hook_resid_post"},
    }
    (folder / "cfg.json").write_text(json.dumps(config, indent=1))
    save_file(tensors, folder / "sae_weights.safetensors")
    # Last: where it is, the model is whole.
    np.save(folder / "rows.npy", rows(ROWS).numpy())


def relu(folder, source):
    """A copy of a synthetic model without thresholds, whose biases let a sixth fire."""
    from safetensors.torch import load_file

    folder, source = Path(folder), Path(source)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = load_file(source / "sae_weights.safetensors")
    rows = torch.from_numpy(np.load(source / "rows.npy"))
    pre = (rows - tensors["b_dec"].float()) @ tensors["W_enc"].float()
    tensors["b_enc"] = -torch.quantile(pre, 5 / 6, dim=0).to(tensors["b_enc"].dtype)
    tensors.pop("threshold")
    config = json.loads((source / "cfg.json").read_text())
    config["architecture"] = "standard"
    (folder / "cfg.json").write_text(json.dumps(config, indent=1))
    save_file(tensors, folder / "sae_weights.safetensors")
    np.save(folder / "rows.npy", rows.numpy())


def minilm(folder, source, activations):
    """A trained model with real activations: links to files given by the caller."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ["cfg.json", "sae_weights.safetensors"]:
        (folder / name).write_bytes((Path(source) / name).read_bytes())
    rows = np.load(activations).astype(np.float32)
    np.save(folder / "rows.npy", rows[:ROWS].copy())
