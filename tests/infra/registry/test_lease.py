import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from infra import store
from infra.errors import EXIT_BUSY, AdapterDamaged, LeaseHeld
from infra.registry import lease, log

START = datetime(2030, 1, 1, 12, tzinfo=UTC)


class Clock:
    """A clock that is put forward by hand."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def rewritten(registry: str, purpose: str, **changes: object) -> None:
    """The latest entry, as if somebody else had written it."""
    uri = f"{registry}/a/leases/{purpose}"
    number, entry = log.latest(uri)
    store.write(log.entry_uri(uri, number), json.dumps(entry | changes).encode())


def test_one_holds_it_and_then_the_next(registry, clock):
    with lease(registry, "a", "train", 60, clock) as held:
        with (
            pytest.raises(
                LeaseHeld, match=r"a: train is held by .* since 2030-01-01 12:00:00, until .*12:01:00"
            ) as told,
            lease(registry, "a", "train", 60, clock),
        ):
            pass
        assert told.value.exit_code == EXIT_BUSY and not held.lost.is_set()
        with lease(registry, "a", "retrain", 60, clock):
            pass
    with lease(registry, "a", "train", 60, clock):
        assert len(log.numbers(f"{registry}/a/leases/train")) == 1


def test_it_is_let_go_of_when_the_work_fails(local):
    with pytest.raises(ZeroDivisionError), lease(local, "a", "train"):
        _ = 1 / 0
    with lease(local, "a", "train"):
        pass


def test_a_renewed_one_is_held_past_its_first_term(registry, clock):
    with lease(registry, "a", "train", 60, clock) as held:
        clock.forward(50)
        assert held.renew()
        clock.forward(50)
        with pytest.raises(LeaseHeld), lease(registry, "a", "train", 60, clock):
            pass


def test_one_of_another_machine_is_followed_when_its_term_is_over(registry, clock):
    with lease(registry, "a", "train", 60, clock) as held:
        rewritten(registry, "train", machine="elsewhere", pid=1)
        clock.forward(59)
        with pytest.raises(LeaseHeld), lease(registry, "a", "train", 60, clock):
            pass
        clock.forward(1)
        with lease(registry, "a", "train", 60, clock) as next_one:
            assert not held.renew() and held.lost.is_set()
            assert next_one.renew() and not next_one.lost.is_set()


def test_a_holder_that_slept_past_its_term_still_has_it_if_nobody_came(local, clock):
    with lease(local, "a", "train", 60, clock) as held:
        clock.forward(1000)
        assert held.renew() and not held.lost.is_set()


def test_a_number_that_was_removed_as_superseded_wins_nothing(local, clock):
    """A slow competitor saw entry 1 run out, and writes 2 when 2 was written and removed long ago."""
    with lease(local, "a", "train", 60, clock) as held:
        assert held.renew() and held.renew()
        uri = f"{local}/a/leases/train"
        assert log.numbers(uri) == [3]
        assert log.append(uri, 2, {"until": "stray"})
        assert held.renew() and log.numbers(uri)[-1] == 4


HOLDER = """
import sys
from infra.registry import lease
with lease(sys.argv[1], "a", "train", 600):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize("where", ["local", "ceph_bucket"])
def test_a_dead_holder_on_this_machine_is_followed_at_once(request, where):
    registry = request.getfixturevalue(where)
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, registry], stdin=-1, stdout=-1, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(LeaseHeld, match=f"process {holder.pid}"), lease(registry, "a", "train"):
        pass
    holder.kill()
    holder.communicate()
    with lease(registry, "a", "train"):
        pass


def test_a_process_number_that_was_given_to_another_is_not_the_holder(local):
    with lease(local, "a", "train", 600):
        rewritten(local, "train", process="one before")
        with lease(local, "a", "train"):
            pass


def test_it_is_renewed_in_the_background(local):
    uri = f"{local}/a/leases/train"
    with lease(local, "a", "train", 0.06) as held:
        while log.numbers(uri)[-1] < 4:
            assert not held.lost.wait(0.01)


def test_one_that_cannot_be_renewed_is_lost_when_its_term_is_over(tmp_path, clock):
    registry = tmp_path / "registry"
    with lease(str(registry), "a", "train", 60, clock) as held:
        registry.rename(tmp_path / "gone")
        registry.touch()  # a file where the folder was: nothing can be written
        clock.forward(59)
        assert held.renew()
        clock.forward(1)
        assert not held.renew() and held.lost.is_set()


RACER = """
import sys
from infra.errors import LeaseHeld
from infra.registry import lease
sys.stdin.readline()
try:
    with lease(sys.argv[1], "a", "train"):
        print("held", flush=True)
        sys.stdin.readline()
except LeaseHeld:
    print("busy", flush=True)
"""


@pytest.mark.parametrize("where", ["local", "ceph_bucket"])
def test_of_racing_processes_one_holds_it(request, where):
    registry = request.getfixturevalue(where)
    command = [sys.executable, "-c", RACER, registry]
    racers = [subprocess.Popen(command, stdin=-1, stdout=-1, text=True) for _ in range(6)]
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    assert sorted(racer.stdout.readline().strip() for racer in racers) == ["busy"] * 5 + ["held"]
    for racer in racers:
        racer.communicate("done\n")
        assert racer.returncode == 0


def test_an_entry_without_a_time_is_told(local):
    log.append(f"{local}/a/leases/train", 1, {"until": "soon"})
    with pytest.raises(AdapterDamaged, match="'soon'"), lease(local, "a", "train"):
        pass
