"""The benchmark as a folder of files that anybody can read: what is in it, and its cases read back.

README.md        the dataset card
benchmark.json   version, splits, families, cases, seed, size, digest
metadata.jsonl   a record for each case
before/ after/ wrong_after/ query/ truth/    <case>.png in each
alternatives/    <case>.<k>.png, k from 1
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from infra.errors import UsageError
from training.evaluation.cases import VERSION, Case, Trial, case_id, digest_of
from training.evaluation.pictures import to_pixels
from training.evaluation.plan import Ask, Plan

NAME = "edit-transfer-scenes"
CARD, HEAD, TABLE = "README.md", "benchmark.json", "metadata.jsonl"
ROLES = ("before", "after", "wrong_after", "query", "truth")
ALTERNATIVES = "alternatives"


def file_of(role: str) -> str:
    """The column that names the file of a role, as the `datasets` library wants it."""
    return f"{role}_file_name"


FILES_OF_ALTERNATIVES = f"{ALTERNATIVES}_file_names"
PARAMETERS_OF_ALTERNATIVES = f"{ALTERNATIVES}_parameters"


@dataclass(frozen=True)
class Benchmark:
    """An exported benchmark: a source of cases. `plan` says which there are."""

    folder: Path
    plan: Plan
    digest: str

    @classmethod
    def open(cls, folder: Path) -> Benchmark:
        """Raises UsageError: there is none in the folder, or one of another version, or not a whole one."""
        try:
            head = json.loads((folder / HEAD).read_text())
            version, digest = head["version"], head["digest"]
            plan = Plan(
                splits=tuple(head["splits"]),
                families=tuple(head["families"]),
                cases=head["cases"],
                seed=head["seed"],
                size=head["size"],
            )
        except OSError as error:
            raise UsageError(f"There is no benchmark in {folder}: {HEAD} cannot be read ({error.strerror}).") from error
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{folder / HEAD} is not what `evaluate --export` writes.") from error
        if version != VERSION:
            raise UsageError(
                f"The benchmark in {folder} is version {version}, and this program scores version {VERSION}: their"
                " numbers do not compare. Export it again, or use the release that exported it."
            )
        benchmark = cls(folder, plan, digest)
        benchmark.check()
        return benchmark

    @cached_property
    def records(self) -> dict[str, dict[str, Any]]:
        """The records of all cases, by id, in order."""
        try:
            lines = (self.folder / TABLE).read_text().splitlines()
            return {record["id"]: record for record in map(json.loads, lines)}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{self.folder / TABLE} cannot be read. Export the benchmark again.") from error

    def check(self) -> None:
        """Whether the table is the one that was exported; pictures are checked as they are read."""
        if digest_of([str(record.get("sha256")) for record in self.records.values()]) != self.digest:
            raise UsageError(f"{self.folder / TABLE} is not the one that was exported. Export the benchmark again.")

    def narrowed(self, plan: Plan) -> Plan:
        """A part of its plan, at its seed and size.

        Raises:
            UsageError: cases are asked for that it does not have.
        """
        lacking = {*plan.runs} - {*self.plan.runs}
        if lacking or plan.cases > self.plan.cases:
            names = ", ".join(sorted(f"{family} in {split}" for split, family in lacking))
            asked = f"cases of {names}" if lacking else f"{plan.cases} cases of a family, only {self.plan.cases}"
            raise UsageError(f"The benchmark in {self.folder} does not have {asked}.")
        return replace(plan, seed=self.plan.seed, size=self.plan.size)

    def trial(self, ask: Ask) -> Trial:
        """Read a pair and its cases.

        Raises:
            UsageError: a picture is missing, or not the one that was exported.
        """
        return tuple(self._case(ask, index) for index in range(ask.first, ask.first + ask.queries))

    def _case(self, ask: Ask, index: int) -> Case:
        record = self.records[case_id(ask.split, ask.family, index)]
        pixels = {role: self._pixels(record[file_of(role)]) for role in ROLES}
        others = [self._pixels(file) for file in record[FILES_OF_ALTERNATIVES]]
        edits = [record["parameters"], *record[PARAMETERS_OF_ALTERNATIVES]]
        case = Case(
            split=ask.split,
            family=ask.family,
            index=index,
            before=pixels["before"],
            after=pixels["after"],
            wrong_after=pixels["wrong_after"],
            query=pixels["query"],
            alternatives=torch.stack([pixels["truth"], *others]),
            edits=torch.tensor([list(edit.values()) for edit in edits]),
        )
        if case.digest != record["sha256"]:
            raise UsageError(
                f"The pictures of case {case.id} in {self.folder} are not those that were exported. Export it again."
            )
        return case

    def _pixels(self, name: str) -> Tensor:
        try:
            with Image.open(self.folder / name) as image:
                return to_pixels(image.convert("RGB"))
        except (OSError, UnidentifiedImageError) as error:
            raise UsageError(f"{self.folder / name} cannot be read. Export the benchmark again.") from error
