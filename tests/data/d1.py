#!/usr/bin/env python3
"""D1 to the bit, in NumPy: the digests of all features and reconstructions of the fixtures.

    python3 d1.py             print one SHA-256 a case and one over all
    python3 d1.py --write     write them to digests.txt
    python3 d1.py --check     compare them with digests.txt; exit status 1 if a line differs

Nothing here comes from the Rust code: it reads the publishers' files itself and follows
design decision D1's lanes, tree and roundings in the plainest NumPy. tests/digest.rs computes
the same digests through the library, at every level.

The definition, for one row x of d_in numbers (float32, widened to float64):

    dot(w, x)   16 float64 lanes start at +0; product i (exact) is added to lane i mod 16, i
                increasing; then lane j += lane j+8 (j < 8), j+4 (j < 4), j+2 (j < 2), j+1
    sum(x)      the same lanes and tree
    input       layer_norm: mean = sum(x)/d; var = sum((x - mean)^2)/(d - 1);
                    sigma = sqrt(var); t = (x - mean)/(sigma + 1e-5)
                constant_norm_rescale: f = sqrt(d)/sqrt(sum(x^2)); t = x f
                otherwise: t = x
                x' = round32(t - c) with the centre c, round32(t) without one
    pre_i       = round32(scale_i * dot(W_enc column i, x') + bias_i): two float64 roundings
    select      relu         pre > 0
                tanh-relu    pre > 0, value round32(tanh(the float64 sum))
                jumprelu     pre > threshold and pre > 0
                gated        round32(S + b_gate) > 0 and pre > 0, with scale exp(r_mag), bias b_mag
                topk         the k largest pre, ties to the lowest index; of those, pre > 0
                abstopk      the k largest |pre|, ties to the lowest index; of those, pre != 0
                a row with a value that is not finite, in x or in x': no features
    decode      sums start at +0; for the features in ascending order: a = value * decoder_scale_i;
                sum_c += a * W_dec[i, c] (the product rounded first); y = sum + b_dec;
                layer_norm: y = y sigma + mean; constant_norm_rescale: y = y / f (transcoders keep
                y as it is); skip: y = y + dot(W_skip row c, x); one rounding to float32;
                a row without features because it is not finite is NaN throughout

The digest of a case is taken over, for each row, the number of features (u32 little-endian),
their indices (u32), their values (float32 bits); then all reconstructions (float32 bits), row
after row. A NaN is always 0x7fc00000.
"""

import hashlib
import json
import math
import os
import struct
import sys

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
FIXTURES = os.path.join(HERE, "fixtures")
DIGESTS = os.path.join(HERE, "digests.txt")
# What the fixtures leave out of a case folder because the tool embeds it.
ELSEWHERE = {"demo": os.path.join(HERE, "..", "..", "src", "bin", "sae", "demo")}
# Architectures that this script computes; cases of others are left out.
ARCHITECTURES = {"standard", "gated", "jumprelu", "topk", "abstopk"}
ARCHITECTURES |= {"transcoder", "skip_transcoder"}
ARCHITECTURES |= {"jumprelu_transcoder", "jumprelu_skip_transcoder"}
# Cases run a second time with another value of what the caller gives.
VARIANTS = {"saelens_standard_expected_average": {"norm_scaling_factor": 0.37}}


# ------------------------------------------------------------------------------------------------
# exp, expm1 and tanh: the algorithms of FreeBSD's msun, which musl and the Rust crate `libm` use.
# Python floats are IEEE doubles and every operation below rounds once, so the bits are theirs.
#
# origin: FreeBSD /usr/src/lib/msun/src/e_exp.c, s_expm1.c
# Copyright (C) 1993, 2004 by Sun Microsystems, Inc. All rights reserved.
# Permission to use, copy, modify, and distribute this software is freely granted, provided that
# this notice is preserved.

LN2_HIGH = 6.93147180369123816490e-01
LN2_LOW = 1.90821492927058770002e-10
INVERSE_LN2 = 1.44269504088896338700e00
EXP_P = (
    1.66666666666666019037e-01,
    -2.77777777770155933842e-03,
    6.61375632143793436117e-05,
    -1.65339022054652515390e-06,
    4.13813679705723846039e-08,
)
EXPM1_Q = (
    -3.33333333333331316428e-02,
    1.58730158725481460165e-03,
    -7.93650757867487942473e-05,
    4.00821782732936239552e-06,
    -2.01099218183624371326e-07,
)
TWO_1023 = math.ldexp(1.0, 1023)


