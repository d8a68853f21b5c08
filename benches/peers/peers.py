"""libsae beside PyTorch, FAISS and ggml: answers compared first, then times, in one run.

    benches/peers/run                    everything: makes what it needs, measures, draws
    benches/peers/run --model 2304x16384 --work encode1

Each model runs in a process of its own, so that memory is bounded by the largest one. Every time
is a median over calls of distinct rows; the libraries take turns of a few calls each, so that a busy
moment meets all of them; the first call of each turn, whose weights the others have driven out of the
caches, is told apart as `cold`. Results go to benches/records/ as CSV; plot.py draws them.
"""

import argparse
import csv
import datetime
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

# Settings of the caller that pin a kernel of OpenBLAS would handicap NumPy.
for name in ["OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"]:
    os.environ.pop(name, None)

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = ROOT / "target" / "peers"
MODELS = WORK / "models"
FIXTURES = ROOT / "tests" / "data" / "fixtures" / "minilm"
TRAINED = {"minilm-batchtopk": "batchtopk_f32", "minilm-topk": "topk_bf16"}
WORKS = ["encode1", "encode512", "decode", "steer", "load"]
FIRING = 64


def names():
    import models

    return [*TRAINED, *models.SYNTHETIC, "2304x16384-relu"]


def make(name):
    """The folder of a model; made if it is not there yet."""
    import models

    folder = MODELS / name
    if (folder / "rows.npy").exists():
        return folder
    print(f"making {name} ...", file=sys.stderr, flush=True)
    if name in TRAINED:
        source = FIXTURES / TRAINED[name]
        models.minilm(folder, source, source / "inputs.npy")
    elif name.endswith("-relu"):
        models.relu(folder, make(name.removesuffix("-relu")))
    else:
        models.make(folder, *models.SYNTHETIC[name])
    return folder


