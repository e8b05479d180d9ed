"""The manifest says on what every result was made, and a job goes on on another kind of machine."""

import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from pipelines.transfer import Editor
from tests.pipelines.catalog.test_apply import apply, counts, rows_of  # noqa: F401


@pytest.fixture
def photos(tmp_path, scene):
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(3):
        scene(seed).save(folder / f"{seed}.png")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


def test_results_say_what_they_were_made_on_and_those_of_another_machine_stay(apply, photos, tmp_path, tiny_base):  # noqa: F811
    output = tmp_path / "out"
    assert counts(apply(photos, output)) == (4, 3, 0, 1)
    told = {name: row["numerics"] for name, row in rows_of(output).items()}
    assert told == dict.fromkeys(["0.png", "1.png", "2.png"], Editor.load(tiny_base).numerics) | {"broken.png": None}
    elsewhere(output)
    assert counts(apply(photos, output)) == (4, 0, 3, 1)
    assert {row["numerics"] for row in rows_of(output).values()} == {"another machine", None}
    for part in ds.dataset(output / "manifest").files:  # from before there was this column
        pq.write_table(pq.read_table(part).drop_columns(["numerics"]), part)
    assert counts(apply(photos, output)) == (4, 0, 3, 1)


def elsewhere(output):
    """As if all results came from there."""
    for part in ds.dataset(output / "manifest").files:
        table = pq.read_table(part)
        made = pc.if_else(pc.is_valid(table["numerics"]), "another machine", None)
        pq.write_table(table.set_column(table.schema.get_field_index("numerics"), "numerics", made), part)