def high_word(x):
    """The upper 32 bits of |x|."""
    return (struct.unpack("<Q", struct.pack("<d", x))[0] >> 32) & 0x7FFFFFFF


def horner(coefficients, z):
    """c[0] + z (c[1] + z (c[2] + ...))"""
    total = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        total = coefficient + z * total
    return total


def libm_exp(x):
    high = high_word(x)
    if high >= 0x4086232B:  # |x| >= 708.39...
        if x != x:
            return x
        if x > 709.782712893383973096:
            return x * TWO_1023
        if x < -745.13321910194110842:
            return 0.0
    if high > 0x3FD62E42:  # |x| > 0.5 ln 2
        if high >= 0x3FF0A2B2:  # |x| >= 1.5 ln 2
            k = int(INVERSE_LN2 * x + (-0.5 if x < 0 else 0.5))
        else:
            k = -1 if x < 0 else 1
        upper = x - k * LN2_HIGH
        lower = k * LN2_LOW
        x = upper - lower
    elif high > 0x3E300000:  # |x| > 2^-28
        k, upper, lower = 0, x, 0.0
    else:
        return 1.0 + x
    square = x * x
    c = x - square * horner(EXP_P, square)
    y = 1.0 + (x * c / (2.0 - c) - lower + upper)
    if k == 0:
        return y
    # ldexp rounds once and does not overflow for x <= 709.78; k can be 1024.
    return math.ldexp(y, k) if k < 1024 else math.ldexp(y * 2.0, k - 1)


def libm_expm1(x):
    high = high_word(x)
    negative = math.copysign(1.0, x) < 0
    if high >= 0x4043687A:  # |x| >= 56 ln 2
        if x != x:
            return x
        if negative:
            return -1.0
        if x > 7.09782712893383973096e02:
            return x * TWO_1023
    if high > 0x3FD62E42:  # |x| > 0.5 ln 2
        if high < 0x3FF0A2B2:  # |x| < 1.5 ln 2
            k = -1 if negative else 1
            upper = x + LN2_HIGH if negative else x - LN2_HIGH
            lower = -LN2_LOW if negative else LN2_LOW
        else:
            k = int(INVERSE_LN2 * x + (-0.5 if negative else 0.5))
            upper = x - k * LN2_HIGH
            lower = k * LN2_LOW
        x = upper - lower
        c = (upper - x) - lower
    elif high < 0x3C900000:  # |x| < 2^-54
        return x
    else:
        c, k = 0.0, 0
    half = 0.5 * x
    half_square = x * half
    r = 1.0 + half_square * horner(EXPM1_Q, half_square)
    t = 3.0 - r * half
    e = half_square * ((r - t) / (6.0 - x * t))
    if k == 0:
        return x - (x * e - half_square)
    e = x * (e - c) - c
    e -= half_square
    if k == -1:
        return 0.5 * (x - e) - 0.5
    if k == 1:
        if x < -0.25:
            return -2.0 * (e - (x + 0.5))
        return 1.0 + 2.0 * (x - e)
    if k < 0 or k > 56:
        y = x - e + 1.0
        y = y * 2.0 * TWO_1023 if k == 1024 else y * math.ldexp(1.0, k)
        return y - 1.0
    tiny = math.ldexp(1.0, -k)
    y = x - e + (1.0 - tiny) if k < 20 else x - (e + tiny) + 1.0
    return y * math.ldexp(1.0, k)


def libm_tanh(x):
    negative = math.copysign(1.0, x) < 0
    x = abs(x)
    high = high_word(x)
    if high > 0x3FE193EA:  # |x| > ln(3)/2, or NaN
        if high > 0x40340000:  # |x| > 20, or NaN
            t = 1.0 - 0.0 / x
        else:
            t = 1.0 - 2.0 / (libm_expm1(2.0 * x) + 2.0)
    elif high > 0x3FD058AE:  # |x| > ln(5/3)/2
        t = libm_expm1(2.0 * x)
        t = t / (t + 2.0)
    elif high >= 0x00100000:  # |x| >= 2^-1022
        t = libm_expm1(-2.0 * x)
        t = -t / (t + 2.0)
    else:
        t = x
    return -t if negative else t


