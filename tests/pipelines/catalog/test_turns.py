"""One job at a time in an output folder."""

import io
import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer.main
from rich.console import Console
from typer.testing import CliRunner

from infra import settings, store
from infra.cli import app
from infra.errors import EXIT_BUSY, EditTransferError, LeaseHeld
from infra.registry import lease, log
from pipelines.catalog import asking, job, manifest, turns
from pipelines.catalog.listing import list_catalog
from tests.pipelines.catalog.shops import STAGED, stocked

HOLDER = """
import sys
from pipelines.catalog.turns import turn
with turn(sys.argv[1]):
    print("there", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def somebody_at(place: str) -> Iterator["subprocess.Popen[str]"]:
    """Another process that works in an output folder until it is killed, or told to end."""
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, place], stdin=-1, stdout=-1, text=True)
    try:
        assert holder.stdout and holder.stdout.readline() == "there\n"
        yield holder
    finally:
        holder.kill()
        holder.communicate()


def leases(place: str) -> list[str]:
    return [found.uri for found in store.list_objects(f"{place}/jobs/leases")]


@pytest.fixture(scope="module")
def photos(tmp_path_factory, scene) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(4):
        scene(number).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def options(photos, pair, tiny_base, tmp_path) -> Callable[..., job.Options]:
    def made(**more: Any) -> job.Options:
        place = {"input": str(photos), "output": str(tmp_path / "out")}
        return job.Options(**place | {"pairs": [pair], "base": str(tiny_base), "steps": 2, "workers": 1} | more)

    return made


@pytest.fixture
def command(photos, pair, tiny_base, tmp_path) -> list[str]:
    """`apply` to the same folder, from the command line."""
    places = ["--input", str(photos), "--output", str(tmp_path / "out"), "--base", str(tiny_base)]
    return ["apply", "--pair", *pair, *places, "--steps", "2", "--workers", "1", "--json"]


def run(asked: job.Options, prepared: job.Prepared | None = None) -> job.Summary:
    environment = settings.from_environment()
    return job.run(prepared or job.prepare(asked, environment), asked, environment, Console(file=io.StringIO()))


def test_the_second_says_who_works_there_and_writes_nothing(command, tmp_path):
    out = str(tmp_path / "out")
    with somebody_at(out) as holder:
        told = CliRunner().invoke(app, command)
        assert told.exit_code == EXIT_BUSY and told.stdout == ""
        assert out in told.stderr and f"process {holder.pid}" in told.stderr and "wait" in told.stderr
        assert len(leases(out)) == 1 and [path.name for path in Path(out).iterdir()] == ["jobs"]


def test_looking_is_no_work(command, tmp_path):
    with somebody_at(str(tmp_path / "out")):
        told = CliRunner().invoke(app, [*command, "--dry-run"])
        assert told.exit_code == 0 and json.loads(told.stdout)["to_do"] == 4


def test_a_killed_holder_is_followed_at_once_and_nothing_stays_behind(tmp_path):
    out = str(tmp_path / "out")
    with somebody_at(out) as holder:
        holder.kill()
        holder.wait()
        assert leases(out)
        with turns.turn(out) as held:
            assert held.holds()
        assert not leases(out)


@pytest.mark.parametrize("where", ["tmp_path", "moto_bucket", "ceph_bucket"])
def test_who_waits_is_told_of_the_holder_and_comes_next(request, where, monkeypatch):
    if where == "moto_bucket":
        for key, value in request.getfixturevalue("moto").items():
            monkeypatch.setenv(key, value)
    out, told = f"{request.getfixturevalue(where)}/out", []
    with somebody_at(out) as holder:

        def waiting(held: LeaseHeld) -> None:
            told.append(str(held))
            holder.communicate("done\n")

        with turns.turn(out, waiting):
            assert len(leases(out)) == 1
    assert len(told) == 1 and out in told[0] and f"process {holder.pid}" in told[0]
    assert not leases(out)


def test_publishing_and_editing_take_turns_too(tmp_path):
    shop = stocked(str(tmp_path / "out"))
    with turns.turn(shop.place):
        for act in (shop.publish, shop.revert):
            with pytest.raises(LeaseHeld):
                act()
    with lease(shop.place, "jobs", "publish"), pytest.raises(LeaseHeld), turns.turn(shop.place):
        pass
    with turns.turn(shop.job):  # a staged job goes on meanwhile
        assert shop.publish(partial=True).published == 5


def test_a_lease_is_no_input_no_result_and_no_part_of_a_manifest(photos, tmp_path):
    place = tmp_path / "shop"
    place.mkdir()
    for path in photos.iterdir():
        (place / path.name).write_bytes(path.read_bytes())
    out = str(place / "out")
    with turns.turn(out), turns.turn(f"{out}/jobs/{STAGED}"):
        assert len(leases(out)) == len(leases(f"{out}/jobs/{STAGED}")) == 1
        catalog = list_catalog(str(place), out)
        assert [found.relative_path for found in catalog] == ["0.png", "1.png", "2.png", "3.png"]
        assert catalog.passed.ignored == catalog.passed.left_out == 0
        assert manifest.parts(f"{out}/manifest") == []


def test_a_submitted_job_waits_if_it_is_asked_to():
    commands = typer.main.get_command(app).commands
    place = {"source": "s3://shop/photos", "output": "s3://shop/out"}
    for queue in (True, False):
        words = shlex.split(asking.command_for(place | {"queue": queue}))
        assert ("--wait" in words) is queue
        assert commands["apply"].make_context("apply", words[4:]).params["queue"] is queue
    options = ["--input", "a", "--output", "b", "--queue"]
    asked = commands["submit"].make_context("submit", options).params
    assert asked["queue"] is True and asked["wait"] is False


COUNTER = """
import sys
from pathlib import Path
from infra.errors import LeaseHeld
from pipelines.catalog.turns import turn
counter, left = Path(sys.argv[1], "counter"), 8
while left:
    try:
        with turn(sys.argv[1]):
            counter.write_text(str(int(counter.read_text()) + 1))
            left -= 1
    except LeaseHeld:
        pass
