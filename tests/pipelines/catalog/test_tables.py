"""Tables as text, such as spreadsheets, scripts and people write, and damaged on the way."""

import gzip
import json
import re

import pyarrow as pa
import pytest

from pipelines.catalog import tables
from pipelines.catalog.listing import Own, Passed, list_catalog
from tests.pipelines.catalog.listed import TWO, inputs_of, put, refusal, told

WRITTEN = {
    "semicolons": ("t.csv", "uri;seed\na.jpg;7\nb.jpg;\n"),
    "tabs": ("t.csv", "uri\tseed\na.jpg\t7\nb.jpg\t\n"),
    "bars": ("t.csv", "uri|seed\na.jpg|7\nb.jpg|\n"),
    "tsv": ("t.tsv", "uri\tseed\na.jpg\t7\nb.jpg\t\n"),
    "capitals": ("t.csv", "URI,Seed\na.jpg,7\nb.jpg,\n"),
    "title case": ("t.CSV", "Uri;SEED\na.jpg;7\nb.jpg;\n"),
    "padded names and values": ("t.csv", " uri ; seed \na.jpg ; 7\nb.jpg ;\n"),
    "a space after each separator": ("t.csv", 'Title, uri, seed\n"x", "a.jpg", 7\ny, b.jpg,\n'),
    "a byte order mark": ("t.csv", b"\xef\xbb\xbfuri;seed\r\na.jpg;7\r\nb.jpg;\r\n"),
    "a byte order mark and quotes": ("t.csv", b'\xef\xbb\xbf"uri";"seed"\r\n"a.jpg";7\r\n"b.jpg";\r\n'),
    "Excel's first line": ("t.csv", "sep=;\r\nuri;seed\r\na.jpg;7\r\nb.jpg;\r\n"),
    "that in quotes, for tabs": ("t.csv", b'\xef\xbb\xbf"sep=\t"\r\nuri\tseed\r\na.jpg\t7\r\nb.jpg\t\r\n'),
    "carriage returns alone": ("t.csv", "uri,seed\ra.jpg,7\rb.jpg,\r"),
    "blank lines everywhere": ("t.csv", "\n\nuri,seed\n\na.jpg,7\nb.jpg,\n\n\n\n"),
    "no line break at the end": ("t.csv", "uri,seed\na.jpg,7\nb.jpg,"),
    "another column with separators in quotes": ("t.csv", 'x,uri,seed\n"1,5; ""2""",a.jpg,7\n"",b.jpg,\n'),
    "a column with line breaks": ("t.csv", 'uri;note;seed\na.jpg;"one\ntwo\r\n;three";7\nb.jpg;;\n'),
    "a header with other separators": ("t.csv", "uri;seed;Size, cm;a|b\na.jpg;7;3,4;\nb.jpg;;;\n"),
    "other columns not in UTF-8": ("t.csv", "Größe;uri;seed\nzehn;a.jpg;7\nfünf;b.jpg;\n".encode("cp1252")),
    "a separator too many at every end": ("t.csv", "uri,seed\na.jpg,7,\nb.jpg,,\n"),
    "other columns left out": ("t.csv", "uri,seed,note\na.jpg,7\nb.jpg,\n"),
    "gzip": ("t.csv.gz", gzip.compress(b"uri;seed\na.jpg;7\nb.jpg;\n")),
    "two gzip files in a row": ("t.csv.gz", gzip.compress(b"uri;seed\na.jpg;7\n") + gzip.compress(b"b.jpg;\n")),
    "gzip that does not say so": ("t.csv", gzip.compress(b"uri;seed\na.jpg;7\nb.jpg;\n")),
    "zstd": ("t.tsv.zst", pa.compress(b"uri\tseed\na.jpg\t7\nb.jpg\t\n", codec="zstd", asbytes=True)),
    "a CSV called Parquet": ("t.parquet", "uri,seed\na.jpg,7\nb.jpg,\n"),
    "JSON lines": ("t.jsonl", '{"uri": "a.jpg", "seed": 7}\n{"uri": "b.jpg"}\n'),
    "JSON lines, capitals": ("t.ndjson", '{"URI": "a.jpg", "Seed": "7"}\r\n\r\n{"uri": "b.jpg", "seed": null}'),
    "JSON lines with a mark": ("t.jsonl", '\ufeff{"uri": "a.jpg", "seed": 7.0}\n{"uri": "b.jpg", "seed": NaN}'),
    "packed JSON lines": ("t.jsonl.gz", gzip.compress(b'{"uri": "a.jpg", "seed": 7}\n{"uri": "b.jpg"}\n')),
    "JSON lines called CSV": ("t.csv", '{"uri": "a.jpg", "seed": 7}\n{"uri": "b.jpg"}\n'),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content"), WRITTEN.values(), ids=WRITTEN)
def test_what_spreadsheets_and_programs_write_is_read(tmp_path, name, content):
    assert told(put(tmp_path, name, content)) == TWO


def test_a_column_alone_needs_no_separator(tmp_path):
    assert told(put(tmp_path, "t.csv", "uri\na.jpg\nb.jpg\n")) == {"a.jpg": Own(), "b.jpg": Own()}
    assert told(put(tmp_path, "t.csv", '"uri"\n"a,b.jpg"\n')) == {"a,b.jpg": Own()}
    assert told(put(tmp_path, "t.tsv", "uri\na,b.jpg\nc;d.jpg\n")) == {"a,b.jpg": Own(), "c;d.jpg": Own()}


def test_spaces_that_belong_to_a_name_stay(tmp_path):
    assert list(told(put(tmp_path, "t.csv", "uri,seed\n a.jpg,1\nb.jpg ,2\n"))) == [" a.jpg", "b.jpg "]


def test_an_exact_name_goes_before_one_in_other_letters(tmp_path):
    assert told(put(tmp_path, "t.csv", "URI,uri,Seed\nx.jpg,a.jpg,7\n")) == {"a.jpg": Own(seed="7")}
    assert told(put(tmp_path, "t.jsonl", '{"URI": "x.jpg", "uri": "a.jpg", "Seed": 7}')) == {"a.jpg": Own(seed="7")}


def test_a_row_of_another_length_fails_with_its_line_and_the_others_go_on(tmp_path):
    lines = ["uri,seed,adapter", '"a\n.jpg",7,', "one,two.jpg,7,lift", "c.jpg,7", "d.jpg,7,,,", "e.jpg", ""]
    found = {each.uri.rpartition("/")[2]: each for each in inputs_of(put(tmp_path, "t.csv", "\n".join(lines)))}
    assert {name: each.error_code for name, each in found.items()} == {
        "a\n.jpg": None, "one": "bad_row", "c.jpg": "bad_row", "d.jpg": None, "e.jpg": "bad_row",
    }  # fmt: skip
    assert "Line 4 of its table has 4 fields, and the header 3" in found["one"].error
    assert "Line 5 of its table has 2 fields" in found["c.jpg"].error


def test_rows_that_name_nothing_are_counted_whatever_their_length(tmp_path):
    catalog = list_catalog(
        str(put(tmp_path, "t.csv", "uri,seed\na.jpg,\n,7\n;\n , \n,,\n   \n\n")), str(tmp_path / "out")
    )
    assert len(list(catalog)) == 2 and catalog.passed == Passed(blank=4)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.csv", "Datei;Größe\na.jpg;1\n", r"needs a column `uri`; it has Datei, Größe\."),
        ("t.csv", "url\na.jpg\n", r"needs a column `uri`; it has url\."),
        ("t.csv", "URI;Uri\na.jpg;b.jpg\n", r"two columns `uri` \(`URI` and `Uri`\)"),
        ("t.csv", "uri,seed,seed\na.jpg,1,2\n", "two columns `seed`"),
        ("t.csv", ",".join(f"column{n}" for n in range(500)), r"column19 and 480 more\."),
        ("t.csv", 'uri,seed\na.jpg,7\n"b.jpg,8\nc.jpg,9\n', "line 3: a quotation mark opens a field there and nothing"),
        ("t.csv", "uri;seed\nbild.jpg;1\nküche.jpg;2\n".encode("cp1252"), "line 3 is not in UTF-8.*Excel"),
        ("t.csv", "uri\tseed\r\na.jpg\t1\r\n".encode("utf-16"), "UTF-16 text.*save it as CSV in UTF-8"),
        ("t.csv", "uri,seed\na.jpg,1\n".encode("utf-16-le"), "this is no text"),
        ("t.csv", b"PK\x03\x04\x14\0\6\0", "an Excel workbook"),
        ("t.parquet", b"ARROW1\0\0", "an Arrow"),
        ("t.csv", "uri,seed\n", "there are no images in it"),
        ("t.csv", "uri,seed\n,\n,7\n", "no images in it. Rows with nothing in the column `uri`: 2"),
        ("t.csv", "", "this file is empty"),
        ("t.parquet", "", "this file is empty"),
        ("t.jsonl", "\n\n", "needs a column `uri`; it has none"),
        ("t.csv.gz", gzip.compress(b"uri\n" + bytes(range(65, 90)) * 999)[:-20], "damaged, or cut short"),
        ("t.parquet", b"<html>\0", "this is no Parquet file"),
        ("t.jsonl", '{"uri": "a.jpg"}\n{"uri": "b.j', "line 2 is no JSON object .Unterminated string"),
        ("t.jsonl", '{"uri": "a.jpg"}\n"b.jpg"\n', "line 2 is no JSON object. Write one for every image"),
        ("t.jsonl", '[\n{"uri": "a.jpg"}\n]\n', "line 1 is no JSON object.*Write an object a line, not one list"),
        ("t.jsonl", '{"uri": ' + "[" * 100_000, "line 1 is no JSON object"),
        ("t.jsonl", '{"uri": "a.jpg", "seed": ' + "1" * 5000 + "}", "line 1 is no JSON object"),
        ("t.jsonl", '{"url": "a.jpg"}\n{"file": "b.jpg"}\n', r"needs a column `uri`; it has url, file\."),
        ("t.jsonl", '{"uri": "a.jpg"}\n{"uri": {"path": "b.jpg"}}\n', "line 2: `uri` is a list or an object"),
        ("t.jsonl", '{"URI": "a.jpg", "Uri": "b.jpg"}\n', "two columns `uri`"),
        ("t.jsonl", '{"uri": "k\\u00fcche.jpg"}\n{"uri": "küche.jpg"}\n'.encode("cp1252"), "line 2 is not in UTF-8"),
        ("t.jsonl", '{"uri": "\\ud800.jpg"}\n', "line 1 is not in UTF-8"),
        ("t.csv", "uri,note\na.jpg,\n" + "b" * 2**25, "line 3 is longer than"),
        ("t.jsonl.gz", gzip.compress(b'{"uri": "' + b"b" * 2**25), "line 1 is longer than"),
        ("t.csv", '"Bild\nDatei","\x1b[31mx"\n', r"it has Bild Datei, \?\[31mx\."),
        ("list.txt", "a.jpg\nb.jpg\n", "neither an image nor a table. A table is a .parquet, .csv, .tsv"),
        ("list.xlsx", b"PK\x03\x04", "neither an image nor a table"),
        ("list.json", "[]", "neither an image nor a table"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_one_sentence_about_its_own_format(tmp_path, name, content, said):
    sentence = refusal(put(tmp_path, name, content))
    assert re.search(said, sentence)


def test_a_folder_with_a_table_tells_to_give_the_table(tmp_path):
    (tmp_path / "in").mkdir()
    put(tmp_path / "in", "list.csv", "uri\na.jpg\n")
    assert "list.csv. To edit what a table names, give the table itself." in refusal(tmp_path / "in")


def test_a_nul_costs_its_row_only(tmp_path):
    names = list(told(put(tmp_path, "t.jsonl", '{"uri": "a\\u0000b.jpg"}\n{"uri": "c.jpg"}\n')))
    assert names == ["a\\0b.jpg", "c.jpg"]


def test_a_key_may_change_its_type_from_line_to_line(tmp_path):
    seeds = ["7", '"8"', "null", "9.0", "4.5", "true", "NaN", "-3", "1e3", '" 5 "', str(2**70), "[7]", "{}"]
    lines = [f'{{"uri": "{number}.jpg", "seed": {seed}}}' for number, seed in enumerate(seeds)]
    found = inputs_of(put(tmp_path, "t.jsonl", "\n".join(lines)))
    assert [each.own.seed for each in found] == [
        "7", "8", None, "9", "4.5", "true", None, "-3", "1000", " 5 ", str(2**70), None, None,
    ]  # fmt: skip
    assert [each.error_code for each in found] == [None] * 11 + ["bad_row"] * 2
    assert "Line 12 of its table has a list or an object as `seed`" in found[11].error


def test_a_key_that_comes_late_is_not_missed(tmp_path):
    lines = [json.dumps({"uri": f"{number}.jpg"}) for number in range(10_500)]
    path = put(tmp_path, "t.jsonl", "\n".join([*lines, '{"uri": "last.jpg", "SEED": 5}']))
    blocks = list(tables.blocks(str(path), ("uri", "seed"), ("uri",)))
    assert [len(block["uri"]) for block in blocks] == [0, 10_000, 501]
    assert blocks[-1]["seed"][-2:] == [None, "5"]
