"""What `--dry-run` finds out: copies, a sample that stands for all, time and cost; and the question that comes next."""

import os
import pty
import sys
from contextlib import ExitStack

import pytest

from infra import store
from infra.errors import UsageError
from infra.settings import from_environment
from pipelines.catalog import cli, duplicates, forecast, job, screen
from pipelines.catalog.listing import Input, Passed, list_catalog
from pipelines.catalog.plan import Settled


def found_in(source) -> duplicates.Duplicates:
    with duplicates.opened() as seen:
        for each in list_catalog(str(source), "/nowhere"):
            seen.add(each)
        return seen.duplicates()


def test_files_are_copies_if_every_byte_is_the_same(tmp_path):
    long = bytes(duplicates.BEGINNING + 10)
    files = {"a": b"one", "b": b"two", "c/a": b"one", "d": b"one", "e": long + b"x", "f": long + b"y", "g": long + b"x"}
    for name, data in (files | {"empty1": b"", "empty2": b""}).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.jpg").write_bytes(data)
    found = found_in(tmp_path)
    assert (found.compared, found.copies, found.bytes) == (7, 3, 2 * 3 + len(long) + 1)
    assert found.groups == [(3, ["a.jpg", "c/a.jpg", "d.jpg"]), (2, ["e.jpg", "g.jpg"])]


def test_a_file_that_is_gone_by_then_is_no_copy(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.jpg").write_bytes(b"same")
    with duplicates.opened() as seen:
        for each in list_catalog(str(tmp_path), "/nowhere"):
            seen.add(each)
        (tmp_path / "b.jpg").unlink()
        assert seen.duplicates().copies == 0


def test_in_a_bucket_the_etag_tells_and_nothing_is_read(moto_bucket, monkeypatch):
    for number in range(12):
        store.write(f"{moto_bucket}/in/{number:02}.jpg", b"same" if number % 2 else b"%d" % number)
    monkeypatch.setattr(store, "read", None)
    found = found_in(f"{moto_bucket}/in")
    assert (found.compared, found.copies, found.bytes) == (12, 5, 20)
    assert found.groups == [(6, ["01.jpg", "03.jpg", "05.jpg"])]


def test_a_table_of_addresses_in_a_bucket_has_nothing_to_compare():
    with duplicates.opened() as seen:
        for number in range(3):
            seen.add(Input(f"s3://b/{number}", str(number), "", None))
        assert seen.duplicates() == duplicates.Duplicates(0, 0, 0, [])


def test_the_sample_is_spread_over_all_of_them_and_always_the_same(monkeypatch):
    monkeypatch.setattr(forecast, "LOOKED_AT", 100)
    inputs = [Input(f"/{number}", str(number), "e") for number in range(5000)]
    sample = forecast._sampled(iter(inputs))
    places = [int(each.relative_path) for each in sample]
    assert places == sorted(set(places)) and len(places) == 100
    assert all(any(low <= place < low + 500 for place in places) for low in range(0, 5000, 500))
    assert sample == forecast._sampled(iter(inputs))
    assert forecast._sampled(iter(inputs[:100])) == inputs[:100]


@pytest.fixture(scope="module")
def expected(tiny_base, pair, tmp_path_factory, scene) -> forecast.Forecast:
    """The dry run of 60 images, 15 of them broken and 20 copies, of which the headers of 40 were looked at."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(60):
        path = folder / f"{number:02}.png"
        if number % 4 == 3:
            path.write_text(f"No picture, number {number}.")
        else:
            scene(min(number // 4 * 3 + number % 4, 25)).save(path)
    output = tmp_path_factory.mktemp("result") / "out"
    options = job.Options(
        pairs=[pair], input=str(folder), output=str(output), base=str(tiny_base), workers=2, price_per_hour=3600.0
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forecast, "LOOKED_AT", 40)
        settings = from_environment({})
        told = forecast.forecast(job.prepare(options, settings), options, settings)
    assert not output.exists()
    return told


def test_everything_is_counted_and_what_was_sampled_stands_for_the_rest(expected):
    assert (expected.total, expected.to_do, expected.skipped, expected.looked_at) == (60, 60, 0, 40)
    assert len(expected.failures) + sum(expected.formats.values()) == 40 and expected.sized == 60
    assert expected.failed == round(60 * len(expected.failures) / 40) > 0
    assert {code for _, code, _ in expected.failures} == {"not_an_image"}
    assert expected.duplicates.compared == 60 and expected.duplicates.copies == 19
    assert expected.duplicates.groups[0][0] == 20


def test_cost_and_time_follow_from_the_measured_images(expected):
    good = expected.to_do - expected.failed
    assert expected.seconds == pytest.approx(expected.seconds_per_image * good / 2) and expected.workers == 2
    assert expected.cost == pytest.approx(expected.seconds_per_image * good, abs=1e-3)  # a second costs 1
    assert expected.cost_per_1000 == pytest.approx(expected.seconds_per_image * 1000, abs=1e-3)


def test_the_screen_says_what_is_an_estimate(expected, capsys):
    from rich.console import Console

    screen.show_forecast(Console(width=200), expected)
    told = capsys.readouterr().out
    assert f"about {expected.failed}" in told and "40 of them, chosen at random" in told
    assert "with 2 workers" in told and "for 1,000 images" in told and "and 17 more" in told
    assert "passed" not in expected.told() and expected.told()["duplicates"]["copies"] == 19


@pytest.fixture
def terminal(monkeypatch):
    """terminal(answer): stdin is a terminal at which somebody has typed this."""
    with ExitStack() as opened:

        def typed(answer: str) -> None:
            ours, theirs = pty.openpty()
            opened.callback(os.close, ours)
            monkeypatch.setattr(sys, "stdin", opened.enter_context(os.fdopen(theirs)))
            os.write(ours, answer.encode())

        yield typed


def glance(inputs: int, *, finished: bool = False) -> job.Glance:
    """So many images, all of them finished before, or nobody knows."""
    planned = [Settled.DONE] * inputs if finished else None
    return job.Glance([Input("/a", "a", "")] * inputs, planned, Passed())


def test_many_images_are_asked_about_on_a_terminal(terminal, capsys):
    terminal("n\n")
    with pytest.raises(UsageError, match="Nothing was started"):
        cli._confirm(glance(1001), "out", sure=False)
    assert "1,000 images or more" in capsys.readouterr().err
    terminal("y\n")
    cli._confirm(glance(1001), "out", sure=False)


def test_nobody_is_asked_about_few_images_or_twice_or_where_nobody_is(terminal, monkeypatch, capsys):
    terminal("n\n")
    cli._confirm(glance(999), "out", sure=False)
    cli._confirm(glance(1001), "out", sure=True)
    cli._confirm(glance(1000, finished=True), "out", sure=False)
    with open(os.devnull) as nobody:  # noqa: PTH123
        monkeypatch.setattr(sys, "stdin", nobody)
        cli._confirm(glance(1001), "out", sure=False)
    assert capsys.readouterr().err == ""