"""


def test_of_many_that_come_and_go_there_are_never_two_at_once(tmp_path):
    (tmp_path / "counter").write_text("0")
    command = [sys.executable, "-c", COUNTER, str(tmp_path)]
    racers = [subprocess.Popen(command) for _ in range(3)]
    assert [racer.wait() for racer in racers] == [0, 0, 0]
    assert (tmp_path / "counter").read_text() == "24" and not leases(str(tmp_path))


def test_what_the_one_before_has_finished_is_not_done_again(ray_cluster, options, command):
    """The second job was prepared before the first one began, and had its turn when that was over."""
    prepared = job.prepare(options(), settings.from_environment())
    first, second = run(options()), run(options(), prepared)
    assert (first.done, second.done, second.skipped) == (4, 0, 4)
    assert not leases(prepared.output)


def test_a_staged_job_has_a_folder_of_its_own(options, command):
    staged = job.prepare(options(stage=True), settings.from_environment())
    with somebody_at(staged.place), turns.turn(staged.output) as held:
        assert held.holds() and leases(staged.place) and leases(staged.output)
        told = CliRunner().invoke(app, [*command, "--stage"])  # the very same job once more
        assert told.exit_code == EXIT_BUSY and staged.output in told.stderr


@pytest.mark.slow
def test_a_job_that_lost_its_turn_ends_before_it_tidies_up(ray_cluster, options, monkeypatch):
    asked, graph_run = options(), job.graph.run
    prepared = job.prepare(asked, settings.from_environment())

    def overtaken(*arguments: Any) -> Iterator[Any]:
        """The job, while which another machine takes it for dead."""
        uri = f"{prepared.output}/jobs/leases/{turns.PURPOSE}"
        yield from graph_run(*arguments)
        number, entry = log.latest(uri)
        assert log.append(uri, number + 1, entry | {"machine": "elsewhere", "holder": "another"})

    monkeypatch.setattr(job.graph, "run", overtaken)
    with pytest.raises(EditTransferError, match=r"another process may work there.*run the same command again") as lost:
        run(asked, prepared)
    assert lost.value.exit_code == 1 and not (Path(prepared.output) / "report.html").exists()
    assert all("compact-" not in part for part in manifest.parts(prepared.manifest))
    assert "another" in store.read(leases(prepared.output)[-1]).decode()  # whose it is now


@pytest.mark.slow
def test_the_row_of_a_second_run_counts_although_the_clock_went_back(ray_cluster, options, tmp_path):
    """Whatever the first run believed that the time was; the manifest is told so here."""
    asked = options()
    assert run(asked).done == 4
    folder = f"{asked.output}/manifest"
    rows = manifest.read(folder).to_pylist()
    ahead = [row | {"finished_at": row["finished_at"].replace(year=2099), "job_id": "ahead"} for row in rows]
    manifest.append(folder, ahead)
    assert {row["job_id"] for row in manifest.read(folder).to_pylist()} == {"ahead"}
    again = run(options(seed=1))
    after = manifest.read(folder).to_pylist()
    assert again.done == 4 and {row["job_id"] for row in after} == {again.job_id}
    assert all(row["result_sha256"] != old["result_sha256"] for row, old in zip(after, rows, strict=True))
    assert run(options(seed=1)).skipped == 4
