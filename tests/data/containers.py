#!/usr/bin/env python3
"""Writes containers.json: for each checkpoint below this folder, every tensor's dtype, shape and
the SHA-256 of its elements (little-endian, row-major), read with NumPy and the standard library
alone. `tests/containers.rs` compares the library with it."""

import hashlib
import json
import pathlib
import struct
import sys

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
# Numbers as raw bytes: bf16 has no NumPy type, and nothing here does arithmetic.
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
NAMES = {"f8": "F64", "f4": "F32", "f2": "F16", "i8": "I64", "i4": "I32", "i2": "I16", "i1": "I8",
         "u1": "U8", "b1": "BOOL"}


def entry(dtype, shape, data):
    return [dtype, list(shape), hashlib.sha256(data).hexdigest()]


def safetensors(path):
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    header.pop("__metadata__", None)
    data = raw[8 + length :]
    out = {}
    for name, info in header.items():
        begin, end = info["data_offsets"]
        assert end - begin == SIZES[info["dtype"]] * int(np.prod(info["shape"], dtype=np.int64))
        out[name] = entry(info["dtype"], info["shape"], data[begin:end])
    return out


def npz(path):
    out = {}
    with np.load(path) as arrays:
        for name in arrays.files:
            if ".." in name:
                continue
            array = arrays[name]
            little = array.astype(array.dtype.newbyteorder("<"))
            out[name] = entry(NAMES[array.dtype.str[1:]], array.shape, little.tobytes("C"))
    return out


def files():
    for case in sorted(HERE.glob("**/case.json")):
        described = json.loads(case.read_text())
        if described.get("expect", "load") != "load":
            continue
        yield from (case.parent / name for name in described["files"])


def main():
    out = {}
    for path in files():
        reader = {".safetensors": safetensors, ".npz": npz}.get(path.suffix)
        if reader:
            out[str(path.relative_to(HERE))] = reader(path)
    json.dump(out, sys.stdout, indent=0)
    print()


if __name__ == "__main__":
    main()
