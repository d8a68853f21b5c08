#!/usr/bin/env python3
"""Fills tests/fuzz/work with first inputs made of the fixtures: pickles taken out of their
archives, model files with their configs in front, gzip around small files, YAML side-cars,
explanation exports.
`run` adds the hostile files themselves."""

import gzip
import pathlib
import zipfile

FUZZ = pathlib.Path(__file__).resolve().parent
DATA = FUZZ.parent / "data"
NAMES = {"sae_weights.safetensors": 0, "params.npz": 1, "params.safetensors": 2, "final.safetensors": 3}


def put(target, name, data):
    folder = FUZZ / "work" / target
    folder.mkdir(parents=True, exist_ok=True)
    if len(data) <= 16384:
        (folder / name).write_bytes(data)


for file in sorted((DATA / "hostile").glob("*/*.pt")):
    case = file.parent.name
    try:
        with zipfile.ZipFile(file) as archive:
            (name,) = [name for name in archive.namelist() if name.endswith("data.pkl")]
            put("torch", case, archive.read(name))
    except zipfile.BadZipFile:
        pass
for file in sorted((DATA / "hostile").glob("*/*.npz")):
    data = file.read_bytes()
    at = data.find(b"\x93NUMPY")
    put("npy", file.parent.name, data[at : at + 3200])
for case in ["st_odd_offsets", "torch_legacy_stream", "npz_deflate"]:
    files = (DATA / "hostile" / case).iterdir()
    (file,) = [f for f in files if f.name in ("sae_weights.safetensors", "ae.pt", "params.npz")]
    put("gzip", case, gzip.compress(file.read_bytes(), mtime=0))
for number, file in enumerate(sorted(DATA.glob("**/*.yaml"))):
    put("yaml", f"{number}", file.read_bytes())
for folder in sorted((DATA / "hostile").iterdir()):
    for file in sorted(folder.iterdir()):
        index = 4 if file.suffix == ".pt" else NAMES.get(file.name)
        if index is None or folder.name.startswith("pickle"):
            continue
        configs = [f for f in folder.iterdir() if f.name in ("cfg.json", "config.json")]
        config = configs[0].read_bytes() if configs else b""
        head = bytes([index]) + len(config).to_bytes(2, "little")
        put("open", folder.name, head + config + file.read_bytes())

LINE = (
    '{"id": "c", "modelId": "gpt2-small", "layer": "6-res-jb", "index": "%d", "authorId": "a",'
    ' "description": "%s", "embedding": "[0.01,-0.02]", "typeName": "oai_token-act-pair",'
    ' "explanationModelName": "gpt-4o-mini", "umap_x": 1.5, "umap_cluster": null}'
)
lines = [LINE % (7, "days \\u00fc"), LINE % (204, "time"), LINE % (204, "dates")]
observed = (
    '{"modelId": "g", "layer": "6-res", "index": "%d", "maxActApprox": %s, "frac_nonzero": 0.01,'
    ' "freq_hist_data_bar_heights": [3, 1], "freq_hist_data_bar_values": [0.5, 1.5]}'
)
feature = '{"modelId": "g", "layer": "6-res", "index": %s, "explanations": [{"description": "a"}]}'
for name, text in {
    "lines": "\n".join(lines),
    "list": "[%s]" % ",".join(lines),
    "export": '{"modelId":"gpt2-small","saeId":"6-res-jb","explanations":[%s]}' % ",".join(lines),
    "features": feature % '"5"' + "\n" + feature % 6,
    "observed": observed % (3, 22.5) + "\n" + observed % (4, "null"),
    "late": '{"explanations": [{"description": "a"}, {"index": 5, "description": null}], "index": 5}',
}.items():
    put("labels", name, text.encode())
    put("labels", name + ".gz", gzip.compress(text.encode(), mtime=0))
for file in sorted((FUZZ.parent.parent / "docs" / "rules").glob("*.json")):
    put("rules", file.stem, file.read_bytes())
