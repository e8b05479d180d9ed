"""What is measured, on which cases: from options to a system that answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

import torch

from infra import settings
from infra.errors import UsageError
from pipelines import adapters, texts
from pipelines.pairs.check import TOKEN
from pipelines.transfer import Editor, bases
from pipelines.tuning import PLAIN, Tuning
from training.evaluation.benchmark import Benchmark
from training.evaluation.cases import Cases, Drawn, case_id
from training.evaluation.plan import Plan, panel_side
from training.evaluation.processes import cores
from training.evaluation.results import read_results
from training.evaluation.systems import BASELINES, Edited, System

DEVICES = ("cpu", "cuda")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A system by its name, and the cases that it is asked; `plan` has a size, and steps if the system takes any."""

    name: str
    system: System
    cases: Cases
    plan: Plan
    adapter: str | None = None
    wanted: int | None = None  # processes

    @property
    def editor(self) -> Editor | None:
        """What edits here, if anything does."""
        return self.system.editor if isinstance(self.system, Edited) else None

    @property
    def processes(self) -> int:
        """How many do the work: as many as wanted, or one for each core, but one where it cannot be shared.

        Raises:
            UsageError: more are wanted than can be.
        """
        editor = self.editor
        if editor is None or (editor.family.device.type == "cpu" and not editor.tuned.compile):
            return self.wanted or cores()
        if (self.wanted or 1) > 1:
            raise UsageError("What runs on a GPU or is compiled stays in one process. Leave --processes out.")
        return 1


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the cases come from: an exported benchmark, or nowhere yet, as they can be drawn; and which are wanted."""

    plan: Plan
    benchmark: Benchmark | None

    def sized(self) -> Plan:
        """The plan with a size, by default what suits the bundled base, which is not loaded."""
        side = self.plan.size or panel_side(None, TOKEN, bases.settings_of(bases.find_base(None)).max_area)
        return replace(self.plan, size=side)

    def cases(self, plan: Plan) -> Cases:
        """The cases of a plan that has a size."""
        assert plan.size is not None
        return self.benchmark or Drawn(seed=plan.seed, size=plan.size)

    def edited(self, editor: Editor, adapter: str | None = None) -> Subject:
        """An editor; raises `UsageError` where panels do not suit its base."""
        plan = self.plan.fit(editor)
        worn = PurePath(adapter).name if adapter else None
        name = f"{editor.base} with {worn}" if worn else editor.base
        return Subject(name=name, system=Edited(editor), cases=self.cases(plan), plan=plan, adapter=worn)

    def baseline(self, name: str) -> Subject:
        """One of `BASELINES`; raises `UsageError` for an unknown one."""
        if name not in BASELINES:
            raise UsageError(f"There is no baseline {name}. Known: {', '.join(BASELINES)}.")
        plan = self.sized()
        return Subject(name=name, system=BASELINES[name], cases=self.cases(plan), plan=plan)

    def results(self, folder: Path, *, partial: bool, told: Callable[[str], None]) -> Subject:
        """The results of any system, as files; `told` hears what is good to know of them.

        Raises:
            UsageError: there is no benchmark that they are of, or they cannot be scored.
        """
        if self.benchmark is None:
            raise UsageError("Results are scored with the cases that they are of: give the folder with --benchmark.")
        plan = self.plan
        assert plan.size is not None
        wanted = [case_id(split, family, index) for split, family in plan.runs for index in range(plan.cases)]
        found, notes = read_results(
            folder,
            wanted,
            self.benchmark.records,
            side=plan.size,
            max_pixels=settings.from_environment().max_pixels,
            partial=partial,
        )
        for note in notes:
            told(note)
        return Subject(name=folder.resolve().name, system=found, cases=self.cases(plan), plan=plan)


def load_editor(base: str | None, adapter: str | None, device: str, tuned: Tuning = PLAIN) -> Editor:
    """The editor to measure; `adapter` is a registry ref, or the path of a .safetensors file.

    Raises:
        UsageError: there is no such device, base or adapter.
    """
    if device not in DEVICES:
        raise UsageError(f"There is no device {device}. Use --device {' or '.join(DEVICES)}.")
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("torch finds no GPU on this machine. Use --device cpu.")
    if adapter is None or Path(adapter).suffix == ".safetensors":
        return Editor.load(base, adapter=adapter, device=device, tuned=tuned)
    environment = settings.from_environment()
    worn = adapters.find(environment.registry, [adapter], 1.0, Editor.revision_of(base))
    loras = adapters.loras(worn, Path(environment.cache))
    return Editor.load(
        base,
        adapter=loras,
        attention=worn[0].attention,
        device=device,
        prompt_embeds=texts.usual(worn, base),
        compact=worn[0].compact,
        tuned=tuned,
    )