def cpu():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def rounds(calls, seconds):
    """Of each of the calls: the median time of calls that follow each other, the best one, the
    median of the first ones after all others had the caches, and the number of calls."""
    times, first, estimate = ({name: [] for name in calls} for _ in range(3))
    for name, call in calls.items():
        call(0)
        start = time.perf_counter()
        call(1)
        estimate[name] = time.perf_counter() - start
    in_a_row = {name: 4 if estimate[name] > 1e-3 else 32 for name in calls}
    longest = sum(estimate[name] * in_a_row[name] for name in calls)
    turns = int(min(100, max(3, seconds / max(longest, 1e-9))))
    number = 2
    for _ in range(turns):
        for name, call in calls.items():
            for n in range(in_a_row[name]):
                start = time.perf_counter()
                call(number)
                elapsed = time.perf_counter() - start
                (times if n else first)[name].append(elapsed)
                number += 1
    median = lambda values: sorted(values)[len(values) // 2]
    return {
        name: (median(t), min(t), median(first[name]), len(t)) for name, t in times.items()
    }


class Reference:
    """The model in PyTorch, as its users run it."""

    def __init__(self, folder):
        import torch
        from safetensors.torch import load_file

        self.torch = torch
        self.config = json.loads((folder / "cfg.json").read_text())
        tensors = load_file(folder / "sae_weights.safetensors")
        self.stored = tensors["W_enc"].dtype
        self.w_enc, self.w_dec = tensors["W_enc"], tensors["W_dec"]
        self.b_enc, self.b_dec = tensors["b_enc"], tensors["b_dec"]
        self.threshold = tensors.get("threshold")
        self.k = self.config.get("k") if self.config["architecture"] == "topk" else None
        self.centred = self.config.get("apply_b_dec_to_input", True)
        if self.config.get("rescale_acts_by_decoder_norm"):
            # SAELens multiplies pre-activations by it; folded here once, in its favour.
            norm = self.w_dec.float().norm(dim=1)
            self.w_enc, self.b_enc = self.w_enc.float() * norm, self.b_enc.float() * norm
            self.w_dec = self.w_dec.float() / norm[:, None]

    def encoder(self, dtype, by_feature):
        """`encode(x)` with weights in one dtype and layout."""
        torch = self.torch
        w = self.w_enc.to(dtype)
        w = w.T.contiguous() if by_feature else w.contiguous()
        b = self.b_enc.to(dtype)
        c = self.b_dec.to(dtype) if self.centred else None
        threshold = None if self.threshold is None else self.threshold.to(dtype)
        k = self.k

        def encode(x):
            if c is not None:
                x = x - c
            pre = torch.nn.functional.linear(x, w, b) if by_feature else torch.addmm(b, x, w)
            if k is not None:
                return torch.topk(pre, k, dim=-1)
            if threshold is None:
                return torch.relu(pre)
            return torch.where(pre > threshold, pre, 0)

        return encode

    def exact(self, rows):
        """Pre-activations in f64 and the scale of the sums behind them."""
        torch = self.torch
        x = torch.from_numpy(rows).double()
        if self.centred:
            x = (x - self.b_dec.double()).float().double()
        pre, scale = [], []
        for first in range(0, self.w_enc.shape[1], 8192):
            w = self.w_enc[:, first : first + 8192].double()
            b = self.b_enc[first : first + 8192].double()
            pre.append(x @ w + b)
            scale.append(x.abs() @ w.abs() + b.abs())
        return torch.cat(pre, 1), torch.cat(scale, 1)


def check(model, reference, rows):
    """Features of libsae against f64, feature by feature. Returns how many fire per row."""
    torch = reference.torch
    pre, scale = reference.exact(rows)
    model.encode(model.rows(rows))
    count = 0
    for row, (indices, values) in enumerate(model.found()):
        gate = torch.zeros(pre.shape[1], dtype=torch.float64)
        if reference.k is not None:
            gate[:] = torch.topk(pre[row], reference.k).values[-1]
        elif reference.threshold is not None:
            gate = reference.threshold.double().clamp(min=0)
        on = torch.zeros(pre.shape[1], dtype=torch.bool)
        on[indices] = True
        noise = 1e-5 * scale[row]
        wrong = (on != (pre[row] >= gate)) & ((pre[row] - gate).abs() > noise)
        if reference.k is not None:
            wrong &= ~(on & (pre[row] <= 0))
        assert not wrong.any(), f"row {row}: features differ at {wrong.nonzero().flatten().tolist()}"
        found = torch.tensor(values, dtype=torch.float64)
        error = (found - pre[row][indices]).abs()
        assert (error <= noise[indices] + 1e-6 * found.abs()).all(), f"row {row}: values differ"
        count += len(indices)
    return count / len(rows)


def threads_of(model, library, count, rows):
    """libsae on `count` threads: the rows are split, each thread has its own scratch."""
    import threading

    import libsae

    parts = [rows[i * len(rows) // count : (i + 1) * len(rows) // count] for i in range(count)]
    workers = [libsae.Model(library, None, share=model).ready(len(part)) for part in parts]
    inputs = [libsae.Model.rows(part) for part in parts]
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(count)

    def call(_):
        list(pool.map(lambda pair: pair[0].encode(pair[1]), zip(workers, inputs)))

    return call


def encode_calls(name, folder, n_rows, threads, options, record):
    import numpy as np
    import torch

    import libsae

    torch.set_num_threads(threads)
    library = libsae.Library(options.library)
    reference = Reference(folder)
    all_rows = np.load(folder / "rows.npy")
    all_rows = np.concatenate([all_rows] * -(-512 // len(all_rows)))[:512]
    calls, notes = {}, {}
    for screen in ["proven", "dithered"]:
        model = libsae.Model(library, folder, screen=screen)
        start = time.perf_counter()
        model.prepare()
        prepared = time.perf_counter() - start
        model.ready(512)
        firing = check(model, reference, all_rows[:16])
        about = model.describe().get("screen", {})
        notes[f"libsae {screen}"] = (
            f"{firing:.0f} fire; screen: {about.get('text', '')}; prepared in {prepared:.1f} s"
        )
        if n_rows == 1:
            if threads > 1:
                continue
            inputs = [model.encoder(model.rows(all_rows[i : i + 1])) for i in range(512)]
            calls[f"libsae {screen}"] = lambda i, r=inputs: r[i % 512]()
        elif threads == 1:
            one = model.encoder(model.rows(all_rows))
            calls[f"libsae {screen}"] = lambda i, one=one: one()
        else:
            calls[f"libsae {screen}"] = threads_of(model, library, threads, all_rows)
        if n_rows > 1:
            break
    big = reference.w_enc.numel() > 2e8
    for dtype in [torch.float32, torch.bfloat16]:
        for by_feature in [False, True]:
            encode = reference.encoder(dtype, by_feature)
            label = f"PyTorch {'f32' if dtype == torch.float32 else 'bf16'}"
            label += " rows" if by_feature else " columns"
            x = torch.from_numpy(all_rows).to(dtype)
            if dtype == torch.float32 and n_rows == 1 and not by_feature:
                agree(encode, reference, all_rows[:4])
            pick = (lambda i, x=x: x[i % 512 : i % 512 + 1]) if n_rows == 1 else (lambda i, x=x: x)
            calls[label] = lambda i, f=encode, pick=pick: f(pick(i))
            if big:
                # One copy of a matrix of this size at a time.
                with torch.inference_mode():
                    record(rounds({label: calls.pop(label)}, options.seconds), notes)
                del encode
    if reference.centred:
        rows_in = all_rows - reference.b_dec.float().numpy()
    else:
        rows_in = all_rows
    rows_in = np.ascontiguousarray(rows_in, np.float32)
    if not big:
        weights = np.ascontiguousarray(reference.w_enc.float().numpy().T)
        calls.update(faiss_calls(weights, rows_in, n_rows, threads))
        calls.update(ggml_calls(weights, rows_in, n_rows, threads, options, notes))
    with torch.inference_mode():
        record(rounds(calls, options.seconds * (1 if n_rows == 1 else 2)), notes)


def agree(encode, reference, rows):
    """PyTorch's f32 answer is the model's, within its own rounding."""
    torch = reference.torch
    found = encode(torch.from_numpy(rows))
    pre, scale = reference.exact(rows)
    if reference.k is not None:
        values = found.values.double()
        error = (values - torch.topk(pre, reference.k).values).abs().max()
    else:
        on = found != 0
        error = ((found.double() - pre).abs() * on).max()
    assert error <= 1e-4 * scale.max(), f"PyTorch is off by {error}"


def faiss_calls(weights, rows, n_rows, threads):
    """The k best inner products: exact (flat) and over 8-bit codes; biases are left out."""
    import faiss

    faiss.omp_set_num_threads(threads)
    flat = faiss.IndexFlatIP(weights.shape[1])
    flat.add(weights)
    coded = faiss.IndexScalarQuantizer(
        weights.shape[1], faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    )
    coded.train(weights)
    coded.add(weights)
    best = flat.search(rows[:1], 8)[1][0]
    truth = (weights.astype("f8") @ rows[0].astype("f8")).argsort()[::-1][:8]
    assert set(best) == set(truth), "FAISS finds other features"
    pick = (lambda i: rows[i % 512 : i % 512 + 1]) if n_rows == 1 else (lambda i: rows)
    return {
        "FAISS flat": lambda i: flat.search(pick(i), FIRING),
        "FAISS SQ8": lambda i: coded.search(pick(i), FIRING),
    }


def ggml_calls(weights, rows, n_rows, threads, options, notes):
    """Products alone, approximate: no bias, no selection."""
    if not options.ggml:
        return {}
    import numpy as np

    from ggml import Ggml

    try:
        library = Ggml(options.ggml)
    except (FileNotFoundError, OSError) as error:
        notes["ggml"] = f"none: {error}"
        return {}
    if weights.shape[1] % 32:
        return {}
    calls = {}
    for kind, tolerance in [("F16", 0.01), ("Q8_0", 0.05), ("Q4_0", 0.5)]:
        run = library.product(kind, weights, n_rows)
        found = run(np.ascontiguousarray(rows[:n_rows]), threads)[0]
        truth = weights @ rows[0]
        assert np.abs(found - truth).max() <= tolerance * np.abs(truth).max(), kind
        pick = (lambda i: rows[i % 512 : i % 512 + 1]) if n_rows == 1 else (lambda i: rows)
        calls[f"ggml {kind}"] = lambda i, run=run, pick=pick: run(pick(i), threads)
    return calls


def decode_calls(name, folder, threads, options, record):
    import numpy as np
    import torch

    import libsae

    torch.set_num_threads(threads)
    library = libsae.Library(options.library)
    reference = Reference(folder)
    model = libsae.Model(library, folder).ready(1)
    d_sae, d_in = reference.w_dec.shape
    random = np.random.default_rng(1)
    picks = [np.sort(random.choice(d_sae, FIRING, replace=False)) for _ in range(256)]
    values = random.uniform(1, 20, FIRING).astype(np.float32)
    out = np.empty(d_in, np.float32)
    handles = []
    for pick in picks:
        one = libsae.Model(library, None, share=model).ready(1)
        one.set_row(pick, values)
        handles.append(one)
    handles[0].decode(out)
    truth = reference.w_dec[picks[0]].double().T @ torch.from_numpy(values).double()
    truth = (truth + reference.b_dec.double()).numpy()
    assert np.abs(out - truth).max() <= 1e-5 * np.abs(truth).max(), "reconstructions differ"
    decoders = [handle.decoder(out) for handle in handles]
    calls = {"libsae": lambda i: decoders[i % 256]()}
    for dtype, label in [(torch.float32, "f32"), (torch.bfloat16, "bf16")]:
        w, b = reference.w_dec.to(dtype), reference.b_dec.to(dtype)
        indices = [torch.from_numpy(pick)[None] for pick in picks]
        weights = torch.from_numpy(values)[None].to(dtype)

        def bag(i, w=w, b=b, indices=indices, weights=weights):
            bagged = torch.nn.functional.embedding_bag(
                indices[i % 256], w, per_sample_weights=weights, mode="sum"
            )
            return bagged + b

        error = (bag(0)[0].double().numpy() - truth) / np.abs(truth).max()
        assert np.abs(error).max() <= (1e-5 if label == "f32" else 0.05)
        calls[f"PyTorch embedding_bag {label}"] = bag
    with torch.inference_mode():
        record(rounds(calls, options.seconds), {})


def steer_calls(name, folder, threads, options, record):
    """One feature scaled by 2, error kept: y' = y + f d. PyTorch has no shortcut: its users run
    encode and decode and add the error, or, if they know that only one feature changes, one
    product with its encoder column and one row of the decoder."""
    import numpy as np
    import torch

    import libsae

    torch.set_num_threads(threads)
    library = libsae.Library(options.library)
    reference = Reference(folder)
    if reference.k is not None:
        return  # Needs a whole encode: the features compete.
    model = libsae.Model(library, folder).ready(1)
    rows = np.load(folder / "rows.npy")[:64].copy()
    model.encode(model.rows(rows[:1]))
    feature = model.found()[0][0][0]
    plan = model.plan(
        json.dumps({"edits": [{"feature": feature, "rule": "scale", "strength": 2}]})
    )
    value = model.found()[0][1][0]
    work = rows.copy()
    single = [model.rows(work[i : i + 1]) for i in range(len(work))]
    steerers = [model.steerer(plan, row) for row in single]
    model.steer(plan, single[0])
    truth = rows[0] + value * reference.w_dec[feature].float().numpy()
    assert np.abs(work[0] - truth).max() <= 1e-5 * np.abs(truth).max(), "steered rows differ"
    work[0] = rows[0]
    w_enc, w_dec = reference.w_enc.float(), reference.w_dec.float()
    b_enc, b_dec = reference.b_enc.float(), reference.b_dec.float()
    threshold = reference.threshold
    threshold = torch.zeros(len(b_enc)) if threshold is None else threshold.float()
    xs = torch.from_numpy(rows)

    def whole(i):
        x = xs[i % 64 : i % 64 + 1]
        pre = torch.addmm(b_enc, x - b_dec if reference.centred else x, w_enc)
        acts = torch.where(pre > threshold, pre, 0)
        error = x - (acts @ w_dec + b_dec)
        acts[:, feature] *= 2
        return acts @ w_dec + b_dec + error

    column, row = w_enc[:, feature].contiguous(), w_dec[feature]
    bias, gate = b_enc[feature], threshold[feature]

    def two_rows(i):
        x = xs[i % 64]
        pre = torch.dot(x - b_dec if reference.centred else x, column) + bias
        return x + torch.where(pre > gate, pre, 0) * row

    assert np.abs(whole(0)[0].numpy() - truth).max() <= 1e-3 * np.abs(truth).max()
    assert np.abs(two_rows(0).numpy() - truth).max() <= 1e-4 * np.abs(truth).max()
    calls = {
        # The rows grow as they are steered again and again; the work does not depend on values.
        "libsae": lambda i: steerers[i % 64](),
        "PyTorch encode and decode": whole,
        "PyTorch two rows": two_rows,
    }
    with torch.inference_mode():
        record(rounds(calls, options.seconds), {})


CHILD = """
import sys, time, json, os
sys.path.insert(0, {here!r})
start = time.perf_counter()
{imports}
imported = time.perf_counter()
{load}
loaded = time.perf_counter()
{use}
used = time.perf_counter()
status = dict(l.split(":", 1) for l in open("/proc/self/status") if ":" in l)
kb = lambda key: int(status[key].split()[0])
print(json.dumps({{"import": imported - start, "load": loaded - imported, "use": used - loaded,
    "resident": kb("VmRSS") / 1024, "private": kb("RssAnon") / 1024}}))
"""


def load_times(name, folder, options, record):
    """A fresh process each: import, load, one row; resident memory afterwards."""
    rows = f"rows = np.load({str(folder / 'rows.npy')!r})[:1].copy()"
    ours = (
        "import numpy as np, libsae",
        f"model = libsae.Model(libsae.Library({str(options.library)!r}), {str(folder)!r}).ready(1)",
        f"{rows}; model.encode(model.rows(rows))",
    )
    prepared = (ours[0], ours[1].replace(".ready(1)", ".prepare().ready(1)"), ours[2])
    theirs = (
        "import numpy as np, torch; from safetensors.torch import load_file",
        f"t = load_file({str(folder / 'sae_weights.safetensors')!r})",
        f"{rows}; x = torch.from_numpy(rows).to(t['W_enc'].dtype); y = x @ t['W_enc'] + t['b_enc']",
    )
    times, notes = {}, {}
    for label, (imports, load, use) in {
        "libsae mapped": ours,
        "libsae prepared": prepared,
        "PyTorch safetensors": theirs,
    }.items():
        best = None
        for _ in range(1 if label == "libsae prepared" else 3):
            code = CHILD.format(here=str(HERE), imports=imports, load=load, use=use)
            found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
            found = json.loads(found.stdout)
            if best is None or found["load"] < best["load"]:
                best = found
        times[label] = (best["load"], best["load"], best["load"], 3)
        notes[label] = (
            f"import {best['import']:.2f} s, first row {best['use'] * 1e3:.1f} ms, "
            f"resident {best['resident']:.0f} MB, of it private {best['private']:.0f} MB"
        )
    record(times, notes)


def child(options):
    """Measures one kind of work on one model; prints a JSON line for each result."""
    folder = make(options.model[0])
    work, threads = options.work[0], options.threads[0]

    def record(times, notes):
        for who, (median, best, first, count) in times.items():
            line = {"who": who, "median": median, "best": best, "first": first, "calls": count}
            print(json.dumps(line | {"note": notes.get(who, "")}), flush=True)
        for who in notes.keys() - times.keys():
            if who == "ggml":
                print(f"ggml: {notes[who]}", file=sys.stderr)

    match work:
        case "encode1":
            encode_calls(options.model[0], folder, 1, threads, options, record)
        case "encode512":
            encode_calls(options.model[0], folder, 512, threads, options, record)
        case "decode":
            decode_calls(options.model[0], folder, threads, options, record)
        case "steer":
            steer_calls(options.model[0], folder, threads, options, record)
        case "load":
            load_times(options.model[0], folder, options, record)


def bandwidth():
    """What one thread reads, in GB/s: the sum of 256 MB of f32."""
    import torch

    torch.set_num_threads(1)
    values = torch.ones(64 << 20)
    times = []
    for _ in range(7):
        start = time.perf_counter()
        values.sum()
        times.append(time.perf_counter() - start)
    return 0.268435456 / min(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", nargs="+", help="of: " + ", ".join(["minilm-batchtopk", "..."]))
    parser.add_argument("--work", nargs="+", choices=WORKS, default=WORKS)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--seconds", type=float, default=4.0, help="for each group of calls")
    parser.add_argument("--library", type=Path, default=ROOT / "target/release/libsae.so")
    parser.add_argument("--ggml", type=Path, default=WORK / "ggml", help="where ggml was built")
    parser.add_argument("--record", type=Path, help="the CSV to append to")
    parser.add_argument("--only-make", action="store_true", help="make the models, measure nothing")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return child(options)
    options.model = options.model or names()
    for name in options.model:
        make(name)
    if options.only_make:
        return None
    today = datetime.date.today().isoformat()
    machine = f"{cpu()}, {os.cpu_count()} CPUs"
    record = options.record or ROOT / "benches" / "records" / "peers.csv"
    record.parent.mkdir(exist_ok=True)
    fresh = not record.exists()
    speed = bandwidth()
    print(f"{machine}; load {os.getloadavg()[0]:.1f}; {today}; one thread reads {speed:.0f} GB/s")
    with open(record, "a", newline="") as file:
        out = csv.writer(file)
        if fresh:
            out.writerow(
                "date machine load GB/s model work threads who median_s best_s cold_s calls ratio"
                " note".split()
            )
        for name in options.model:
            for work in options.work:
                for threads in options.threads if work.startswith("encode") else [1]:
                    measure(name, work, threads, options, (today, machine, speed), out)
                    file.flush()
    print(f"saved in {record}")
    return None


def measure(name, work, threads, options, about, out):
    command = [sys.executable, __file__, "--child", "--model", name, "--work", work]
    command += ["--threads", str(threads), "--seconds", str(options.seconds)]
    command += ["--library", str(options.library), "--ggml", str(options.ggml)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    load = os.getloadavg()[0]
    found = subprocess.run(command, stdout=subprocess.PIPE, env=environment, text=True)
    if found.returncode:
        print(f"{name} {work} {threads}: failed", file=sys.stderr)
        sys.exit(1)
    lines = [json.loads(line) for line in found.stdout.splitlines() if line.startswith("{")]
    ours = [line["median"] for line in lines if line["who"].startswith("libsae")]
    if not lines:
        return
    print(f"\n{name}, {work}, {threads} thread{'s' * (threads > 1)} (load {load:.1f})")
    for line in lines:
        ratio = line["median"] / ours[0] if ours else float("nan")
        print(
            f"  {line['who']:<28}{line['median'] * 1e6:>12.1f} us  best {line['best'] * 1e6:>10.1f}"
            f"  cold {line['first'] * 1e6:>10.1f}  {ratio:6.2f}x  {line['note']}"
        )
        date, machine, speed = about
        out.writerow(
            [date, machine, f"{load:.1f}", f"{speed:.0f}", name, work, threads, line["who"]]
            + [f"{line[key]:.3e}" for key in ["median", "best", "first"]]
            + [line["calls"]]
            + [f"{ratio:.2f}", line["note"]]
        )


if __name__ == "__main__":
    main()