def each(function, values):
    return np.array([function(float(value)) for value in values], dtype=np.float64)


# ------------------------------------------------------------------------------------------------
# Files


def read_safetensors(path):
    """Name -> float64 array, exactly the stored numbers."""
    with open(path, "rb") as file:
        data = file.read()
    (header_length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + header_length])
    body = memoryview(data)[8 + header_length :]
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, end = entry["data_offsets"]
        raw = body[start:end]
        if entry["dtype"] == "BF16":
            bits = np.frombuffer(raw, dtype="<u2").astype(np.uint32) << 16
            values = bits.view(np.float32)
        else:
            values = np.frombuffer(raw, dtype={"F32": "<f4", "F16": "<f2", "F64": "<f8"}[entry["dtype"]])
        tensors[name] = values.astype(np.float64).reshape(entry["shape"])
    return tensors


def read_npz(path):
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name].astype(np.float64) for name in archive.files}


# ------------------------------------------------------------------------------------------------
# D1's sums. The last axis but one of `products` is summed: [..., d, n] -> [..., n].


def tree(lanes):
    for width in (8, 4, 2, 1):
        lanes = lanes[..., :width, :] + lanes[..., width : 2 * width, :]
    return lanes[..., 0, :]


def lane_sum(products):
    length = products.shape[-2]
    lanes = np.zeros(products.shape[:-2] + (16, products.shape[-1]))
    for start in range(0, length, 16):
        part = products[..., start : start + 16, :]
        lanes[..., : part.shape[-2], :] += part
    return tree(lanes)


def vector_sum(x):
    return float(lane_sum(x[:, None])[0])


def dot_columns(weights, x):
    """dot of every column of weights [d, n] with x [d]."""
    return lane_sum(weights * x[:, None])


def round32(x):
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(x, dtype=np.float64).astype(np.float32)


# ------------------------------------------------------------------------------------------------
# The model


class Model:
    """One SAE with everything the definition above needs; absent vectors are None."""

    def __init__(self, tensors, d_in, transcoder):
        self.w_enc = tensors["W_enc"]  # [d_in, d_sae]
        self.w_dec = tensors["W_dec"]  # [d_sae, d_out]
        self.b_dec = tensors["b_dec"]  # [d_out]
        self.w_skip = tensors.get("W_skip")  # [d_out, d_in]
        self.bias = tensors.get("b_enc")  # [d_sae]; gated models have none
        self.threshold = None
        self.gate_bias = None
        self.k = None
        self.rule = "relu"
        self.normalize = "none"
        self.denormalize = not transcoder
        self.centre = None
        self.scale = None
        self.decoder_scale = None
        self.rescaled = False
        assert self.w_enc.shape[0] == d_in and self.w_dec.shape[0] == self.w_enc.shape[1]

    def fold_decoder_norm(self):
        """SAELens' rescale_acts_by_decoder_norm: pre times |d|, value over |d| before decoding."""
        norms = np.sqrt(lane_sum((self.w_dec * self.w_dec).T))
        self.scale = norms
        self.bias = self.bias * norms
        with np.errstate(divide="ignore"):
            self.decoder_scale = 1.0 / norms
        self.rescaled = True

    def fold_input_scale(self, factor):
        """SAELens' fold_activation_norm_scaling_factor: W_enc s, W_dec / s, b_dec / s."""
        self.b_dec = self.b_dec / factor
        if self.rescaled:
            # The norms are those of W_dec / s, so s and 1/s cancel everywhere but in the bias.
            self.bias = self.bias / factor
            return
        self.scale = np.full(len(self.w_dec), factor) if self.scale is None else self.scale * factor
        self.decoder_scale = np.full(len(self.w_dec), 1.0 / factor)
        if self.gate_bias is not None:
            self.gate_bias = self.gate_bias / factor  # s S + b > 0 where S + b/s > 0

    def input(self, x):
        """x' (float32) and what decode needs to undo the normalisation."""
        width = len(x)
        undo = None
        if self.normalize == "layer_norm":
            mean = vector_sum(x) / width
            centred = x - mean
            sigma = math.sqrt(vector_sum(centred * centred) / (width - 1))
            t = centred / (sigma + 1e-5)
            undo = (sigma, mean)
        elif self.normalize == "constant_norm_rescale":
            length = math.sqrt(vector_sum(x * x))
            undo = math.sqrt(width) / length if length > 0 else math.inf
            t = x * undo
        else:
            t = x
        return round32(t if self.centre is None else t - self.centre), undo

    def encode(self, row):
        """Indices (ascending) and values (float32) of one float32 row; None if not finite."""
        if not np.isfinite(row).all():
            return None
        x, _ = self.input(row.astype(np.float64))
        if not np.isfinite(x).all():
            return None
        dots = dot_columns(self.w_enc, x.astype(np.float64))
        sums = (dots if self.scale is None else self.scale * dots) + self.bias
        pre = values = round32(sums)
        if self.rule == "relu":
            fires = pre > 0
        elif self.rule == "gated":
            fires = (round32(dots + self.gate_bias) > 0) & (pre > 0)
        elif self.rule == "tanh-relu":
            fires = pre > 0
            values = round32(each(libm_tanh, sums))
        elif self.rule == "jumprelu":
            fires = (pre > round32(self.threshold)) & (pre > 0)
        else:
            rank = np.abs(pre) if self.rule == "abstopk" else pre
            order = np.argsort(-rank, kind="stable")[: self.k]
            fires = np.zeros(len(pre), bool)
            fires[order] = True
            fires &= pre != 0 if self.rule == "abstopk" else pre > 0
        indices = np.flatnonzero(fires & (values != 0))
        return indices, values[indices]

    def decode(self, indices, values, row):
        row = row.astype(np.float64)
        sums = np.zeros(self.w_dec.shape[1])
        for index, value in zip(indices, values.astype(np.float64)):
            scaled = value if self.decoder_scale is None else value * self.decoder_scale[index]
            sums = sums + scaled * self.w_dec[index]
        y = sums + self.b_dec
        if self.denormalize and self.normalize == "layer_norm":
            sigma, mean = self.input(row)[1]
            y = y * sigma + mean
        elif self.denormalize and self.normalize == "constant_norm_rescale":
            y = y / self.input(row)[1]
        if self.w_skip is not None:
            y = y + dot_columns(self.w_skip.T, row)
        return round32(y)


