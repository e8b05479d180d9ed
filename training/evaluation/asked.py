"""What somebody asks of `edit-transfer evaluate`, and whether that makes sense."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

from infra.errors import UsageError
from pipelines.tuning import PLAIN, Tuning
from training.evaluation.benchmark import Benchmark
from training.evaluation.plan import SPLITS, Plan
from training.evaluation.results import Saver
from training.evaluation.run import Form
from training.evaluation.subject import Source, Subject, load_editor

ALL = "all"  # splits
MODEL = ("base", "adapter", "steps", "device", "tuned")
EXCLUSIVE = {  # an option, and those that make no sense beside it
    "export": (*MODEL, "benchmark", "results", "baseline", "system", "save_results"),
    "results": (*MODEL, "baseline", "save_results"),
    "baseline": MODEL,
    "benchmark": ("seed", "size"),
    "as_json": ("as_markdown",),
}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The options of the command; None or nothing where it was left out.

    Raises:
        UsageError: options that do not go together.
    """

    base: str | None = None
    adapter: str | None = None
    suite: str = "scenes"
    splits: tuple[str, ...] = ()
    families: tuple[str, ...] = ()
    cases: int | None = None
    steps: tuple[int, ...] = ()
    seed: int | None = None
    size: int | None = None
    device: str = "cpu"
    processes: int | None = None
    as_json: bool = False
    as_markdown: bool = False
    export: Path | None = None
    benchmark: Path | None = None
    results: Path | None = None
    partial: bool = False
    baseline: str | None = None
    system: str | None = None
    save_results: Path | None = None
    tuned: Tuning = PLAIN

    def __post_init__(self) -> None:
        if self.suite != "scenes":
            raise UsageError(f"There is no suite {self.suite}. Use --suite scenes.")
        given = {each.name for each in fields(self) if getattr(self, each.name) != each.default}
        for option, unfit in EXCLUSIVE.items():
            if option in given and (others := given.intersection(unfit)):
                names = ", ".join(sorted(map(_as_typed, others)))
                raise UsageError(f"{_as_typed(option)} does not go with {names}: leave one of them out.")
        if self.partial and not self.results:
            raise UsageError("--partial is about --results, of which none are given.")

    @property
    def form(self) -> Form:
        """How to tell the numbers."""
        return "json" if self.as_json else "markdown" if self.as_markdown else "tables"

    def source(self) -> Source:
        """Where the cases come from, and which are wanted; raises `UsageError` where there are none of those."""
        benchmark = Benchmark.open(self.benchmark) if self.benchmark else None
        whole = benchmark.plan if benchmark else Plan()
        splits = tuple(SPLITS) if ALL in self.splits and not benchmark else self.splits
        plan = replace(
            whole,
            splits=tuple(dict.fromkeys(whole.splits if ALL in splits else splits or whole.splits)),
            families=tuple(dict.fromkeys(self.families or whole.families)),
            cases=self.cases or whole.cases,
            steps=self.steps,
            seed=whole.seed if self.seed is None else self.seed,
            size=self.size or whole.size,
        )
        return Source(plan=benchmark.narrowed(plan) if benchmark else plan, benchmark=benchmark)

    def subject(self, told: Callable[[str], None]) -> Subject:
        """What is to be measured; `told` hears what is good to know of it. Raises `UsageError` where there is none."""
        source = self.source()
        if self.results:
            subject = source.results(self.results, partial=self.partial, told=told)
        elif self.baseline:
            subject = source.baseline(self.baseline)
        else:
            editor = load_editor(self.base, self.adapter, self.device, self.tuned)
            subject = source.edited(editor, self.adapter)
        return replace(subject, name=self.system or subject.name, wanted=self.processes)

    def saver(self) -> Saver | None:
        """Who keeps the results."""
        return Saver(self.save_results) if self.save_results else None


def _as_typed(option: str) -> str:
    return "memory and speed" if option == "tuned" else f"--{option.removeprefix('as_').replace('_', '-')}"
