"""The report: one self-contained page with pairs, a before/after sheet, failures and settings."""

import base64
import io
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from infra import store
from infra.errors import EditTransferError
from pipelines import codec
from pipelines.catalog import manifest, parts

if TYPE_CHECKING:
    from pipelines.catalog.job import Options, Prepared, Summary

SHEET = 60
SIDE = 420  # pixels of the longer side of a thumbnail
SMALL = 128  # up to this side, pictures are shown enlarged, and JPEG's blocks would show


@dataclass(frozen=True)
class Tile:
    """One edited image of the sheet; pictures are data URIs, None where the file is gone."""

    name: str
    query: str | None
    result: str | None
    width: int
    height: int
    change: float


def write(prepared: "Prepared", options: "Options", summary: "Summary") -> None:
    """Write `report.html` from the manifest's rows: the whole catalog, not just the last run."""
    rows, listed = _rows(prepared)
    done = rows.filter(pc.equal(rows["status"], manifest.DONE))
    failures = rows.filter(pc.equal(rows["status"], manifest.FAILED))
    page = _environment().get_template("report.html.j2").render(
        pairs=[tuple(_thumbnail(image) for image in pair) for pair in prepared.feed.edits.pairs],
        tiles=_tiles(done),
        failures=failures.select(["relative_path", "error_code", "error"]).to_pylist(),
        total=listed,
        done=len(done),
        waiting=listed - len(rows),
        change=pc.mean(pc.map_lookup(done["scores"], "change", "first")).as_py(),
        seconds_per_image=pc.mean(done["seconds"]).as_py(),
        summary=summary,
        settings=_settings(prepared, options),
        at=datetime.now(UTC),
    )  # fmt: skip
    store.write(summary.report, page.encode())


def _rows(prepared: "Prepared") -> tuple[pa.Table, int]:
    with manifest.opened(prepared.manifest, manifest.parts(prepared.manifest)) as connection:
        connection.register("listed", parts.dataset(prepared.feed.folder or ""))
        rows = connection.sql(
            "SELECT newest.* FROM newest SEMI JOIN listed USING (uri) ORDER BY relative_path"
        ).to_arrow_table()
        count = connection.sql("SELECT count(*) FROM listed").fetchall()[0][0]
    return rows.cast(manifest.SCHEMA), count


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("pipelines.catalog", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["duration"] = duration
    return environment


def duration(seconds: float) -> str:
    """Seconds as people say them: `0.4 s`, `2 min 5 s`, `3 h 20 min`."""
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _settings(prepared: "Prepared", options: "Options") -> dict[str, Any]:
    recipe = asdict(prepared.recipe)
    shown = {name: recipe[name] for name in ("base", "attention", "steps", "seed", "max_area")}
    return shown | {
        "adapter": " + ".join(each.told for each in prepared.worn) or "none",
        "input": options.input,
        "output": prepared.output,
        "format": recipe["format"] or "as the input",
        "base revision": recipe["revision"][:12],
        "recipe": prepared.recipe.digest()[:12],
    }


def _tiles(done: pa.Table) -> list[Tile]:
    """Thumbnails of images from all over the catalog, at even distances."""
    count = min(SHEET, len(done))
    chosen = done.take(pa.array([index * len(done) // count for index in range(count)], pa.int64()))
    with ThreadPoolExecutor(max_workers=4) as pool:
        return list(pool.map(_tile, chosen.to_pylist()))


def _tile(row: dict[str, Any]) -> Tile:
    change = dict(row["scores"] or ()).get("change", 0.0)
    query, result = _stored_thumbnail(row["uri"]), _stored_thumbnail(row["result_uri"])
    return Tile(row["relative_path"], query, result, row["width"], row["height"], change)


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
