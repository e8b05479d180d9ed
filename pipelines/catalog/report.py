"""The report: one self-contained page with pairs, a before/after sheet, failures and settings."""

import base64
import io
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from infra import store
from infra.errors import EditTransferError
from pipelines import codec
from pipelines.catalog import figures
from pipelines.catalog.chart import HEIGHT, WIDTH, chart
from pipelines.catalog.figures import Figures, Totals
from pipelines.catalog.summary import FAILURES, Summary

if TYPE_CHECKING:
    from pipelines.catalog.job import Prepared
    from pipelines.catalog.options import Options

SHEET = 60  # images that are shown at most
WORST = 24  # of them, where there are more
SIDE = 420  # pixels of the longer side of a thumbnail
SMALL = 128  # up to this side, pictures are shown enlarged, and JPEG's blocks would show
AT_ONCE = 4  # pictures that are decoded at the same time


@dataclass(frozen=True)
class Tile:
    """One edited image of a sheet; pictures are (what it is, data URI), the URI None where the file is gone.

    own  whether its row brought a pair, which then comes first
    """

    name: str
    pictures: Sequence[tuple[str, str | None]]
    own: bool
    width: int
    height: int
    change: float | None
    kept: float | None


@dataclass(frozen=True)
class Sheet:
    """Some edited images, and a sentence on how they were chosen, None where they are all there are."""

    heading: str
    caption: str | None
    tiles: list[Tile]


def write(prepared: "Prepared", options: "Options", summary: Summary) -> None:
    """Write `report.html`, and the failures beside it, from the manifest's rows of what was listed for this job.

    What earlier runs did is in it too. Memory is bounded, whatever the number of images.
    """
    with figures.opened(prepared.manifest, prepared.feed.folder or "") as found:
        totals = found.totals()
        if totals.failed:
            found.write_failures(summary.failures)
        throughput = found.throughput(summary.job_id)
        page = _environment().get_template("report.html.j2").render(
            pairs=[tuple(_thumbnail(image) for image in pair) for pair in prepared.feed.edits.pairs],
            sheets=_sheets(found, totals),
            groups=found.failures(),
            failures_file=FAILURES,
            totals=totals,
            waiting=totals.listed - totals.done - totals.failed,
            chart=throughput and chart(throughput),
            width=WIDTH,
            height=HEIGHT,
            summary=summary,
            settings=_settings(prepared, options, summary),
            at=datetime.now(UTC),
        )  # fmt: skip
    store.write(summary.report, page.encode())
    if not totals.failed:
        store.delete(summary.failures)


def _sheets(found: Figures, totals: Totals) -> list[Sheet]:
    """All images where they fit; else the ones that stand out, which are often the bad ones, and some of the rest."""
    if totals.done <= SHEET:
        return [Sheet("Results", None, _tiles(found.all()))] if totals.done else []
    worst = found.worst(totals.median, WORST)
    others = found.others(worst, SHEET - len(worst))
    sample = f"{len(others)} of the {'other ' if worst else ''}{totals.done - len(worst):,} images, chosen at random."
    sheets = [Sheet("Sample", sample, _tiles(others))]
    if worst:
        caption = f"The {len(worst)} of {totals.done:,} images whose change is furthest from the median, which is"
        sheets.insert(0, Sheet("To look at first", f"{caption} {share(totals.median)}.", _tiles(worst)))
    return sheets


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("pipelines.catalog", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["duration"] = duration
    environment.filters["share"] = share
    environment.filters["number"] = number
    return environment


def duration(seconds: float) -> str:
    """Seconds as people say them: `0.4 s`, `2 min 5 s`, `3 h 20 min`."""
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def share(part: float | None) -> str:
    """A part of one in per cent, with a decimal where it would be nothing without: `34 %`, `0.3 %`."""
    return "?" if part is None else f"{part * 100:.{1 if 0 < part < 0.0095 else 0}f} %"


def number(value: float) -> str:
    """Three digits that count, or all of a larger number: `0.125`, `3.5`, `1,234`."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _settings(prepared: "Prepared", options: "Options", summary: Summary) -> dict[str, Any]:
    recipe = asdict(prepared.recipe)
    shown = {name: recipe[name] for name in ("base", "attention", "steps", "seed", "max_area")}
    return shown | {
        "adapter": " + ".join(each.told for each in prepared.worn) or "none",
        "input": options.input,
        "output": prepared.output,
        "format": recipe["format"] or "as the input",
        "resolution": "restored, with the untouched pixels of the input" if recipe["restore"] else "enlarged",
        "base revision": recipe["revision"][:12],
        "recipe": prepared.recipe.digest()[:12],
        "job": summary.job_id,
        "workers": summary.workers or "none were needed",
    }


def _tiles(rows: Sequence[dict[str, Any]]) -> list[Tile]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(_tile, rows))


def _tile(row: dict[str, Any]) -> Tile:
    own = bool(row["before"] and row["after"])
    shown = {"before": row["before"], "after": row["after"]} if own else {}
    shown |= {"query": row["uri"], "result": row["result_uri"]}
    pictures = [(word, _stored_thumbnail(uri)) for word, uri in shown.items()]
    return Tile(row["relative_path"], pictures, own, row["width"], row["height"], row["change"], row["kept"])


def _stored_thumbnail(uri: str) -> str | None:
    try:
        photo = codec.decode(store.read(uri), sys.maxsize, around=SIDE)
    except EditTransferError:
        return None
    if photo.alpha is None:
        return _thumbnail(photo.image)
    paper = Image.new("RGB", photo.image.size, "white")
    return _thumbnail(Image.composite(photo.image, paper, photo.alpha))


def _thumbnail(image: Image.Image) -> str:
    small = image.copy()
    small.thumbnail((SIDE, SIDE))
    kind = "png" if max(small.size) <= SMALL else "jpeg"
    buffer = io.BytesIO()
    small.save(buffer, kind, quality=85)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
