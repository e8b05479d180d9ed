"""Job, engine and Editor edit the same random images, each in company of its own choice; their pixels are compared.

`python -m tests.company COUNT` prints the number of images that were edited, and one line for each that differs.
"""

import json
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

PAIR = "before.png", "after.png"
TOKENS = range(4, 41)
LARGEST_BATCH = 16


def main(count: int) -> None:
    """Edit so many random images three times."""
    import pyarrow.dataset as ds
    from PIL import Image
    from typer.testing import CliRunner

    from infra.cli import app

    with tempfile.TemporaryDirectory() as place:
        base, photos, output = _base(Path(place, "base")), _photos(Path(place, "photos"), count), Path(place, "out")
        pair = [str(Path(place, name)) for name in PAIR]
        asked = ["apply", "--pair", *pair, "--input", str(photos), "--output", str(output), "--base", str(base)]
        told = CliRunner().invoke(app, [*asked, "--workers", "2", "--batch-size", str(LARGEST_BATCH), "--json"])
        assert told.exit_code == 0, told.stderr
        rows = ds.dataset(output / "manifest").to_table().to_pylist()
        shown = tuple(Image.open(path).convert("RGB") for path in pair)
        queries = [Image.open(row["uri"]).convert("RGB") for row in rows]
        made = [Image.open(row["result_uri"]).convert("RGB").tobytes() for row in rows]
        seeds = [row["seed"] for row in rows]
        print(len(rows))
        for way in (_by_editor, _by_engine):
            for row, query, ours, theirs in zip(rows, queries, way(base, shown, queries, seeds), made, strict=True):
                if ours != theirs:
                    print(f"{way.__name__}: {row['relative_path']} of {query.size} differs")


def _base(folder: Path) -> Path:
    """The bundled base, told to work on as many tokens as there are to be."""
    from pipelines.transfer import bases

    shutil.copytree(bases.BUNDLED, folder)
    file = folder / "edit_transfer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"max_area": TOKENS.stop * 256}))
    return folder


def _photos(folder: Path, count: int) -> Path:
    """Images of sizes that the base works on as they are, and a pair beside their folder."""
    import numpy as np
    from PIL import Image

    draw = random.Random(count)
    shapes = [(rows, columns) for rows in range(1, 7) for columns in range(1, 14) if rows * columns in TOKENS]
    shapes = [shape for shape in shapes if max(shape) <= 4 * min(shape)]
    folder.mkdir()
    for number in range(count):
        rows, columns = draw.choice(shapes)
        corners = np.random.default_rng(number).integers(0, 256, (3, 3, 3), dtype=np.uint8)
        Image.fromarray(corners).resize((16 * columns, 16 * rows)).save(folder / f"{number:04}.png")
    before = Image.open(folder / "0000.png").resize((64, 64))
    before.save(folder.parent / PAIR[0])
    before.point(lambda level: 255 - level).save(folder.parent / PAIR[1])
    return folder


def _by_editor(base: Path, pair, queries: list, seeds: list[int]) -> Iterator[bytes]:
    """In batches of every size, from one to the largest."""
    from pipelines.transfer import Editor

    editor = Editor.load(base)
    prefix, draw, begun = editor.remember([pair]), random.Random(1), 0
    while begun < len(queries):
        editor.batch_size = draw.randint(1, LARGEST_BATCH)
        chunk = slice(begun, begun + draw.randint(1, 3 * LARGEST_BATCH))
        yield from (image.tobytes() for image in editor.edit(queries[chunk], prefix, seeds=seeds[chunk]))
        begun = chunk.stop


def _by_engine(base: Path, pair, queries: list, seeds: list[int]) -> Iterator[bytes]:
    """All at once, on a running batch that requests join and leave."""
    from serving.engine import Engine, Work

    with tempfile.TemporaryDirectory() as cache:
        engine = Engine(str(base), cache, max_batch=LARGEST_BATCH)
        asked = [
            Work(query=query, seed=seed, pairs=(pair,), shown=(PAIR,))
            for query, seed in zip(queries, seeds, strict=True)
        ]
        for future in [engine.submit(work) for work in asked]:
            yield future.result(600).image.tobytes()
        engine.stop()


if __name__ == "__main__":
    main(int(sys.argv[1]))
