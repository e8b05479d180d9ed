"""The benchmark written as files: pictures, a table, and a card that says what they are."""

from __future__ import annotations

import inspect
import json
import math
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from torch import Tensor

from infra.errors import OutputError
from pipelines.transfer.invariance import editing
from training.evaluation.benchmark import (
    ALTERNATIVES,
    CARD,
    FILES_OF_ALTERNATIVES,
    HEAD,
    NAME,
    PARAMETERS_OF_ALTERNATIVES,
    ROLES,
    TABLE,
    file_of,
)
from training.evaluation.cases import VERSION, Case, Drawn, case_id, digest_of
from training.evaluation.pictures import to_image
from training.evaluation.plan import GROUPS, QUERIES, SPLITS, Ask, Plan, group_of
from training.evaluation.processes import spread
from training.scenes import EVERY_FAMILY, photos
from training.sheet import png

DIGITS = 6  # of a parameter, after the point


def export(folder: Path, plan: Plan, processes: int = 1, exported: Callable[[Ask], None] = lambda _: None) -> None:
    """Write the cases of a plan, which has a size; the same plan gives the same bytes. `exported` hears of every pair.

    Raises:
        OutputError: the folder has something in it, or cannot be written.
    """
    assert plan.size is not None
    with _staged(folder) as stage:
        for role in (*ROLES, ALTERNATIVES):
            (stage / role).mkdir()
        records: list[dict[str, Any]] = []
        write = partial(_write_trial, stage, Drawn(seed=plan.seed, size=plan.size))
        for ask, written in zip(plan.asks, spread(write, plan.asks, processes), strict=True):
            records += written
            exported(ask)
        digest = digest_of([record["sha256"] for record in records])
        (stage / TABLE).write_text("".join(json.dumps(record) + "\n" for record in records))
        (stage / HEAD).write_text(json.dumps(_head(plan, digest), indent=2) + "\n")
        (stage / CARD).write_text(_card(plan, digest, records))


class _staged:
    """A folder that gets its name when all is in it, and is gone if that fails. A context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> Path:
        try:
            if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
                raise OutputError(f"{self.folder} is not an empty folder. Give a new one for the benchmark.")
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self.stage = Path(tempfile.mkdtemp(prefix=f".{self.folder.name}-", dir=self.folder.parent))
        except OSError as error:
            raise OutputError(f"{self.folder} cannot be written: {error.strerror}. Give another place.") from error
        return self.stage

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind:
            shutil.rmtree(self.stage, ignore_errors=True)
        else:
            self.stage.chmod(0o755)
            self.stage.replace(self.folder)


def _write_trial(stage: Path, cases: Drawn, ask: Ask) -> list[dict[str, Any]]:
    with editing(torch.device("cpu")):
        return [_write_case(stage, cases, case) for case in cases.trial(ask)]


def _write_case(stage: Path, cases: Drawn, case: Case) -> dict[str, Any]:
    """Write the pictures of a case; what the table says of it."""
    for role in ROLES:
        _write(stage / role / f"{case.id}.png", getattr(case, role))
    others = [f"{ALTERNATIVES}/{case.id}.{k}.png" for k in range(1, len(case.alternatives))]
    for file, pixels in zip(others, case.alternatives[1:], strict=True):
        _write(stage / file, pixels)
    right, wrong, *_ = named = [_named(case.family, edit) for edit in case.edits]
    return {
        "id": case.id,
        "split": case.split,
        "group": group_of(case.family),
        "family": case.family,
        "pair": case_id(case.split, case.family, case.index // QUERIES * QUERIES),
        **{file_of(role): f"{role}/{case.id}.png" for role in ROLES},
        "parameters": right,
        "wrong_parameters": wrong,
        FILES_OF_ALTERNATIVES: others,
        PARAMETERS_OF_ALTERNATIVES: named[1:],
        "chance": None if SPLITS[case.split].held_out_parameters else round(1 / len(named), DIGITS),
        "seed": cases.seed,
        "size": cases.size,
        "sha256": case.digest,
    }


def _write(file: Path, pixels: Tensor) -> None:
    file.write_bytes(png(to_image(pixels)))


def _named(family: str, edit: Tensor) -> dict[str, float]:
    return {
        name: round(float(value), DIGITS) for name, value in zip(EVERY_FAMILY[family].parameters, edit, strict=True)
    }


def _head(plan: Plan, digest: str) -> dict[str, Any]:
    return {
        "name": NAME,
        "version": VERSION,
        "digest": digest,
        "splits": plan.splits,
        "families": plan.families,
        "cases": plan.cases,
        "seed": plan.seed,
        "size": plan.size,
    }


def _card(plan: Plan, digest: str, records: Sequence[dict[str, Any]]) -> str:
    loader = PackageLoader("training.evaluation", ".")
    environment = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    families = [family for group in GROUPS.values() for family in group if family in plan.families]
    return environment.get_template("card.md.j2").render(
        version=VERSION,
        digest=digest,
        plan=plan,
        narrowed=plan.families if len(plan.families) < len(EVERY_FAMILY) else (),
        count=len(records),
        magnitude=_magnitude(len(records)),
        table=TABLE,
        roles=ROLES,
        alternatives=ALTERNATIVES,
        example=_example(records[0]),
        families=[
            (family, group_of(family), EVERY_FAMILY[family].parameters, _what_it_does(family)) for family in families
        ],
        splits={split: SPLITS[split] for split in plan.splits},
        photographs=_photographs(),
        error=round(50 / math.sqrt(plan.cases / QUERIES)),
        error_independent=round(50 / math.sqrt(plan.cases)),
    )


def _example(record: dict[str, Any]) -> str:
    """A record as the card shows it: long lists cut off after their first member, one line for each column."""
    short = {key: [*value[:1], "..."] if isinstance(value, list) else value for key, value in record.items()}
    return "{\n" + ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in short.items()) + "\n}"


def _what_it_does(family: str) -> str:
    """In the words of the code that does it."""
    first, _, second = family.partition("+")
    if second:
        return f"first {first}, then {second}"
    return " ".join((inspect.getdoc(EVERY_FAMILY[family].apply) or "").split())


def _magnitude(count: int) -> str:
    """As the Hub sorts datasets by size."""
    return "n<1K" if count < 1000 else "1K<n<10K" if count < 10_000 else "10K<n<100K"


def _photographs() -> str:
    """Whose the photographs are: the table that stands beside them."""
    lines = (photos.FOLDER / "README.md").read_text().splitlines()
    return "\n".join(line for line in lines if line.startswith("|"))