def open_saelens(folder, given):
    """sae_weights.safetensors and cfg.json, as SAELens 6 and its predecessors write them."""
    with open(os.path.join(folder, "cfg.json"), encoding="utf-8") as file:
        config = json.load(file)
    tensors = read_safetensors(os.path.join(folder, "sae_weights.safetensors"))
    architecture = config.get("architecture", "standard")
    transcoder = architecture.endswith("transcoder")
    model = Model(tensors, config["d_in"], transcoder)
    normalize = config.get("normalize_activations")
    normalize = {True: "expected_average_only_in", False: "none", None: "none"}.get(normalize, normalize)
    activation = config.get("activation_fn_str", config.get("activation_fn", "relu"))
    if architecture == "gated":
        model.rule, model.gate_bias = "gated", tensors["b_gate"]
        model.scale, model.bias = each(libm_exp, tensors["r_mag"]), tensors["b_mag"]
    elif architecture.startswith("jumprelu"):
        model.rule, model.threshold = "jumprelu", tensors["threshold"]
    elif architecture in ("topk", "abstopk"):
        model.rule, model.k = architecture, config["k"]
    elif activation == "topk":
        model.rule, model.k = "topk", config["activation_fn_kwargs"]["k"]
    elif activation == "tanh-relu":
        model.rule = "tanh-relu"
    else:
        assert activation == "relu", activation
    if config.get("rescale_acts_by_decoder_norm", False):
        model.fold_decoder_norm()
    if normalize == "expected_average_only_in":
        model.fold_input_scale(float(given["norm_scaling_factor"]))
    elif normalize in ("layer_norm", "constant_norm_rescale"):
        model.normalize = normalize
    else:
        # Whitening is folded into the weights when they are exported.
        assert normalize in ("none", "covariance_whitening"), normalize
    if config.get("finetuning_scaling_factor"):
        factors = tensors["finetuning_scaling_factor"]
        scale = model.decoder_scale
        model.decoder_scale = factors if scale is None else scale * factors
    if config.get("apply_b_dec_to_input", True) and not transcoder:
        model.centre = model.b_dec
    return model


