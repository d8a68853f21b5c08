#!/usr/bin/env python3
"""Writes types.gguf and types.json with the package `gguf` (llama.cpp's own): one small tensor of
each type that the library reads, keys of each type, and the values as that package decodes them.
Run in this folder."""

import hashlib
import json

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

random = np.random.default_rng(7)
writer = gguf.GGUFWriter("types.gguf", "sae")
writer.add_uint8("k.u8", 250)
writer.add_int8("k.i8", -5)
writer.add_uint16("k.u16", 65535)
writer.add_int16("k.i16", -300)
writer.add_uint32("k.u32", 4000000000)
writer.add_int32("k.i32", -2000000000)
writer.add_float32("k.f32", 0.5)
writer.add_bool("k.bool", True)
writer.add_string("k.text", "größe")
writer.add_uint64("k.u64", 2**64 - 1)
writer.add_int64("k.i64", -(2**63))
writer.add_float64("k.f64", 1e300)
writer.add_float32("k.nan", float("nan"))
writer.add_array("k.ints", [1, 2, 3])
writer.add_array("k.texts", ["a", "", "c"])
writer.add_array("k.floats", [0.5, 1.5])
writer.add_array("k.bools", [True, False])

expected = {}


def add(name, array, raw=None):
    writer.add_tensor(name, array, raw_dtype=raw)


for name, dtype in [("F32", "f4"), ("F16", "f2"), ("F64", "f8")]:
    array = random.standard_normal((3, 32)).astype(dtype)
    add(name, array)
    expected[name] = [name, [3, 32], hashlib.sha256(array.tobytes()).hexdigest()]
for name in ["I8", "I16", "I32", "I64"]:
    array = random.integers(-100, 100, (2, 3, 4)).astype(f"i{int(name[1:]) // 8}")
    add(name, array)
    expected[name] = [name, [2, 3, 4], hashlib.sha256(array.tobytes()).hexdigest()]
array = random.integers(0, 2**16, (5, 2)).astype("u2")
add("BF16", array.view(np.uint8).reshape(5, 4), raw=Type.BF16)
expected["BF16"] = ["BF16", [5, 2], hashlib.sha256(array.tobytes()).hexdigest()]

# Blocks of random bytes with finite scales: (type, positions of the f16 fields in a block).
for kind, halves in [
    (Type.Q4_0, [0]),
    (Type.Q4_1, [0, 2]),
    (Type.Q5_0, [0]),
    (Type.Q5_1, [0, 2]),
    (Type.Q8_0, [0]),
    (Type.Q2_K, [80, 82]),
    (Type.Q3_K, [108]),
    (Type.Q4_K, [0, 2]),
    (Type.Q5_K, [0, 2]),
    (Type.Q6_K, [208]),
    (Type.IQ4_NL, [0]),
]:
    values, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = random.integers(0, 256, (3 * 2, size)).astype(np.uint8)
    for at in halves:
        scale = random.standard_normal((6, 1)).astype(np.float16)
        blocks[:, at : at + 2] = scale.view(np.uint8)
    rows = blocks.reshape(3, 2 * size)
    add(kind.name, rows, raw=kind)
    decoded = gguf.quants.dequantize(rows, kind).astype("<f4")
    assert decoded.shape == (3, 2 * values)
    expected[kind.name] = ["F32", list(decoded.shape), hashlib.sha256(decoded.tobytes()).hexdigest()]

writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
with open("types.json", "w") as file:
    json.dump(expected, file, indent=1)
    file.write("\n")
