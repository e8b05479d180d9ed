"""Parquet tables with the types of pandas, polars, DuckDB and Spark, and damaged ones."""

from datetime import date
from decimal import Decimal
from uuid import UUID

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.catalog import tables
from pipelines.catalog.listing import Own
from tests.pipelines.catalog.listed import TWO, put, refusal, told

BIG = 2**64 - 1
OUT_OF_RANGE = "<value out of range: 2147483647>"
OVERRIDES = {
    "double": (pa.array([7.0, None, float("nan"), 4.5, 2.0**53, 2.0**60]), ["7", None, None, "4.5", str(2**53), None]),
    "float": (pa.array([7.0, None, 16777216.0, 33554432.0], pa.float32()), ["7", None, "16777216", None]),
    "half": (pa.array([np.float16(7), None, np.float16(4096)]), ["7", None, None]),
    "infinite": (pa.array([float("inf"), -7.0]), ["inf", "-7"]),
    "large_string": (pa.array(["7", None], pa.large_string()), ["7", None]),
    "string_view": (pa.array(["7", None], pa.string_view()), ["7", None]),
    "dictionary": (pa.array(["7", None, "7"]).dictionary_encode(), ["7", None, "7"]),
    "numbers in a dictionary": (pa.array([7.0, None, 7.0]).dictionary_encode(), ["7", None, "7"]),
    "int8": (pa.array([-7, None], pa.int8()), ["-7", None]),
    "uint64": (pa.array([BIG, None], pa.uint64()), [str(BIG), None]),
    "decimal": (pa.array([Decimal("7.000"), None, Decimal("7.125")]), ["7", None, "7.125"]),
    "large decimal": (pa.array([Decimal(2**70)], pa.decimal256(60, 10)), [str(2**70)]),
    "bool": (pa.array([True, None]), ["true", None]),
    "null": (pa.nulls(2), [None, None]),
    "date": (pa.array([date(2026, 1, 2), None]), ["2026-01-02", None]),
    "a date that Python does not have": (
        pa.array([2**31 - 1, None], pa.int32()).cast(pa.date32()),
        [OUT_OF_RANGE, None],
    ),
    "a zone that nobody knows": (
        pa.array([0, None], pa.timestamp("us", "No/Where")),
        ["1970-01-01 00:00:00.000000", None],
    ),
    "nanoseconds": (pa.array([1, None], pa.timestamp("ns")), ["1970-01-01 00:00:00.000000001", None]),
    "binary": (pa.array([b"7", None]), ["7", None]),
    "binary_view": (pa.array([b"7", None], pa.binary_view()), ["7", None]),
    "uuid": (pa.array([UUID(int=7).bytes], pa.uuid()), [str(UUID(int=7))]),
}


@pytest.mark.parametrize("column", ["seed", "adapter", "relative_path"])
@pytest.mark.parametrize("kind", OVERRIDES)
def test_an_override_may_have_any_type_that_is_a_text_or_a_number(tmp_path, kind, column):
    values, expected = OVERRIDES[kind]
    uris = [f"{number}.jpg" for number in range(len(values))]
    pq.write_table(pa.table({"uri": uris, column: values}), tmp_path / "t.parquet")
    read = tables.read_table(str(tmp_path / "t.parquet"), ("uri", column), ("uri",))
    told = [None if text and "e+" in text else text for text in read[column]]  # larger than it can be sure of
    assert read["uri"] == uris and told == expected


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("seed", [[7], None], "column `seed` holds list<"),
        ("adapter", [{"name": "lift", "version": 3}, None], "column `adapter` holds struct<"),
        ("relative_path", [[("a", "b")], None], "column `relative_path` holds"),
        ("before", [b"\xff", None], "column `before` holds bytes that are not text"),
        ("uri", [True, False], "column `uri` holds bool, not text"),
        ("uri", [date(2026, 1, 2), None], "column `uri` holds date32"),
    ],
)  # fmt: skip
def test_a_column_that_cannot_be_text_is_named(tmp_path, column, values, said):
    pq.write_table(pa.table({"uri": ["a.jpg", "b.jpg"]} | {column: values}), tmp_path / "t.parquet")
    sentence = refusal(tmp_path / "t.parquet")
    assert said in sentence and "CSV" not in sentence


