#!/usr/bin/env python3
"""Writes the files of this folder as two training scripts do: the config, an instance of a data
class, is pickled beside the state dict, by `torch.save` (.pt) and by `pickle.dump` in gzip
(.pkl.gz, protocol 4: each storage is then a small file of the old format inside of the pickle).

    python3 make.py          (needs torch; written with 2.15)

The classes here have the names and the attributes that matter of ViT-Prisma's
`VisionModelSAERunnerConfig` and of PatchSAE's `ViTSAERunnerConfig`; the weights are those of
`made` in tests/tiny/mod.rs, so that tests/forms.rs knows them.
"""

import dataclasses
import gzip
import os
import pathlib
import pickle
import sys
import types

import torch

D, N = 6, 10
MASK = (1 << 64) - 1


def made(name, *shape):
    state = 0x9E3779B97F4A7C15
    for byte in name.encode():
        state = ((state ^ byte) * 0x0100000001B3) & MASK
    values = []
    for _ in range(torch.Size(shape).numel()):
        state = (state * 6364136223846793005 + 1442695040888963407) & MASK
        values.append((state >> 40) / (1 << 23) - 1.0)
    return torch.tensor(values, dtype=torch.float32).reshape(shape)


def config(module, name, fields):
    """A data class in a module of that name, as if it had been imported from there."""
    parts = module.split(".")
    for i in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:i]), types.ModuleType(".".join(parts[:i])))
    made_class = dataclasses.make_dataclass(name, fields.keys())
    made_class.__module__ = module
    setattr(sys.modules[module], name, made_class)
    return made_class(*fields.values())


PRISMA = config(
    "vit_prisma.sae.config",
    "VisionModelSAERunnerConfig",
    {
        "model_name": "wkcn/TinyCLIP-ViT-40M-32-Text-19M-LAION400M",
        "vit_model_cfg": config(
            "vit_prisma.configs.HookedViTConfig",
            "HookedViTConfig",
            {"d_model": D, "dtype": torch.float32, "device": torch.device("cuda", 0)},
        ),
        "hook_point": "blocks.9.hook_resid_post",
        "context_size": 50,
        "d_in": D,
        "d_sae": N,
        "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": 3},
        "architecture": "standard",
        "normalize_activations": "layer_norm",
        "is_transcoder": False,
        "l1_coefficient": 0.0002,
        "device": torch.device("cuda"),
        "dtype": torch.float32,
        "min_l0": None,
    },
)
PATCHSAE = config(
    "src.sae_training.config",
    "ViTSAERunnerConfig",
    {
        "class_token": True,
        "model_name": "openai/clip-vit-base-patch32",
        "module_name": "resid",
        "block_layer": 10,
        "d_in": D,
        "d_sae": N,
        "expansion_factor": 4,
        "gated_sae": False,
        "lr": 0.0003,
        "device": torch.device("cpu"),
        "dtype": torch.float32,
    },
)


def state(*names):
    shapes = {"W_enc": (D, N), "W_dec": (N, D), "b_enc": (N,), "b_dec": (D,)}
    module = torch.nn.Module()
    for name in names:
        module.register_parameter(name, torch.nn.Parameter(made(name, *shapes[name])))
    return module.state_dict()


os.chdir(pathlib.Path(__file__).parent)
for name, cfg in {"prisma": PRISMA, "patchsae": PATCHSAE}.items():
    whole = {"cfg": cfg, "state_dict": state("W_enc", "b_enc", "W_dec", "b_dec")}
    torch.save(whole, f"{name}.pt")
    with open(f"{name}.pkl.gz", "wb") as file:
        file.write(gzip.compress(pickle.dumps(whole, protocol=4), mtime=0))
