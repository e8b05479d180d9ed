"""The plot of `pairs.py`: `python -m tests.benchmarks.plot FILE.json PICTURE.png`."""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot as plt

MARKERS = "os^vD"
WORN, ALONE, INK = "#0b6e4f", "#9aa0a6", "#333333"


def main(source: Path, picture: Path) -> None:
    """Recovered and changed-region PSNR over the number of pairs: a line for each seed, that is for each edit."""
    rows = json.loads(source.read_text())
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for axis, key, scale, title in (
        (axes[0], "recovered", 100, "edit recovered, %"),
        (axes[1], "changed", 1, "changed region, PSNR in dB"),
    ):
        for seed in sorted({row["seed"] for row in rows}):
            found = sorted((row for row in rows if row["seed"] == seed), key=lambda row: row["pairs"])
            counts = [row["pairs"] for row in found]
            for which, colour, label in (("worn", WORN, "with adapter"), ("alone", ALONE, "base alone")):
                values = [row[which][key] * scale for row in found]
                axis.plot(counts, values, color=colour, label=None if seed else label, marker=MARKERS[seed], ms=4)
        counts = sorted({row["pairs"] for row in rows})
        axis.set(xscale="log", xticks=counts, xlabel="pairs trained on", title=title)
        axis.set_xticks([], minor=True)
        axis.set_xticklabels(counts)
        axis.spines[["top", "right"]].set_visible(False)
        axis.title.set(color=INK, fontsize=10)
    axes[0].set_ylim(0, 100)
    axes[0].legend(frameon=False, loc="upper left")
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
