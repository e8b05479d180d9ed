"""Growing the bundled base: runs, phases, kills and what they leave."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import tomllib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from infra.errors import LeaseHeld, UsageError
from pipelines.transfer import Editor
from pipelines.transfer.bases import BUNDLED
from training import loop
from training.base import grow
from training.base.background import PID, alone_in, working_in
from training.base.export import CheckpointWithBase
from training.base.heads import Preview
from training.base.recipe import LAST, PHASES, leading_to
from training.base.session import SEED_OF_PROCESS, Order, Session, train
from training.base.transfer import TransferLoss
from training.loop import NoCheckpoint, Schedule, Trainer
from training.scenes import COMPOSITIONS, FAMILIES

TINY, DRY = PHASES["tiny"], PHASES["dry"]


def _order(folder, **changes) -> Order:
    return Order(**{"folder": folder, "vae": BUNDLED / "vae", "phase": TINY, "compiled": False} | changes)


def _short(steps: int, **changes):
    return replace(TINY, tuples=steps * TINY.batch, **changes)


def _weights(folder) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoint.pt", weights_only=True)["model"]


def _log(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_run_leaves_a_log_a_base_scores_pictures_and_a_page(tmp_path, capsys):
    train(_order(tmp_path, phase=_short(10)))
    assert "against copying: background" in capsys.readouterr().out
    log = _log(tmp_path)
    assert [line["step"] for line in log] == [5, 10] and all(set(line["notes"]) <= set(TINY.shares) for line in log)
    assert {line["family"] for line in json.loads((tmp_path / "scores.json").read_text())} == set(TINY.shares)
    assert Image.open(tmp_path / "samples.png").width > 400
    page = (tmp_path / "log.html").read_text()
    assert page.count("<polyline") == 1 + len(TINY.shares) and "samples.png" in page and "://" not in page
    _edits(tmp_path / "base")


def _edits(base: Path) -> None:
    editor = Editor.load(base)
    grey = Image.new("RGB", (64, 64), "grey")
    assert editor.edit([grey], editor.remember([(grey, grey)]), seeds=[1])[0].size == (64, 64)


@pytest.mark.slow
def test_two_processes_train_one_model_on_twice_the_tuples(tmp_path):
    """The first step of two processes is the step along the mean of their gradients."""
    train(_order(tmp_path / "two", phase=_short(2), processes=2))
    together = torch.load(tmp_path / "two" / "checkpoint.pt", weights_only=True)
    assert together["samples"] == 2 * TINY.batch
    session = Session(_order(tmp_path / "one", phase=_short(1)))
    mine = session.loss
    other = TransferLoss(mine.family, mine.reader, mine.preview, mine.encode, TINY, seed=SEED_OF_PROCESS)

    def both(step: int):
        value, samples = mine(step)
        return (value + other(step)[0]) / 2, 2 * samples

    for _ in session.trainer.run(both):
        pass
    alone = torch.load(tmp_path / "one" / "checkpoint.pt", weights_only=True)
    for key, weight in alone["model"].items():
        torch.testing.assert_close(together["model"][key], weight, atol=2e-5, rtol=1e-3)


class _Clock:
    """Every look at it takes a second."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 1
        return self.now


def _timed(folder, seconds: float, stop: int | None = None) -> list[loop.Progress]:
    model = nn.Linear(2, 1)
    schedule = Schedule(steps=10**9, rate=1.0, seconds=seconds, warmup=1, cooldown=0.5, log_every=1, checkpoint_every=5)
    trainer, told = Trainer(model, schedule, folder), []
    for progress in trainer.run(lambda step: (model.weight.square().sum(), 1)):
        told.append(progress)
        if len(told) == stop:
            break
    return told


