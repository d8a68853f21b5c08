#!/usr/bin/env python3
"""Writes containers.json: for each checkpoint below this folder (or the one given), every tensor's dtype, shape and
the SHA-256 of its elements (little-endian, row-major), read with NumPy and the standard library
alone. `tests/containers.rs` compares the library with it."""

import collections
import hashlib
import io
import json
import pathlib
import pickle
import struct
import sys
import zipfile

import numpy as np

HERE = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else __file__ + "/..").resolve()
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


STORAGES = {"FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16", "DoubleStorage": "F64",
            "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8",
            "ByteStorage": "U8", "BoolStorage": "BOOL"}


class Tensor:
    def __init__(self, storage, offset, shape, strides, *_):
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides


class Unpickler(pickle.Unpickler):
    """Builds `Tensor` where torch would build one; refuses any other class."""

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            # An attribute `_metadata` is set on it.
            return type("OrderedDict", (collections.OrderedDict,), {})
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return Tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, *_: tensor
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        raise pickle.UnpicklingError(f"{module}.{name}")

    def persistent_load(self, pid):
        return (pid[1], pid[2], pid[4])  # dtype, key, elements


def flatten(prefix, value, out):
    if isinstance(value, dict):
        for key, item in value.items():
            flatten(f"{prefix}.{key}" if prefix else str(key), item, out)
    elif isinstance(value, Tensor):
        out[prefix] = value


def torch(path):
    raw = path.read_bytes()
    storages = {}
    if raw[:2] == b"PK":
        with zipfile.ZipFile(path) as archive:
            (pickled,) = [name for name in archive.namelist() if name.endswith("data.pkl")]
            root = Unpickler(io.BytesIO(archive.read(pickled))).load()
            for name in archive.namelist():
                storages[name.split("/")[-1]] = archive.read(name)
    else:
        stream = io.BytesIO(raw)
        assert pickle.load(stream) == 0x1950A86A20F9469CFC6C and pickle.load(stream) == 1001
        assert pickle.load(stream)["little_endian"]
        root = Unpickler(stream).load()
        keys = pickle.load(stream)
        tensors = {}
        flatten("", root, tensors)
        sizes = {t.storage[1]: SIZES[t.storage[0]] for t in tensors.values()}
        for key in keys:
            (count,) = struct.unpack("<q", stream.read(8))
            storages[key] = stream.read(count * sizes[key])
    tensors, out = {}, {}
    flatten("", root, tensors)
    for name, tensor in tensors.items():
        dtype, key, elements = tensor.storage
        size = SIZES[dtype]
        words = np.frombuffer(storages[key], dtype=f"V{size}")
        assert len(words) == elements
        strides = [stride * size for stride in tensor.strides]
        view = np.lib.stride_tricks.as_strided(words[tensor.offset :], tensor.shape, strides)
        out[name] = entry(dtype, tensor.shape, view.tobytes("C"))
    return out


def files():
    for case in sorted(HERE.glob("**/case.json")):
        described = json.loads(case.read_text())
        if "files" not in described:
            continue
        if described.get("expect", "load") != "load":
            continue
        # The demo's SAE lies with the tool that embeds it.
        yield from (path for name in described["files"] if (path := case.parent / name).exists())


def main():
    out = {}
    for path in files():
        reader = {".safetensors": safetensors, ".npz": npz, ".pt": torch, ".pth": torch}.get(path.suffix)
        if reader is None:
            continue
        try:
            out[str(path.relative_to(HERE))] = reader(path)
        except pickle.UnpicklingError as error:
            print(f"{path}: refused: {error}", file=sys.stderr)
    json.dump(out, sys.stdout, indent=0)
    print()


if __name__ == "__main__":
    main()
