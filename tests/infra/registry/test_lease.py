import json
import subprocess
import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import pytest

from infra import store
from infra.errors import EXIT_BUSY, AdapterDamaged, LeaseHeld
from infra.registry import lease, log

START = datetime(2030, 1, 1, 12, tzinfo=UTC)
SIXTY_SECONDS = timedelta(seconds=60)


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


@pytest.mark.parametrize("hours", [1, -1])
def test_on_one_machine_it_is_nobodys_earlier_or_later_because_a_clock_was_set(registry, clock, hours):
    with lease(registry, "a", "train", 60, clock) as held:
        clock.forward(hours * 3600)
        with pytest.raises(LeaseHeld), lease(registry, "a", "train", 60, clock):
            pass
        assert held.renew() and held.holds()
        rewritten(registry, "train", process="one that is dead")
        with lease(registry, "a", "train", 60, clock):
            assert not held.renew() and not held.holds()


def test_a_clock_that_is_set_back_does_not_shorten_it_for_other_machines(registry, clock):
    with lease(registry, "a", "train", 60, clock) as held:
        clock.forward(-3600)
        assert held.renew()
        assert datetime.fromisoformat(log.latest(f"{registry}/a/leases/train")[1]["until"]) >= START + SIXTY_SECONDS


@pytest.mark.parametrize("left", [-1, 10**6])
def test_a_holder_that_was_stopped_past_its_term_or_is_from_before_a_start_of_the_machine_is_followed(local, left):
    """A process of that number lives, as far as anybody can see."""
    with lease(local, "a", "train", 60) as held:
        rewritten(local, "train", uptime=time.monotonic() + left)
        with lease(local, "a", "train", 60):
            pass
        assert not held.renew() and held.lost.is_set()


def test_who_was_stopped_past_the_term_asks_whether_it_is_still_its_own(local):
    with lease(local, "a", "train", 0.2) as held:
        held._released.set()  # nobody renews it in the background, as while a process is stopped
        held._keeper.join()
        while time.monotonic() <= held._entry["uptime"]:
            assert not held.lost.wait(0.02)
        with lease(local, "a", "train", 60):
            assert not held.holds()


def test_one_of_an_older_version_says_until_when_by_the_clock_alone(local, clock):
    times = {"since": START.isoformat(), "until": (START + SIXTY_SECONDS).isoformat()}
    log.append(f"{local}/a/leases/train", 1, times | {"machine": "elsewhere"})
    with pytest.raises(LeaseHeld), lease(local, "a", "train", 60, clock):
        pass
    clock.forward(60)
    with lease(local, "a", "train", 60, clock):
        pass


def test_one_that_leaves_no_trace_is_given_to_the_next(registry):
    for _ in range(3):
        with lease(registry, "a", "train", traceless=True):
            assert log.numbers(f"{registry}/a/leases/train") == [1]
            with pytest.raises(LeaseHeld, match=r"^this is held by"), lease(registry, "a", "train", what="this"):
                pass
        assert not list(store.list_objects(registry))


def test_a_slow_competitor_wins_nothing_beside_one_who_counts_anew(local, monkeypatch):
    """It saw entry 5 run out; that was followed, and all trace of it removed, and entry 1 is another's."""
    uri, append = f"{local}/a/leases/train", log.append
    log.append(uri, 5, {"until": "2020-01-01T00:00:00+00:00", "machine": "elsewhere"})

    def slowly(*arguments: object) -> bool:
        monkeypatch.setattr(log, "append", append)
        store.delete(log.entry_uri(uri, 5))
        others.enter_context(lease(local, "a", "train"))
        return append(*arguments)

    with ExitStack() as others:
        monkeypatch.setattr(log, "append", slowly)
        with pytest.raises(LeaseHeld), lease(local, "a", "train"):
            pass
        assert log.numbers(uri) == [1]


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
