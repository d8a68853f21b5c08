"""Draws benches/records/peers.csv: for each work and model, every library's median time as a
multiple of libsae's, as benches/records/peers.svg."""

import csv
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

RECORDS = Path(__file__).resolve().parent.parent / "records"
WORKS = {
    "encode1": "encode one row, one thread",
    "encode512": "encode 512 rows, one thread",
    "decode": "decode 64 features, one thread",
}
COLOURS = {"PyTorch f32": "#c0504d", "PyTorch bf16": "#e59a8f", "FAISS flat": "#7f7f7f",
           "FAISS SQ8": "#bfbfbf", "ggml F16": "#31859c", "ggml Q8_0": "#5fb1c9",
           "ggml Q4_0": "#a5d6e3", "libsae dithered": "#9bbb59"}


def best_of(rows):
    """The faster of both weight layouts under one name."""
    found = {}
    for row in rows:
        who = row["who"].removesuffix(" rows").removesuffix(" columns")
        who = who.replace("embedding_bag ", "")
        found[who] = min(found.get(who, float("inf")), float(row["median_s"]))
    return found


def main():
    with open(RECORDS / "peers.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["threads"] == "1"]
    # The newest record of each line stands.
    newest = {(r["model"], r["work"], r["who"]): r for r in rows}
    models = list(dict.fromkeys(r["model"] for r in rows))
    works = {work: title for work, title in WORKS.items() if any(r["work"] == work for r in rows)}
    size = (5 * len(works) + 1, 0.7 * len(models) + 3)
    figure, axes = plt.subplots(1, len(works), figsize=size, sharey=True, squeeze=False)
    axes = axes[0]
    for axis, (work, title) in zip(axes, works.items()):
        for y, model in enumerate(models):
            times = best_of(r for (m, w, _), r in newest.items() if (m, w) == (model, work))
            ours = times.get("libsae proven", times.get("libsae"))
            if ours is None:
                continue
            others = [who for who in times if who not in ("libsae proven", "libsae")]
            for i, who in enumerate(others):
                height = 0.8 / len(others)
                at = y - 0.4 + height * (i + 0.5)
                ratio = times[who] / ours
                axis.barh(at, ratio, height, color=COLOURS.get(who, "#000000"), label=who)
                axis.text(ratio, at, f" {ratio:.1f}", va="center", fontsize=6)
            axis.text(0.02, y, f"{ours * 1e6:.0f} us ", transform=axis.get_yaxis_transform(),
                      va="center", fontsize=7, fontweight="bold")
        axis.axvline(1, color="#4f6228", linewidth=2)
        axis.set_xlim(0, 1.12 * axis.get_xlim()[1])
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("time / libsae's")
    axes[0].set_yticks(range(len(models)), models)
    axes[0].invert_yaxis()
    handles = {}
    for axis in axes:
        handles |= dict(zip(*reversed(axis.get_legend_handles_labels())))
    figure.legend(handles.values(), handles.keys(), loc="lower center", ncols=8, fontsize=8)
    last = rows[-1] if rows else {}
    figure.suptitle(f"{last.get('machine', '')}, {last.get('date', '')}; the line is libsae "
                    "(exact, proven screen), longer bars are slower", fontsize=10)
    figure.tight_layout(rect=(0, 0.06, 1, 0.97))
    figure.savefig(RECORDS / "peers.svg", metadata={"Date": None})
    print(f"drawn in {RECORDS / 'peers.svg'}")


if __name__ == "__main__":
    main()