def open_gemma_scope(path):
    """params.npz of Gemma Scope 1: b_dec is not subtracted, nothing is normalised."""
    tensors = read_npz(path)
    d_in, d_out = tensors["W_enc"].shape[0], tensors["W_dec"].shape[1]
    model = Model(tensors, d_in, d_in != d_out)
    model.rule, model.threshold = "jumprelu", tensors["threshold"]
    if "embedding" in path.split(os.sep):
        # SAELens: W_enc / sqrt(d_in), W_dec * sqrt(d_in); the biases stay.
        model.scale = np.full(model.w_enc.shape[1], 1.0 / math.sqrt(d_in))
        model.decoder_scale = np.full(model.w_dec.shape[0], math.sqrt(d_in))
    return model


# ------------------------------------------------------------------------------------------------
# Digests


def bits(values):
    """float32 as little-endian bytes, every NaN the canonical one."""
    values = np.ascontiguousarray(values, dtype="<f4")
    words = values.view("<u4").copy()
    words[np.isnan(values)] = 0x7FC00000
    return words.tobytes()


def case_bytes(folder, case, given):
    """What the digest of a case is taken over."""
    files = folder
    if not os.path.exists(os.path.join(folder, case["files"][0])):
        files = ELSEWHERE[case["case"]]
    path = os.path.join(files, case.get("checkpoint", ""))
    if case["format"] == "gemma_scope_1":
        model = open_gemma_scope(path)
    else:
        assert case["format"] == "saelens", case["format"]
        model = open_saelens(path, given)
    rows = np.load(os.path.join(files, case.get("inputs", "inputs.npy")), allow_pickle=False)
    rows = rows.astype(np.float32)
    out, reconstructions = [], []
    for row in rows:
        encoded = model.encode(row)
        if encoded is None:
            out.append(struct.pack("<I", 0))
            reconstructions.append(bits(np.full(model.w_dec.shape[1], np.nan)))
            continue
        indices, values = encoded
        out.append(struct.pack("<I", len(indices)) + indices.astype("<u4").tobytes() + bits(values))
        reconstructions.append(bits(model.decode(indices, values, row)))
    return b"".join(out + reconstructions)


def transcendental_bytes():
    """exp and tanh of 200,000 numbers in [-30, 30) from a congruential generator."""
    state, out = 1, []
    for _ in range(100_000):
        for function in (libm_exp, libm_tanh):
            state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
            x = (state >> 11) * 2.0**-53 * 60.0 - 30.0
            out.append(struct.pack("<d", function(x)))
    return b"".join(out)


def cases():
    """Name -> folder and case.json, in order of name."""
    found = {}
    for folder, _, files in os.walk(FIXTURES):
        if "case.json" in files:
            with open(os.path.join(folder, "case.json"), encoding="utf-8") as file:
                case = json.load(file)
            name = os.path.relpath(folder, FIXTURES).replace(os.sep, "/")
            # The forms that this program reads; the library reads more.
            known = case["format"] in ("saelens", "gemma_scope_1")
            if known and case["architecture"] in ARCHITECTURES:
                found[name] = folder, case
    return dict(sorted(found.items(), key=lambda item: item[0].encode()))


def digests():
    lines = [("libm", hashlib.sha256(transcendental_bytes()).hexdigest())]
    everything = hashlib.sha256()
    for name, (folder, case) in cases().items():
        runs = [(name, case.get("open_with", {}))]
        if name in VARIANTS:
            given = VARIANTS[name]
            runs.append((name + "".join(f"+{key}={value}" for key, value in given.items()), given))
        for title, given in runs:
            data = case_bytes(folder, case, given)
            everything.update(data)
            lines.append((title, hashlib.sha256(data).hexdigest()))
    lines.append(("all", everything.hexdigest()))
    return lines


def main():
    text = "".join(f"{digest}  {name}\n" for name, digest in digests())
    if sys.argv[1:] == ["--write"]:
        with open(DIGESTS, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        return 0
    if sys.argv[1:] == ["--check"]:
        with open(DIGESTS, encoding="utf-8") as file:
            expected = file.read()
        wrong = set(text.splitlines()) ^ set(expected.splitlines())
        for line in sorted(wrong, key=lambda line: line[64:]):
            print(("computed " if line in text else "expected ") + line)
        count = len(text.splitlines())
        print(f"{count} digests: " + ("they differ" if wrong else "all equal"))
        return 1 if wrong else 0
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
