"""One run of the benchmark, from options to what people get to see."""

from __future__ import annotations

import time
from pathlib import Path

import torch
import typer
from rich.console import Console

from infra import settings
from infra.errors import OutputError, UsageError
from pipelines import adapters, texts
from pipelines.transfer import Editor
from pipelines.tuning import PLAIN, Tuning
from training.evaluation import report as page
from training.evaluation.outcome import Outcome
from training.evaluation.plan import Plan
from training.evaluation.screen import Meter, show_tables
from training.evaluation.sheet import Sheet
from training.evaluation.suite import Shown, evaluate_scenes

DEVICES = ("cpu", "cuda")


def make_room(*files: Path | None) -> None:
    """Make the folders of files to come, before minutes are spent; raises `OutputError`."""
    for file in filter(None, files):
        if file.is_dir() or file.suffix not in (".png", ".html"):
            raise OutputError(
                f"{file} cannot be written: give the name of a .png for the sheet, of a .html for the report."
            )
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{file} cannot be written: {error.strerror}. Give another place.") from error


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


def measure(editor: Editor, plan: Plan, adapter: str | None = None) -> tuple[Outcome, Sheet]:
    """Run a plan, with progress on stderr."""
    started, sheet, rows = time.monotonic(), Sheet(), []
    with Meter(plan, Console(stderr=True)) as meter:

        def shown(case: Shown) -> None:
            sheet.add(case)
            meter.add(case)

        for row in evaluate_scenes(editor, plan, shown):
            meter.tell(row)
            rows.append(row)
    return Outcome.of(editor, adapter, plan, rows, time.monotonic() - started), sheet


def tell(
    outcome: Outcome, collected: Sheet, *, sheet: Path | None = None, report: Path | None = None, as_json: bool = False
) -> None:
    """Write the files that were asked for; the numbers go to stdout, as tables or as JSON."""
    if sheet:
        collected.save(sheet)
    if report:
        page.write(report, outcome, collected)
    if as_json:
        typer.echo(outcome.to_json())
    else:
        show_tables(Console(), outcome)