def test_the_rate_has_fallen_to_zero_when_the_time_is_up_also_of_a_killed_run(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "time", _Clock())
    killed = _timed(tmp_path, seconds=400, stop=20)
    rest = _timed(tmp_path, seconds=400)
    assert killed[10].done < rest[0].done < killed[-1].done + 0.1 and rest[0].step > 10  # where it was
    assert rest[-1].rate < 0.1 < rest[0].rate
    rates = [progress.rate for progress in rest]
    assert rates == sorted(rates, reverse=True)
    assert not _timed(tmp_path, seconds=400)  # it is over


def test_cudnn_does_not_attend_in_training(tmp_path):
    seen = []

    class Look(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            seen.append(torch.backends.cuda.cudnn_sdp_enabled())
            return x * 1

        @staticmethod
        def backward(ctx, gradient):
            seen.append(torch.backends.cuda.cudnn_sdp_enabled())
            return gradient

    model = nn.Linear(2, 1)
    trainer = Trainer(model, Schedule(steps=1, rate=1e-3, log_every=1), tmp_path, NoCheckpoint())
    between = [
        torch.backends.cuda.cudnn_sdp_enabled() for _ in trainer.run(lambda _: (Look.apply(model.weight).sum(), 1))
    ]
    assert seen == [False, False] and between == [True]


def test_the_recipe_leads_from_nothing_to_the_bundled_base(bundled):
    path = [PHASES[name] for name in leading_to(LAST)]
    assert path[0].after is None and path[-1].heads == bundled.config.num_attention_heads
    assert path[-1].single == bundled.config.num_single_layers and path[-1].panel ** 2 == Editor.load().max_area
    for before, after in pairwise(path):
        assert before.heads <= after.heads and before.single <= after.single
    assert set(path[-1].shares) == {*FAMILIES, *COMPOSITIONS}
    for phase in PHASES.values():
        rows = {len({r * c for r, c in grids}) for grids in phase.grids}
        assert rows == {1} and set(phase.shares) <= {*FAMILIES, *COMPOSITIONS}
        assert all(r * c * 16**2 <= phase.panel**2 for grids in phase.grids for r, c in grids)


def test_what_a_run_keeps_is_small_whole_and_replaced(tmp_path, bundled):
    """In files that can be carried back from a lent machine."""
    heads = nn.ModuleDict({"preview": Preview(64, 128)})
    trainer = Trainer(
        nn.ModuleDict({"transformer": bundled, "heads": heads}),
        Schedule(steps=1, rate=1e-3),
        tmp_path,
        CheckpointWithBase(BUNDLED / "vae", PHASES[LAST]),
    )
    for trainer.step in (1, 2, 10):
        trainer.save()
    assert (tmp_path / "base").resolve().name == "base-10"
    assert {path.name for path in tmp_path.glob("base*")} == {"base", "base-2", "base-10"}
    sizes = [path.stat().st_size for path in (tmp_path / "base").rglob("*") if path.is_file()]
    assert max(sizes) < 15e6 and sum(sizes) < 60e6
    kept = json.loads((tmp_path / "base" / "edit_transfer.json").read_text())
    assert kept == json.loads((BUNDLED / "edit_transfer.json").read_text())


def test_each_phase_goes_on_from_the_one_before_or_from_the_bundled_base(tmp_path):
    def start(*arguments: str) -> Path | None:
        return next(grow._orders(grow._parse([str(tmp_path), *arguments]))).start

    assert start("--phase", "tiny") is None and start("--from-nothing") is None
    assert start("--phase", "fine") == BUNDLED
    (tmp_path / "small" / "base").mkdir(parents=True)
    assert start("--phase", "fine") == tmp_path / "small" / "base"
    assert start("--from-nothing", "--phase", "fine") is None
    (tmp_path / "small" / "scores.json").touch()
    assert start("--from-nothing", "--phase", "fine") == tmp_path / "small" / "base"  # what is over is not done again


def test_impossible_orders_are_refused_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for arguments, word in (
        (["--device", "cuda"], "no GPU"),
        (["--phase", "fine"], "not shrink"),
    ):
        with pytest.raises(UsageError, match=word):
            grow.main([str(tmp_path / "run"), "--foreground", *arguments])
    assert not (tmp_path / "run").exists()


def test_one_process_at_a_time_works_in_a_folder(tmp_path, capsys):
    assert working_in(tmp_path) is None
    with alone_in(tmp_path):
        assert working_in(tmp_path) == os.getpid()
        grow.main([str(tmp_path)])
        assert f"Process {os.getpid()} is growing it already" in capsys.readouterr().out
        with pytest.raises(LeaseHeld), alone_in(tmp_path):
            pass
    assert working_in(tmp_path) is None


WITHOUT = """
import sys
sys.modules |= dict.fromkeys({names})
from training.base import grow
grow.main([sys.argv[1], "--phase", "tiny", "--minutes", "0.001", "--foreground", "--eager"])
"""


NEEDED = {"torch", "diffusers", "transformers", "accelerate", "peft", "safetensors", "numpy", "pillow", "jinja2"} | {
    "typer",
    "rich",
}


@pytest.mark.slow
def test_growing_needs_no_package_that_it_does_not_name(tmp_path):
    """Of those that the project needs elsewhere, none; HTTP clients and the like are theirs to bring."""
    wanted = tomllib.loads(Path("pyproject.toml").read_text())["project"]["dependencies"]
    names = {wish.split(">")[0].split("[")[0].strip() for wish in wanted}
    assert names >= NEEDED and all(name in grow.__doc__ for name in NEEDED - {"rich"})  # typer's
    others = {
        name.removeprefix("python-").replace("-", "_") for name in names - NEEDED - {"pyyaml"}
    }  # transformers' own
    code = WITHOUT.replace("{names}", repr(others | {"skimage"}))
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True)
    assert (tmp_path / "tiny" / "base" / "model_index.json").exists()


