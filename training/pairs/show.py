"""Checked pairs as people and programs get to see them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from infra.errors import OutputError
from pipelines.pairs.check import Checked
from training.sheet import SheetRow, contact_sheet

SHOWN = 60  # pairs on a sheet


def show_table(console: Console, checked: Sequence[Checked], sheet: Path) -> None:
    """One line a pair, then the count."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("pair", "edit", "usable", "why"):
        table.add_column(heading, overflow="fold")
    for each in checked:
        verdict = "[green]yes[/]" if each.pair else f"[red]no[/]  {each.code}"
        table.add_row(each.name, each.edit or "-", verdict, each.reason or each.note or "")
    console.print(table)
    edits = {each.edit for each in checked if each.pair}
    several = f" of {len(edits)} edits" if len(edits) > 1 else ""
    console.print(f"\n{sum(bool(each.pair) for each in checked)} of {len(checked)} pairs{several} can be used: {sheet}")


def to_json(source: str, checked: Sequence[Checked], sheet: Path) -> str:
    """One object with a row for each pair."""
    rows = [
        {
            "name": each.name,
            "edit": each.edit,
            "usable": each.pair is not None,
            "code": each.code,
            "reason": each.reason,
            "note": each.note,
        }
        | _alignment(each)
        for each in checked
    ]
    return json.dumps(
        {"source": source, "usable": sum(row["usable"] for row in rows), "sheet": str(sheet), "pairs": rows}
    )


def _alignment(each: Checked) -> dict[str, float | bool | None]:
    """Numbers where they can be told: pixels to the right and down, 1.07 for 7 % larger, degrees clockwise."""
    found = each.alignment
    numbers = {
        name: round(getattr(found, name), 4) if found else None for name in ("shift_x", "shift_y", "zoom", "turn")
    }
    return numbers | {"misaligned": found.off if found else None}


def write_sheet(path: Path, checked: Sequence[Checked]) -> None:
    """Draw the usable pairs, before beside after, and the reasons of the others. Raises `OutputError`."""
    rows = [
        SheetRow(
            each.name if each.pair else f"{each.name}: {each.reason}",
            (each.pair.before, each.pair.after) if each.pair else each.seen,
            faint=each.pair is None,
        )
        for each in checked[:SHOWN]
    ]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        contact_sheet(("before", "after"), rows).save(path)
    except (OSError, ValueError) as error:
        raise OutputError(f"The sheet cannot be written to {path}: {error}. Give another --sheet FILE.png.") from error


def tell_unusable(console: Console, checked: Sequence[Checked]) -> None:
    """One line for each pair that is left out or misaligned, and the count of those that are used."""
    for each in checked:
        if not each.pair:
            console.print(f"[yellow]left out[/]  {each.name}: {each.reason}", highlight=False)
        elif each.alignment and each.alignment.off:
            console.print(f"[yellow]look at[/]   {each.name}: {each.note}", highlight=False)
    used = [each.pair for each in checked if each.pair]
    several = f" of {len({pair.edit for pair in used})} edits" if len({pair.edit for pair in used}) > 1 else ""
    console.print(f"{len(used)} pair{'s' * (len(used) != 1)}{several}", highlight=False)