@pytest.mark.parametrize(
    "type", [pa.large_string(), pa.string_view(), pa.binary(), pa.dictionary(pa.int8(), pa.string())]
)
def test_addresses_may_have_any_type_of_text(tmp_path, type):
    uris = pa.array([b"a.jpg", b"b.jpg"]) if type == pa.binary() else pa.array(["a.jpg", "b.jpg"]).cast(type)
    pq.write_table(pa.table({"URI": uris, "seed": [7, None]}), tmp_path / "t.parquet")
    assert told(tmp_path / "t.parquet") == TWO


def test_what_pandas_and_duckdb_write_is_read(tmp_path):
    frame = pd.DataFrame({"uri": ["a.jpg", "b.jpg"], "seed": [7, None], "adapter": [None, None]})
    nullable = frame.astype({"uri": "category", "seed": "Int64", "adapter": "string"})
    for written in (
        frame,
        nullable,
        frame.set_index("uri"),
        frame.set_index(["uri", "seed"]),
        frame.astype({"adapter": float}),
    ):
        written.to_parquet(tmp_path / "t.parquet")
        assert told(tmp_path / "t.parquet") == TWO
    frame.to_csv(tmp_path / "t.csv")
    assert told(tmp_path / "t.csv") == {"a.jpg": Own(seed="7.0"), "b.jpg": Own()}
    frame.to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    assert told(tmp_path / "t.jsonl") == TWO
    select = "SELECT * FROM (VALUES ('a.jpg'::ENUM ('a.jpg', 'b.jpg'), {}), ('b.jpg', NULL)) AS t(uri, seed)"
    for seed in ("7::HUGEINT", "7::DECIMAL(18, 3)", "7::UTINYINT", "'7'", "7::DOUBLE"):
        duckdb.sql(select.format(seed)).write_parquet(str(tmp_path / "t.parquet"), compression="zstd")
        assert told(tmp_path / "t.parquet") == TWO


@pytest.mark.parametrize("compression", ["zstd", "snappy", "brotli", "lz4", "gzip", "none"])
def test_row_groups_may_be_packed_and_encoded_in_any_way(tmp_path, compression):
    with pq.ParquetWriter(
        tmp_path / "t.csv",
        schema := pa.schema([("uri", pa.dictionary(pa.int32(), pa.string())), ("seed", pa.int64())]),
        compression=compression,
    ) as writer:
        for names in (["a", "b"], ["c"], ["d", "a"]):
            columns = [pa.array(names).dictionary_encode(), pa.array([7] * len(names))]
            writer.write_table(pa.table(columns, schema=schema))
    assert told(tmp_path / "t.csv") == {name: Own(seed="7") for name in "abcd"}


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: data[:6],
        lambda data: data[:20] + b"\xff" * 40 + data[60:],
        lambda data: data[:-8] + b"\xff" * 4 + data[-4:],
    ],
)
def test_a_damaged_parquet_is_told_as_one(tmp_path, damage):
    pq.write_table(pa.table({"uri": [f"{number:05}.jpg" for number in range(1000)]}), tmp_path / "good.parquet")
    sentence = refusal(put(tmp_path, "t.parquet", damage((tmp_path / "good.parquet").read_bytes())))
    assert "Parquet" in sentence and "CSV" not in sentence and "UTF-8" not in sentence


def test_an_empty_parquet_has_no_images_and_one_without_uris_names_its_columns(tmp_path):
    pq.write_table(pa.table({"uri": pa.array([], pa.string()), "seed": pa.nulls(0)}), tmp_path / "t.parquet")
    assert refusal(tmp_path / "t.parquet") == "there are no images in it."
    pq.write_table(pa.table({"Datei": ["a.jpg"], "x": [1]}), tmp_path / "t.parquet")
    assert refusal(tmp_path / "t.parquet") == "the table needs a column `uri`; it has Datei, x."