@pytest.mark.slow
def test_two_runs_with_one_seed_agree(tmp_path):
    for name in ("a", "b"):
        train(_order(tmp_path / name, phase=_short(20)))
    a, b = _weights(tmp_path / "a"), _weights(tmp_path / "b")
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_dry_run_from_the_bundled_base_survives_two_kills(tmp_path, bundled):
    """The same command three times, in the background, killed twice after it left a base: it ends as a run that was
    never killed."""
    command = [sys.executable, "-m", "training.base.grow", str(tmp_path / "run"), "--phase", "dry", "--eager"]
    folder, reached = tmp_path / "run" / "dry", []
    for _ in range(2):
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        pid = working_in(tmp_path / "run")
        assert f"Process {pid} grows it in the background" in said and os.getsid(pid) == pid
        reached.append(_wait_for_a_base(tmp_path / "run", folder, pid, reached))
        os.kill(pid, signal.SIGKILL)
        _wait_for_the_end(tmp_path / "run")
        assert Editor.load(folder / "base").max_area == DRY.panel**2
    assert 0 < reached[0] < reached[1] < DRY.tuples // DRY.batch
    subprocess.run([*command, "--foreground"], check=True, capture_output=True)
    _edits(folder / "base")
    assert _log(folder)[0]["notes"]["background"] < 0.5  # it began with what the bundled base knows
    train(_order(tmp_path / "straight", phase=DRY, start=BUNDLED))
    killed, straight = _weights(folder), _weights(tmp_path / "straight")
    assert all(torch.equal(killed[key], straight[key]) for key in straight)


def _wait_for_a_base(run: Path, folder: Path, pid: int, before: list[int]) -> int:
    """Follow the log until a base is there that is newer than those before; its step."""
    tail = subprocess.Popen(
        ["tail", "-f", "-n", "+1", f"--pid={pid}", str(run / "grow.log")], stdout=subprocess.PIPE, text=True
    )
    assert tail.stdout is not None
    for _ in tail.stdout:
        base = folder / "base"
        if base.exists() and (step := int(base.resolve().name.split("-")[1])) > max(before, default=0):
            tail.kill()
            return step
    raise AssertionError((run / "grow.log").read_text())


def _wait_for_the_end(run: Path) -> None:
    with (run / PID).open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
