"""The plot of `pairs.py`: `python -m tests.benchmarks.plot FILE.json PICTURE.png`."""

import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot as plt

WORN, ALONE, INK = "#0b6e4f", "#9aa0a6", "#333333"


def main(source: Path, picture: Path) -> None:
    """Recovered and changed-region PSNR over the number of pairs: every seed a dot, their mean a line."""
    rows = json.loads(source.read_text())
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for axis, key, scale, title in (
        (axes[0], "recovered", 100, "edit recovered, %"),
        (axes[1], "changed", 1, "changed region, PSNR in dB"),
    ):
        for which, colour, label in (("worn", WORN, "with adapter"), ("alone", ALONE, "base alone")):
            found = defaultdict(list)
            for row in rows:
                found[row["pairs"]].append(row[which][key] * scale)
            counts = sorted(found)
            axis.plot(counts, [fmean(found[count]) for count in counts], color=colour, label=label, marker="o", ms=4)
            dots = [(count, value) for count in counts for value in found[count]]
            axis.scatter(*zip(*dots, strict=True), color=colour, s=10, alpha=0.5)
        axis.set(xscale="log", xticks=counts, xlabel="pairs trained on", title=title)
        axis.set_xticks([], minor=True)
        axis.set_xticklabels(counts)
        axis.spines[["top", "right"]].set_visible(False)
        axis.title.set(color=INK, fontsize=10)
    axes[0].set_ylim(0, 100)
    axes[0].legend(frameon=False, loc="lower right")
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
