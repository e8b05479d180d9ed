"""The plot and the table of `pairs.py`: `python -m tests.benchmarks.plot FILE.jsonl PICTURE.png`."""

import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from tests.benchmarks.pairs import rows_of

COLOURS = "#0b6e4f", "#b5541c", "#3a5ba0"
INK = "#333333"
SCORES = (("recovered", 100, "edit recovered, %"), ("changed", 1, "changed region, PSNR in dB"))


def main(source: Path, picture: Path) -> None:
    """Recovered and changed-region PSNR over the number of pairs: a colour for each family, a thin line for each seed
    (that is, each edit), their mean thick, the base alone dashed. Prints the table."""
    rows = rows_of(source)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for axis, (key, scale, title) in zip(axes, SCORES, strict=True):
        for family, colour in zip(dict.fromkeys(row["family"] for row in rows), COLOURS, strict=False):
            _lines(axis, [row for row in rows if row["family"] == family], key, scale, colour)
        counts = sorted({row["pairs"] for row in rows})
        axis.set(xscale="log", xticks=counts, xlabel="pairs trained on", title=title)
        axis.set_xticks([], minor=True)
        axis.set_xticklabels(counts)
        axis.spines[["top", "right"]].set_visible(False)
        axis.title.set(color=INK, fontsize=10)
    axes[0].set_ylim(0, 100)
    axes[0].legend(frameon=False, loc="best", fontsize=8)
    figure.savefig(picture, dpi=110)
    print(table(rows))


def _lines(axis: Axes, rows: list[dict[str, Any]], key: str, scale: float, colour: str) -> None:
    for seed in sorted({row["seed"] for row in rows}):
        found = sorted((row for row in rows if row["seed"] == seed), key=lambda row: row["pairs"])
        points = [row["pairs"] for row in found], [row["worn"][key] * scale for row in found]
        axis.plot(*points, color=colour, lw=0.8, alpha=0.6, marker="os^"[seed % 3], ms=4)
    counts = sorted({row["pairs"] for row in rows})
    means = [fmean(row["worn"][key] * scale for row in rows if row["pairs"] == count) for count in counts]
    axis.plot(counts, means, color=colour, lw=2, label=rows[0]["family"])
    alone = {row["seed"]: row["alone"][key] * scale for row in rows}
    label = f"{rows[0]['family']}, base alone"
    axis.axhline(fmean(alone.values()), color=colour, lw=1, ls="--", label=label)


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, a line for each training."""
    lines = [
        "| family | pairs | seed | recovered, base alone | with adapter | changed region dB, alone | with adapter |"
        " old, mean (largest loss) | CPU s |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in sorted(rows, key=lambda row: (row["family"], row["seed"], row["pairs"])):
        alone, worn = row["alone"], row["worn"]
        lines.append(
            f"| {row['family']} | {row['pairs']} | {row['seed']} | {alone['recovered']:.0%} | {worn['recovered']:.0%} |"
            f" {alone['changed']:.1f} | {worn['changed']:.1f} | {_old(row)} | {row['cpu_seconds']:.0f} |"
        )
    return "\n".join(lines)


def _old(row: dict[str, Any]) -> str:
    """What the base recovers of its own families, with the adapter less without, in points."""
    gained = {
        name: 100 * (scores["recovered"] - row["old_alone"][name]["recovered"]) for name, scores in row["old"].items()
    }
    if not gained:
        return ""
    worst = min(gained, key=gained.__getitem__)
    return f"{fmean(gained.values()):+.1f} ({worst} {gained[worst]:+.0f})"


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
